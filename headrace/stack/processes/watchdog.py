"""Ends the processes that a killed supervisor leaves behind. Run by path; imports the standard library only.

It reads `+PID SIGNAL` and `-PID` lines from a pipe that only the supervisor holds open. Each PID leads a process group.
When the pipe ends, each process on the list gets its stop signal. A few seconds later its whole group is killed.
PDEATHSIG alone does not suffice: it does not reach grandchildren, does not kill a slow process, and macOS lacks it.
"""

import os
import signal
import sys
import time
from collections.abc import Callable

GRACE_S = 4.0


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
