"""One child process: starts it so that it never outlives this process, and stops it.

Knows neither what the process does nor when to restart it. Reads the Procfile, the one place that defines how a process
starts, and knows none of its processes by name.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from headrace.errors import StackError

#: A process that runs this long after its stop signal is killed, with its group.
STOP_TIMEOUT_S = 15.0
POLL_S = 0.02
#: How much of its log a message shows.
LAST_LINES = 15
_PROCFILE_LINE = re.compile(r"(?P<name>[A-Za-z0-9_-]+):\s*(?P<line>\S.*)")
_LAUNCHER = Path(__file__).with_name("launch.py")


@dataclass(frozen=True, slots=True)
class Command:
    """A command to run.

    Attributes:
        env: the whole environment.
        stop_signal: the signal that asks this program for a clean end.
        identity: the user to run it as, as `launch.py` reads it; empty for the present user.
        cpus: it keeps to these CPUs; empty for those of this process.
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: Path
    stop_signal: signal.Signals = signal.SIGTERM
    identity: str = ""
    cpus: tuple[int, ...] = ()


class Child:
    """A running command, leader of a session and a process group of its own.

    A terminal's Ctrl-C therefore reaches only the parent. On Linux the child also gets its stop signal when the
    *thread* that started it ends, so start children from a thread that outlives them.
    """

    def __init__(self, command: Command, log: Path, watchdog_fd: int | None = None) -> None:
        """Start it. Appends its output to `log`. It registers with the watchdog before its program runs.

        Raises: StackError.
        """
        self.command = command
        self.log = log
        self.started_at = time.monotonic()
        self._group_ended = False
        try:
            log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with log.open("ab") as output:
                self._process = subprocess.Popen(
                    launched(command.argv, command.stop_signal, command.identity, watchdog_fd, command.cpus),
                    env=command.env,
                    cwd=command.cwd,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    pass_fds=() if watchdog_fd is None else (watchdog_fd,),
                )
        except OSError as error:
            raise StackError(f"{command.name} could not be started: {error}.") from error
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs."""
        return self._process.poll()

    def signal(self, number: int) -> None:
        """Send a signal to the process alone. Does nothing when it has ended."""
        self._process.send_signal(number)

    def kill_group(self) -> None:
        """Kill the rest of its process group, only once after its end: another group may get the same number."""
        if not self._group_ended:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
            self._group_ended = self.poll() is not None

    def wait(self, timeout_s: float) -> bool:
        """Wait for its end. False if it still runs after this time."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout_s)
        return self.poll() is not None

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Ask it to end, wait, then kill what is left of its group."""
        if self.poll() is None:
            self.signal(self.command.stop_signal)
            self.wait(timeout_s)
        self.kill_group()
        self._process.wait()

    def wait_until(self, is_ready: Callable[[], bool], timeout_s: float) -> None:
        """Wait until it is ready. Raises: StackError with the end of its log when it ends or is too slow."""
        deadline = time.monotonic() + timeout_s
        while not is_ready():
            self.check_alive()
            if time.monotonic() > deadline:
                raise StackError(f"{self.command.name} was not ready within {timeout_s:.0f} s. {self.last_words()}")
            time.sleep(POLL_S)

    def check_alive(self, lines: int = LAST_LINES) -> None:
        """Raise StackError with this number of lines from the end of its log when it has ended."""
        status = self.poll()
        if status is not None:
            raise StackError(f"{self.command.name} ended with {describe(status)}. {self.last_words(lines)}")

    def last_words(self, lines: int = LAST_LINES) -> str:
        """The end of its log, for a message. Reads at most its last 16 KiB."""
        with self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - 16_384))
            text = file.read().decode(errors="replace")
        end = "\n".join(f"    {line}" for line in text.splitlines()[-lines:]) or "    (nothing)"
        return f"The end of {self.log}:\n{end}"


def launched(
    argv: Sequence[str],
    stop_signal: int = signal.SIGTERM,
    identity: str = "",
    watchdog_fd: int | None = None,
    cpus: Sequence[int] = (),
) -> list[str]:
    """The command line that runs `argv` as a child of this process, through `launch.py`."""
    watchdog = -1 if watchdog_fd is None else watchdog_fd
    tie = [str(os.getpid()), str(int(stop_signal)), identity, str(watchdog), ",".join(map(str, cpus))]
    # Isolated and without site, so that the program's environment does not affect the launcher itself.
    return [sys.executable, "-I", "-S", str(_LAUNCHER), *tie, *argv]


def describe(status: int) -> str:
    """An exit status in words."""
    return f"status {status}" if status >= 0 else f"signal {-status}"


def read_procfile(path: Path) -> dict[str, str]:
    """The shell line of each process, in the file's order. Raises: StackError."""
    try:
        return parse_procfile(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StackError(f"{path} cannot be read: {error.strerror}.") from error


def parse_procfile(text: str) -> dict[str, str]:
    """The shell line of each process. Ignores blank lines and lines that start with `#`. Raises: StackError."""
    lines: dict[str, str] = {}
    for number, raw in enumerate(text.splitlines(), start=1):
        stripped = raw.strip()
        if not stripped or stripped.startswith("#"):
            continue
        found = _PROCFILE_LINE.fullmatch(stripped)
        if found is None:
            raise StackError(f"Procfile, line {number}: expected `name: command`, got {stripped!r}.")
        if found["name"] in lines:
            raise StackError(f"Procfile, line {number}: there are two processes named {found['name']}.")
        lines[found["name"]] = found["line"]
    return lines


def shell(line: str) -> tuple[str, ...]:
    """The arguments that run a line through the shell. `exec` makes the shell become the process: one pid, not two."""
    return ("/bin/sh", "-c", f"exec {line}")
