"""What every storage of files must do, shown on each of them: a folder, and S3 by moto's server over HTTP."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.errors import NotFound
from plugins.batches.storage import Storage, open_storage
from plugins.batches.storage.base import READ_BYTES, StorageUnavailable
from plugins.batches.storage.s3 import PART_BYTES
from plugins.batches.tests.contracts.storages import Folder, Place
from tests.contracts.providers.aws import Moto

KEY = "0a1b/2c3d"


@pytest.fixture(scope="module")
def moto() -> Iterator[Moto]:
    moto = Moto()
    yield moto
    moto.stop()


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path, moto: Moto) -> Place:
    if request.param == "folder":
        return Folder(tmp_path)
    return moto.bucket(request.getfixturevalue("monkeypatch"))


@pytest.fixture
def storage(place: Place) -> Storage:
    storage = open_storage(place.settings)
    assert storage is not None
    return storage


def put(storage: Storage, *parts: bytes, key: str = KEY) -> None:
    writer = storage.writer(key)
    for part in parts:
        writer.write(part)
    writer.finish()


def content(storage: Storage, key: str = KEY) -> list[bytes]:
    with storage.read(key) as parts:
        return list(parts)


@pytest.mark.parametrize("size", [0, 1, PART_BYTES, 2 * PART_BYTES + 1])
def test_a_file_is_read_as_it_was_written(storage: Storage, size: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    put(storage, *(data[at : min(at + 300_000, size)] for at in range(0, size, 300_000)))
    assert b"".join(content(storage)) == data[:size]


def test_a_reader_gets_parts_of_bounded_size(storage: Storage) -> None:
    put(storage, bytes(3 * READ_BYTES + 7))
    assert max(map(len, content(storage))) <= READ_BYTES


def test_a_file_is_there_once_it_is_whole(storage: Storage, place: Place) -> None:
    writer = storage.writer(KEY)
    writer.write(bytes(PART_BYTES + 1))
    with pytest.raises(NotFound), storage.read(KEY):
        pass
    writer.finish()
    assert sum(map(len, content(storage))) == PART_BYTES + 1
    assert place.names() == [KEY]


def test_files_of_two_keys_are_apart(storage: Storage) -> None:
    put(storage, b"one", key="a/b")
    put(storage, b"two", key="a/c")
    storage.delete("a/b")
    assert content(storage, "a/c") == [b"two"]


@pytest.mark.parametrize("size", [0, 10, PART_BYTES + 1])
def test_what_a_writer_abandons_is_gone(storage: Storage, place: Place, size: int) -> None:
    writer = storage.writer(KEY)
    writer.write(bytes(size))
    writer.abandon()
    assert place.names() == []


@pytest.mark.parametrize("size", [10, PART_BYTES + 1])
def test_what_a_writer_that_died_has_left_is_deleted(storage: Storage, place: Place, size: int) -> None:
    dead = storage.writer(KEY)
    dead.write(bytes(size))
    storage.delete(KEY)
    assert place.names() == []
    dead.abandon()


def test_a_deleted_file_is_gone_and_may_be_deleted_again(storage: Storage, place: Place) -> None:
    put(storage, b"text")
    storage.delete(KEY)
    storage.delete(KEY)
    with pytest.raises(NotFound), storage.read(KEY):
        pass
    assert place.names() == []


def test_a_reader_goes_on_while_its_file_is_deleted(storage: Storage) -> None:
    put(storage, bytes(4 * READ_BYTES))
    with storage.read(KEY) as parts:
        first = next(parts)
        storage.delete(KEY)
        assert len(first) + sum(map(len, parts)) == 4 * READ_BYTES


def test_a_storage_that_does_not_work_says_so(storage: Storage, place: Place) -> None:
    place.fail()
    with pytest.raises(StorageUnavailable):
        put(storage, b"text")
    with pytest.raises(StorageUnavailable):
        storage.delete(KEY)
