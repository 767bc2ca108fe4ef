"""A temporary folder that does not outlive its process, even one that is killed.

Knows nothing of engines.
"""

import fcntl
import os
import shutil
import tempfile
from io import TextIOWrapper
from pathlib import Path
from uuid import uuid4

_PREFIX = "headrace-engine-"
#: A socket's path is limited to about 100 characters, and vLLM adds 37 to the folder's path.
_LONGEST_PATH = 65


class Scratch:
    """One folder, guarded by a lock that the kernel releases when the process dies."""

    def __init__(self) -> None:
        root = Path(tempfile.gettempdir())
        name = f"{_PREFIX}{uuid4().hex[:12]}"
        self.path = root / name if len(str(root / name)) <= _LONGEST_PATH else Path("/tmp") / name
        self._lock: TextIOWrapper | None = None

    def open(self) -> None:
        """Make the folder, and remove those of dead processes. Safe to call twice."""
        if self._lock is None:
            _sweep(self.path.parent)
            self._lock = _lock_path(self.path).open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.path.mkdir(mode=0o700, exist_ok=True)

    def close(self) -> None:
        """Remove the folder. Safe to call twice."""
        if self._lock is not None:
            shutil.rmtree(self.path, ignore_errors=True)
            _lock_path(self.path).unlink(missing_ok=True)
            self._lock.close()
            self._lock = None


def _lock_path(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


def _sweep(root: Path) -> None:
    for path in root.glob(f"{_PREFIX}*.lock"):
        try:
            if path.stat().st_uid != os.getuid():
                continue
            with path.open("r+") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path.with_suffix(""), ignore_errors=True)
                path.unlink(missing_ok=True)
        except OSError:
            continue  # Its process lives, or another one sweeps it right now.
