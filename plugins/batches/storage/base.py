"""What every storage does. `tests/contracts/test_storage.py` of the plugin holds each of them to it."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Protocol

from headrace.errors import Unavailable

#: Bytes of one part that a storage returns, at most.
READ_BYTES = 256 * 1024


class StorageUnavailable(Unavailable):
    """The storage of files does not answer, or is full."""

    code = "storage_unavailable"


class Writer(Protocol):
    """One file that is being written. It cannot be read before `finish` has returned."""

    def write(self, data: bytes) -> None:
        """Append bytes. Raises: StorageUnavailable."""

    def finish(self) -> None:
        """Make the file durable, and readable under its key. Raises: StorageUnavailable."""

    def abandon(self) -> None:
        """Drop what was written. What cannot be dropped now, `delete` finds later."""


class Storage(Protocol):
    """Keeps files by their keys: words of letters, digits and hyphens, joined by slashes. Safe for many threads."""

    def writer(self, key: str) -> Writer:
        """Begin a file. Raises: StorageUnavailable."""

    def read(self, key: str) -> AbstractContextManager[Iterator[bytes]]:
        """The file's bytes, in parts of `READ_BYTES` at most. Raises: NotFound. StorageUnavailable."""

    def delete(self, key: str) -> None:
        """Delete the file, and what a writer that died has left of it; nothing if there is none.

        Raises: StorageUnavailable.
        """
