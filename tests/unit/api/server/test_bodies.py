"""A body is read whole and unpacked, up to its limit, as long as its sender keeps up."""

import asyncio
import gzip
import random
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

from api.auth import CallRates, calls_of
from api.bodies import MIN_RATE, SMALL_BYTES, SMALL_LIMIT, Bodies
from api.server import PART_BYTES, PIECE_BYTES, BodyReader, Exchange, PartsReader, unpack
from api.threads import Mailbox, Threads
from api.turns import Turn
from headrace.errors import BodiesFull, BodyTimeout, HeadraceError, InvalidRequest, UnsupportedEncoding

from .conftest import APP, BODY, BODY_LIMIT, World

Value = TypeVar("Value")
CHUNKED = {"headers": {"Transfer-Encoding": "chunked"}, "environ_base": {"wsgi.input_terminated": True}}
GZIP = {"headers": {"Content-Encoding": "gzip"}}


@pytest.mark.parametrize(
    ("body", "changes"),
    [(BODY + b" " * SMALL_BYTES, {}), (BODY, CHUNKED), (gzip.compress(BODY), GZIP)],
    ids=["large", "chunked", "packed"],
)
def test_other_than_small_bodies_are_counted_until_their_requests_end(
    world: World, monkeypatch: pytest.MonkeyPatch, body: bytes, changes: dict[str, Any]
) -> None:
    admitted, admit = list[int](), Bodies.admit

    def noting(bodies: Bodies, app: Any, size: int, key: str | None) -> None:
        admit(bodies, app, size, key)
        admitted.append(bodies._held[app.id])

    monkeypatch.setattr(Bodies, "admit", noting)
    assert world.post(body, **changes).status_code == 202
    assert admitted == [BODY_LIMIT if changes else len(body)]
    assert world.bodies._held == world.bodies._small == {}
    assert world.submitted[-1].sent.body == (BODY if changes else body)


@pytest.mark.parametrize("size", [BODY_LIMIT, BODY_LIMIT + 1])
@pytest.mark.parametrize("way", ["told", "chunked", "packed"])
def test_a_body_is_read_up_to_its_limit(world: World, size: int, way: str) -> None:
    body = BODY.ljust(size)
    changes: dict[str, Any] = {"chunked": CHUNKED, "packed": GZIP}.get(way, {})
    answer = world.post(gzip.compress(body) if way == "packed" else body, **changes)
    assert answer.status_code == (202 if size == BODY_LIMIT else 413)
    assert (b'"code":"request_too_large"' in answer.data) == (size > BODY_LIMIT)
    assert world.bodies._held == {}


def test_another_packing_is_refused(world: World) -> None:
    answer = world.post(BODY, headers={"Content-Encoding": "br"})
    assert (answer.status_code, b'"code":"unsupported_encoding"' in answer.data) == (415, True)


def test_bodies_use_calls_by_their_size(world: World) -> None:
    # Wrong bodies, of which each counts as eleven calls.
    statuses = [world.post(b"[" + b" " * 40_960).status_code for _ in range(3)]
    assert statuses == [400, *[429] * 2]


class Sender:
    """A client that sends parts, each after its delay in seconds; after the last it is silent, or leaves."""

    def __init__(
        self, *parts: tuple[float, bytes], size: int | None, leaves: bool = False, encoding: bytes | None = None
    ) -> None:
        self.parts, self._leaves = list(parts), leaves
        headers = [(b"transfer-encoding", b"chunked") if size is None else (b"content-length", str(size).encode())]
        if encoding is not None:
            headers.append((b"content-encoding", encoding))
        self._scope = {"method": "POST", "headers": headers, "query_string": b"", "path": "/v1/jobs"}
        self.bodies = Bodies(None, None, in_flight_bytes=10**6, grace_s=0.2)  # type: ignore[arg-type]

    async def receive(self) -> Any:
        if not self.parts:
            if not self._leaves:
                await asyncio.Event().wait()  # It is never set.
            return {"type": "http.disconnect"}
        after_s, part = self.parts.pop(0)
        # No wait for anything: that the part comes late is what the test is about.
        await asyncio.sleep(after_s)
        return {"type": "http.request", "body": part, "more_body": True}

    def read(self) -> bytes | HeadraceError:
        """The body, or why there is none."""

        async def run() -> bytes:
            threads = Threads(1, Mailbox(asyncio.get_running_loop()))
            try:
                exchange = Exchange(self._scope, self.receive, _unused, self.bodies.grace_s)
                return await BodyReader(self.bodies, BODY_LIMIT, threads).read(exchange, Turn(caller=APP))
            finally:
                threads.close()

        return _outcome(run())

    def read_parts(self, pause_s: float = 0.0) -> list[bytes] | HeadraceError:
        """The body by parts, as the view of an upload reads it, or why there is none.

        Args: pause_s: seconds that the view takes for each part.
        """

        async def run() -> list[bytes]:
            threads = Threads(1, Mailbox(asyncio.get_running_loop()))
            exchange = Exchange(self._scope, self.receive, _unused, self.bodies.grace_s)
            reader = PartsReader(BodyReader(self.bodies, BODY_LIMIT, threads), exchange)

            def read() -> list[bytes]:
                found = []
                while part := reader.read():
                    found.append(part)
                    time.sleep(pause_s)
                return found

            return await asyncio.to_thread(read)

        return _outcome(run())


def _outcome(run: Coroutine[Any, Any, Value]) -> Value | HeadraceError:
    try:
        return asyncio.run(run)
    except HeadraceError as error:
        return error


async def _unused(_: object) -> None:
    raise AssertionError


def test_a_body_that_comes_in_parts_is_whole() -> None:
    assert Sender((0, b"a"), (0.01, b"bc"), size=3).read() == b"abc"


@pytest.mark.parametrize("sender", [Sender(size=3), Sender((0, b"a"), size=3), Sender((0, b"a"), size=None)])
def test_a_body_that_does_not_come_is_given_up(sender: Sender) -> None:
    error = sender.read()
    assert isinstance(error, BodyTimeout)
    assert "Send at least 64 KiB/s" in str(error)


def test_what_came_buys_time_at_the_minimum_rate() -> None:
    part = b" " * (MIN_RATE // 4)
    assert Sender((0, part), (0.35, b"a"), size=len(part) + 1).read() == part + b"a"


@pytest.mark.parametrize("size", [2, None])
def test_a_body_whose_client_leaves_is_refused(size: int | None) -> None:
    error = Sender((0, b"a"), size=size, leaves=True).read()
    assert isinstance(error, InvalidRequest)
    # The server says the same of chunks that it cannot read: then the client is still there.
    assert str(error) == "The body breaks off after 1 bytes."
    assert error.code == "invalid_json"


def test_an_app_sends_so_many_small_bodies_at_once() -> None:
    sender = Sender((0, b"a"), size=1)
    sender.bodies._small[APP.id] = SMALL_LIMIT
    error = sender.read()
    assert isinstance(error, BodiesFull)
    assert error.reason == "app_bodies"


def test_an_upload_is_read_by_parts_of_about_one_size() -> None:
    part = b"x" * (PART_BYTES // 2 + 1)
    parts = Sender(*[(0, part)] * 4, (0, b"end"), size=4 * len(part) + 3).read_parts()
    assert parts == [part * 2, part * 2, b"end"]


def test_the_time_that_a_view_takes_is_not_its_client_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.server.PART_BYTES", 1024)
    part = b"x" * 1024
    # More than the grace and the time that the parts have bought.
    assert Sender(*[(0, part)] * 2, (0, b"end"), size=2 * 1024 + 3).read_parts(0.15) == [part, part, b"end"]


@pytest.mark.parametrize(
    ("sender", "error"),
    [
        (Sender((0, b"a"), size=3), BodyTimeout),
        (Sender((0, b"a"), size=3, leaves=True), InvalidRequest),
        (Sender((0, b"a"), size=1, encoding=b"gzip"), UnsupportedEncoding),
        (Sender((0, b"a"), size=1, encoding=b"br"), UnsupportedEncoding),
    ],
    ids=["silent", "leaves", "gzip", "br"],
)
def test_an_upload_that_breaks_off_or_is_packed_is_refused(sender: Sender, error: type[HeadraceError]) -> None:
    assert isinstance(sender.read_parts(), error)


def unpacked(raw: bytes, limit: int) -> bytes:
    pieces = list[bytes]()
    unpack(raw, limit, pieces)
    return b"".join(pieces)


@pytest.mark.parametrize("limit", [1000, PIECE_BYTES - 1, PIECE_BYTES, 3 * PIECE_BYTES])
@pytest.mark.parametrize("short", [0, 1, 1000])
def test_a_gzip_is_unpacked(limit: int, short: int) -> None:
    body = random.Random(7).randbytes(limit - short)
    assert unpacked(gzip.compress(body, 1), limit) == body


@pytest.mark.parametrize("limit", [1000, PIECE_BYTES - 1, PIECE_BYTES, 3 * PIECE_BYTES])
def test_no_more_is_unpacked_than_shows_that_it_is_too_much(limit: int) -> None:
    assert len(unpacked(gzip.compress(b"x" * 50_000_000), limit)) == limit + 1


@pytest.mark.parametrize(
    "raw", [b"", b"{}", gzip.compress(b"{}", mtime=0)[:-1], gzip.compress(b"{}", mtime=0) + b"more"]
)
def test_what_is_no_whole_gzip_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidRequest) as raised:
        unpacked(raw, 1000)
    assert raised.value.code == "invalid_encoding"


WHOLE = gzip.compress(bytes(BODY_LIMIT), mtime=0)


@pytest.mark.parametrize(
    ("body", "changes", "calls"),
    [
        (b"{}", {}, 0),
        (gzip.compress(b"{}")[:-1], {}, 0),
        (b"no gzip".ljust(8192), {}, 2),
        (WHOLE[:-1], {}, calls_of(BODY_LIMIT)),
        (b"x" * (BODY_LIMIT + 1), CHUNKED, calls_of(BODY_LIMIT + 1)),
    ],
    ids=["none", "cut", "larger", "cut at its end", "too large"],
)
def test_a_broken_gzip_is_charged_by_what_was_received_or_unpacked(
    world: World, monkeypatch: pytest.MonkeyPatch, body: bytes, changes: dict[str, Any], calls: int
) -> None:
    charged = list[int]()
    monkeypatch.setattr(CallRates, "charge", lambda _rates, _app, calls: charged.append(calls))
    headers = {**GZIP["headers"], **changes.get("headers", {})}
    assert world.post(body, **{**changes, "headers": headers}).status_code in (400, 413)
    # The submit itself is one.
    assert charged == [1 + calls]


def test_a_client_that_takes_much_at_once_may_pause_for_a_minute_more_and_not_for_an_hour() -> None:
    async def taken(_: object) -> None:
        pass

    async def run() -> float | None:
        scope = {"method": "GET", "path": "/", "query_string": b"", "headers": []}
        exchange = Exchange(scope, taken, taken, 10.0)  # type: ignore[arg-type]
        for _ in range(190):
            await exchange.send(bytes(1024 * 1024))
        return exchange.lag_s

    assert asyncio.run(run()) == 70.0
