"""Processes whose parent died before them, below this one: adopted, reaped, and in the end killed.

Linux only; elsewhere nothing is adopted and nothing is left to do here.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
_LINUX = sys.platform.startswith("linux")


@contextmanager
def adopted() -> Iterator[None]:
    """Be the one who orphans below this process are given to, for the length of a block."""
    if _LINUX:
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    try:
        yield
    finally:
        if _LINUX:
            ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 0)


def reap(own: Collection[int]) -> None:
    """Collect the exit status of dead orphans. Those of our own children are left to whoever started them."""
    while _LINUX:
        try:
            # A look first: taking the status of a child of ours would hide it from its Popen.
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if found is None or found.si_pid in own:
            return
        with suppress(ChildProcessError):
            os.waitpid(found.si_pid, 0)


def kill_all(except_pid: int) -> None:
    """Kill every child this process still has but one, and the orphans that makes, until none is left."""
    while _LINUX and (left := [pid for pid in _children() if pid != except_pid]):
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)


def _children() -> list[int]:
    """Pids of this process's children, of all its threads."""
    pids: list[int] = []
    for listing in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):
            pids += [int(pid) for pid in listing.read_text().split()]
    return pids
