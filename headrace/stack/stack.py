"""A whole stack, from the outside: `headrace up` as a child process, for the demo and the end-to-end tests.

It needs its own process, because a supervisor owns its process: its signals, its main thread, and every orphan.
"""

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from headrace.config import PROJECT_ROOT
from headrace.errors import StackError
from headrace.stack.child import LAST_LINES, Child, Command
from headrace.stack.state_folder import StackReport

START_TIMEOUT_S = 900.0
#: Long, because the stages of the stack stop one after the other.
STOP_TIMEOUT_S = 90.0
_POLL_S = 0.05
#: The end of its log may itself be a message that quotes the end of another.
_LAST_LINES = LAST_LINES + 10
_UP = "from headrace.cli import main; main()"


@dataclass(frozen=True, slots=True)
class StackProcess:
    """One process of a running stack."""

    name: str
    pid: int


class Stack:
    """A stack for the length of a `with` block.

    Start it from a thread that lives as long as the stack must: on Linux, the stack stops when that thread ends.
    """

    def __init__(
        self,
        state_dir: Path,
        options: tuple[str, ...] = (),
        env: Mapping[str, str] | None = None,
        say: Callable[[str], None] = lambda line: None,
        tree: Path = PROJECT_ROOT,
    ) -> None:
        """Start nothing yet.

        Args:
            options: of `headrace up`, such as `("--engine", "simulator", "--without", "gpu")`.
            env: variables for the stack, on top of this process's environment.
            say: gets each line that `headrace up` prints while it starts.
            tree: the checkout whose code runs, with the packages of this process's environment.
        """
        self.state_dir = state_dir.resolve()
        self._ready_file = self.state_dir / "ready.json"
        inherited = dict(os.environ)  # noqa: TID251 - it is passed on as a whole; nothing is read from it here.
        changes = {"HEADRACE_STATE": str(self.state_dir), "PYTHONUNBUFFERED": "1", **(env or {})}
        if tree != PROJECT_ROOT:
            changes["PYTHONPATH"] = str(tree)
        argv = (sys.executable, "-c", _UP, "up", "--ready-file", str(self._ready_file), *options)
        self._command = Command("headrace up", argv, inherited | changes, tree)
        self._say = say
        self._child: Child | None = None

    @property
    def report(self) -> StackReport:
        """Its addresses, key and pids, as of now."""
        return StackReport.read(self._ready_file)

    @property
    def processes(self) -> dict[str, StackProcess]:
        """Its running processes by name, as of now."""
        return {name: StackProcess(name, pid) for name, pid in self.report.pids.items()}

    @property
    def pid(self) -> int:
        return self._running.pid

    def start(self) -> None:
        """Start the stack, and return once everything is ready. Raises: StackError, after stopping everything."""
        self.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._ready_file.unlink(missing_ok=True)
        log = self.state_dir / "logs" / "up.log"
        log.unlink(missing_ok=True)
        self._child = Child(self._command, log)
        deadline = time.monotonic() + START_TIMEOUT_S
        passed = 0
        try:
            while not self._ready_file.exists():
                passed = self._tell(log, passed)
                self._child.check_alive(_LAST_LINES)
                if time.monotonic() > deadline:
                    raise StackError(f"The stack was not ready within {START_TIMEOUT_S:.0f} s.")
                time.sleep(_POLL_S)
        except BaseException:
            self.stop()
            raise
        self._tell(log, passed)

    def kill(self, name: str, number: int = signal.SIGKILL) -> int:
        """Send a signal to one process. Returns: the pid that got it."""
        pid = self.processes[name].pid
        with suppress(ProcessLookupError):
            os.kill(pid, number)
        return pid

    def wait(self) -> None:
        """Block as long as the stack runs. Raises: StackError when it ends by itself."""
        while True:
            self._running.check_alive(_LAST_LINES)
            time.sleep(_POLL_S)

    def stop(self) -> int:
        """Stop everything in reverse order. Safe to call twice. Returns: the supervisor's exit status."""
        self._running.stop(STOP_TIMEOUT_S)
        status = self._running.poll()
        assert status is not None
        return status

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def _running(self) -> Child:
        if self._child is None:
            raise StackError("This stack was not started.")
        return self._child

    def _tell(self, log: Path, passed: int) -> int:
        """Pass on the new whole lines of the log. Returns: how many bytes of it have been passed on."""
        with log.open("rb") as file:
            file.seek(passed)
            text, newline, _ = file.read().rpartition(b"\n")
        for line in text.decode(errors="replace").splitlines():
            self._say(line)
        return passed + len(text) + len(newline)
