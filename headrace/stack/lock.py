"""A lock that allows one stack per state folder. Knows nothing else of a stack."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from headrace.errors import StackError

#: Seconds to wait for the lock. A killed stack's watchdog keeps it until the stack's last process has ended. That takes
#: less time.
PATIENCE_S = 10.0


@contextmanager
def state_lock(folder: Path) -> Iterator[int]:
    """Lock this state folder. Yields: the lock's descriptor; a child that inherits it holds the lock too.

    Raises: StackError.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock_file = (folder / "lock").open("a+")
    except OSError as error:
        raise StackError(f"The state folder {folder} cannot be used: {error.strerror}. Set HEADRACE_STATE.") from error
    with lock_file as file:
        _acquire(file.fileno(), folder)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield file.fileno()


def _acquire(descriptor: int, folder: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            holder = (folder / "lock").read_text()
            if _is_alive(holder) or time.monotonic() > deadline:
                raise StackError(
                    f"Another stack (pid {holder}) uses the state folder {folder}. "
                    f"Stop it, or set HEADRACE_STATE to another folder."
                ) from error
        time.sleep(0.05)


def _is_alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True
