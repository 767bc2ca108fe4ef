"""Moves Postgres's files while it runs as the user `nobody`, which cannot reach them in their own folder.

Used only by root on a kernel without user namespaces (see `rootless.py`). Knows nothing of how a server starts.
"""

import hashlib
import os
import shutil
import stat
import tempfile
from pathlib import Path

from headrace.errors import StackError


class LentFiles:
    """Lends a data folder, and a copy of the binaries, to another user for as long as a server runs.

    Both go to one folder in the system's temp folder. Its name depends on the home folder, so that the next run finds
    the files of a killed run. `take_back` moves the data home and removes the rest.
    """

    def __init__(self, home: Path, binaries: Path, owner: tuple[int, int]) -> None:
        self._home = home
        self._origin = binaries
        self._owner = owner
        self._folder = Path(_reachable_folder(), f"headrace-{hashlib.sha256(str(home).encode()).hexdigest()[:12]}")
        self.data = self._folder / "data"
        self.binaries = self._folder / binaries.relative_to(binaries.parents[2])

    def lend(self) -> None:
        """Move the data in, copy the binaries, and make the user their owner. Raises: StackError."""
        self._folder.mkdir(mode=0o755, exist_ok=True)
        if self._folder.is_symlink() or self._folder.stat().st_uid not in (os.geteuid(), self._owner[0]):
            raise StackError(f"{self._folder} belongs to another user. Remove it, or do not run this as root.")
        if self._home.exists() and not self.data.exists():
            shutil.move(self._home, self.data)
        # The binaries find `<package>.libs` beside their package by a relative path.
        install, package = self._origin.parent, self._origin.parents[1]
        for source in (install, package.with_name(f"{package.name}.libs")):
            copy = self._folder / source.relative_to(package.parent)
            if source.exists() and not copy.exists():
                shutil.copytree(source, copy, symlinks=True)
        os.chown(self._folder, *self._owner)
        _chown_tree(self.data, self._owner)

    def hand_over(self, file: Path) -> None:
        """Make the user the owner of one file."""
        os.chown(file, *self._owner)

    def take_back(self) -> None:
        """Undo `lend`, after the server has ended."""
        if self.data.exists():
            _chown_tree(self.data, (os.geteuid(), os.getegid()))
            shutil.move(self.data, self._home)
        shutil.rmtree(self._folder, ignore_errors=True)


def _reachable_folder() -> Path:
    """A folder for temporary files that every user can reach: the configured one, or else one of the system's."""
    for folder in (Path(tempfile.gettempdir()).resolve(), Path("/tmp"), Path("/var/tmp")):
        if all(place.stat().st_mode & stat.S_IXOTH for place in (folder, *folder.parents) if place.exists()):
            return folder
    raise StackError("No folder for temporary files can be reached by another user. Do not run this as root.")


def _chown_tree(folder: Path, owner: tuple[int, int]) -> None:
    for root, _, files in os.walk(folder):
        os.chown(root, *owner)
        for name in files:
            os.chown(os.path.join(root, name), *owner, follow_symlinks=False)
