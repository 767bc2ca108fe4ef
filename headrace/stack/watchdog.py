"""Ends the processes that a killed supervisor leaves behind. Run by path; imports the standard library only.

The watchdog reads `+PID SIGNAL` and `-PID` lines from a pipe that only the supervisor holds open. Each PID leads a
process group. When the pipe ends, each process on the list gets its stop signal. A few seconds later its whole group is
killed. PDEATHSIG alone does not suffice: it does not reach grandchildren, does not kill a slow process, and macOS lacks
it.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Self

GRACE_S = 4.0


class WatchdogPipe:
    """A running watchdog. It outlives a killed supervisor, and holds the lock until it is done."""

    def __init__(self, lock: int) -> None:
        reading, self.descriptor = os.pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(Path(__file__))],
            stdin=reading,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
            pass_fds=(lock,),
        )
        os.close(reading)
        self.pid = self._process.pid

    def forget(self, pid: int) -> None:
        """Take an ended process off the list, because another process may get the same pid."""
        # The supervisor must not fail because its watchdog was killed.
        with suppress(BrokenPipeError):
            os.write(self.descriptor, f"-{pid}\n".encode())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)
        self._process.wait()


def main() -> None:
    """Follow the list until the supervisor is gone, then end the processes on it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    left: dict[int, int] = {}
    for line in sys.stdin:
        pid, _, stop_signal = line[1:].partition(" ")
        if line[0] == "+":
            left[int(pid)] = int(stop_signal)
        else:
            left.pop(int(pid), None)
    for pid, stop_signal in left.items():
        send(os.kill, pid, stop_signal)
    deadline = time.monotonic() + GRACE_S
    while time.monotonic() < deadline and any(send(os.killpg, pid, 0) for pid in left):
        time.sleep(0.05)
    for pid in left:
        send(os.killpg, pid, signal.SIGKILL)


def send(how: Callable[[int, int], None], target: int, number: int) -> bool:
    """Send a signal. True if the target exists."""
    try:
        how(target, number)
    except OSError:
        return False
    return True


if __name__ == "__main__":
    main()
