"""The supervisor's end of the pipe to its watchdog. Knows nothing of the watched processes' work."""

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Self

_WATCHDOG = Path(__file__).with_name("watchdog.py")


class WatchdogPipe:
    """A running watchdog. It outlives a killed supervisor, and holds the lock until it is done."""

    def __init__(self, lock: int) -> None:
        reading, self.descriptor = os.pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_WATCHDOG)],
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
