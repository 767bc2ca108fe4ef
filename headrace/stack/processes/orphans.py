"""Adopts, reaps and finally kills orphans: descendants of this process whose parent has died.

Linux only. Elsewhere the functions do nothing.
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
    """Make the kernel reparent orphans below this process to it, for the length of a block."""
    if _LINUX:
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    try:
        yield
    finally:
        if _LINUX:
            ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 0)


def reap(own: Collection[int]) -> None:
    """Collect the exit status of dead orphans. Leaves that of `own` children to their Popen objects."""
    while _LINUX:
        try:
            # Look before reaping: reaping an own child would hide its status from its Popen.
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if found is None or found.si_pid in own:
            return
        with suppress(ChildProcessError):
            os.waitpid(found.si_pid, 0)


def kill_all(except_pid: int) -> None:
    """Kill every child of this process but one, then the orphans of those, until none is left."""
    while _LINUX and (left := [pid for pid in _children() if pid != except_pid]):
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)


def _children() -> list[int]:
    """The pids of the children of all this process's threads."""
    pids: list[int] = []
    for listing in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):
            pids += [int(pid) for pid in listing.read_text().split()]
    return pids
