"""Ends what a supervisor leaves behind when it is killed. Run by path; imports the standard library only.

It reads `+PID SIGNAL` and `-PID` lines, each PID the leader of a process group, from a pipe that only the
supervisor holds open. When the pipe ends, whoever is still on the list is asked to stop and killed a few seconds
later, group and all. PDEATHSIG alone would not do: it reaches neither grandchildren nor a process that is slow
to obey, and macOS has none.
"""

import os
import signal
import sys
import time
from collections.abc import Callable

GRACE_S = 4.0


def main() -> None:
    """Follow the list until the supervisor is gone, then end what is on it."""
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
    """Send a signal; True when there was somebody to get it."""
    try:
        how(target, number)
    except OSError:
        return False
    return True


if __name__ == "__main__":
    main()
