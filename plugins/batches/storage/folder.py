"""Files in a folder: of one machine, or a mount that all `web`, `batches` and `control` processes share."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from headrace.errors import NotFound
from plugins.batches.storage.base import READ_BYTES, StorageUnavailable

#: The ending of a file that is not whole.
UNFINISHED = ".part"


class FolderStorage:
    """Writes each file under another name, and renames it once it is on the disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def writer(self, key: str) -> "_FolderWriter":
        """Begin a file."""
        with _one_error():
            path = self._folder / key
            path.parent.mkdir(parents=True, exist_ok=True)
            return _FolderWriter(path)

    @contextmanager
    def read(self, key: str) -> Iterator[Iterator[bytes]]:
        """The file's bytes."""
        with _one_error():
            try:
                file = (self._folder / key).open("rb")
            except FileNotFoundError:
                raise NotFound("This file has no content any more.") from None
        with file:
            yield _parts(file)

    def delete(self, key: str) -> None:
        """Delete the file, whole or not."""
        path = self._folder / key
        with _one_error():
            for each in (path, unfinished(path)):
                each.unlink(missing_ok=True)


class _FolderWriter:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = unfinished(path).open("wb", buffering=0)

    def write(self, data: bytes) -> None:
        """Append bytes: a raw file may take a part of them at a time."""
        with _one_error():
            left = memoryview(data)
            while left:
                left = left[self._file.write(left) :]

    def finish(self) -> None:
        """Bring the bytes to the disk, and then the name."""
        with _one_error():
            os.fsync(self._file.fileno())
            self._file.close()
            unfinished(self._path).rename(self._path)
            folder = os.open(self._path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def abandon(self) -> None:
        """Delete what there is."""
        self._file.close()
        with suppress(OSError):
            unfinished(self._path).unlink(missing_ok=True)


def unfinished(path: Path) -> Path:
    """Where a file is while it is written."""
    return path.with_name(path.name + UNFINISHED)


def _parts(file: BinaryIO) -> Iterator[bytes]:
    with _one_error():
        while part := file.read(READ_BYTES):
            yield part


@contextmanager
def _one_error() -> Iterator[None]:
    """Raise StorageUnavailable for a disk that is full, broken or not mounted."""
    try:
        yield
    except OSError as error:
        raise StorageUnavailable(f"The folder of files does not work: {error.strerror}") from error
