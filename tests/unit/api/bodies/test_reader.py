"""A body is read as long as its client keeps up, and no longer."""

import io
import threading
import time
from collections.abc import Iterator

import pytest

from api.bodies import reader as body_reader
from api.bodies.reader import CHUNK_BYTES, BodyReader
from api.bodies.threads import ReaderThreads
from headrace.errors import BodyTimeout

PATIENCE_S = 20.0
THREADS = ReaderThreads()


class Stalling(io.BytesIO):
    """A body that stops coming after its first bytes, until it is told to go on."""

    def __init__(self, body: bytes, stalls_at: int) -> None:
        super().__init__(body)
        self._stalls_at, self.stalls, self.may_go_on = stalls_at, threading.Event(), threading.Event()

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell() >= self._stalls_at:
            self.stalls.set()
            assert self.may_go_on.wait(PATIENCE_S)
        return super().read(size)


@pytest.fixture
def stalling() -> Iterator[Stalling]:
    """Stalls after its first chunk."""
    stream = Stalling(b"x" * 3 * CHUNK_BYTES, CHUNK_BYTES)
    yield stream
    stream.may_go_on.set()


def test_a_body_is_read_whole_and_no_further_than_its_size() -> None:
    body = bytes(range(256)) * 1000
    assert BodyReader(io.BytesIO(body), len(body), THREADS).result(PATIENCE_S) == body
    assert BodyReader(io.BytesIO(body), 100_000, THREADS).result(PATIENCE_S) == body[:100_000]
    longer = BodyReader(io.BytesIO(body), 2 * len(body), THREADS)
    assert longer.result(PATIENCE_S) == body, "a chunked body may end sooner"


def test_what_the_stream_raises_reaches_the_request() -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        BodyReader(Broken(), 1, THREADS).result(PATIENCE_S)


def test_a_stalled_body_is_given_up_and_what_came_of_it_is_dropped(stalling: Stalling) -> None:
    reader = BodyReader(stalling, 3 * CHUNK_BYTES, THREADS)
    assert stalling.stalls.wait(PATIENCE_S)
    with pytest.raises(BodyTimeout, match=r"^Less than 128 KiB of the body came in .* Send at least 64 KiB/s: "):
        reader.result(grace_s=0.0)
    assert not reader.has_ended, "its thread reads until the client goes on or leaves"
    assert reader._chunks == []

    stalling.may_go_on.set()
    reader.join()
    assert reader.has_ended
    assert stalling.tell() == 2 * CHUNK_BYTES, "nothing more is read of a body that was given up"


def test_what_came_buys_time_at_the_minimum_rate(stalling: Stalling, monkeypatch: pytest.MonkeyPatch) -> None:
    chunk_s, grace_s = 0.4, 0.1
    monkeypatch.setattr(body_reader, "MIN_RATE", CHUNK_BYTES / chunk_s)
    began = time.monotonic()
    with pytest.raises(BodyTimeout):
        BodyReader(stalling, 3 * CHUNK_BYTES, THREADS).result(grace_s)
    assert time.monotonic() - began >= grace_s + chunk_s
