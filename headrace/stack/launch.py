"""The first moments of a child process, before it becomes its program. Run by path; imports the standard library only.

    launch.py PARENT_PID STOP_SIGNAL IDENTITY WATCHDOG_FD CPUS PROGRAM [ARGUMENT …]

It is a separate program, because the alternative, Python code between fork and exec, is unsafe in a process with
threads.
"""

import ctypes
import os
import signal
import sys
from contextlib import suppress

_CLONE_NEWUSER = 0x10000000
_PR_SET_PDEATHSIG = 1


def main(parent: int, stop_signal: int, identity: str, watchdog: int, program: list[str]) -> None:
    """Tie this process to its parent, take on an identity, and become the program."""
    if watchdog >= 0:
        os.write(watchdog, f"+{os.getpid()} {stop_signal}\n".encode())
        os.set_inheritable(watchdog, False)
    libc = ctypes.CDLL(None, use_errno=True)
    if identity:
        how, uid, gid = identity.split(":")
        {"map": _map, "drop": _drop}[how](libc, int(uid), int(gid))
    if sys.platform.startswith("linux"):
        # After the change of identity, which would clear this setting.
        libc.prctl(_PR_SET_PDEATHSIG, stop_signal)
    if os.getppid() != parent:
        sys.exit("the parent is gone")
    # Python ignores these signals, and a program inherits ignored signals.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    try:
        os.execvp(program[0], program)
    except OSError as error:
        sys.exit(f"{program[0]}: {error.strerror}")


def _keep_to(cpus: str) -> None:
    """Run on these CPUs alone. All threads and processes that this one starts do the same."""
    if cpus:
        # They may have been taken from the container since. Then it runs where the kernel lets it.
        with suppress(OSError):
            os.sched_setaffinity(0, map(int, cpus.split(",")))


def _map(libc: ctypes.CDLL, uid: int, gid: int) -> None:
    own_uid, own_gid = os.geteuid(), os.getegid()
    if libc.unshare(_CLONE_NEWUSER) != 0:
        sys.exit(f"unshare: {os.strerror(ctypes.get_errno())}")
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {own_uid} 1"), ("gid_map", f"{gid} {own_gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def _drop(_: ctypes.CDLL, uid: int, gid: int) -> None:
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)


if __name__ == "__main__":
    _keep_to(sys.argv[5])
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), sys.argv[6:])
