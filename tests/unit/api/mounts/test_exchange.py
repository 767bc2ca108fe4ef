"""A body is read whole and unpacked, up to its limit, as long as its sender keeps up."""

import asyncio
import gzip
from typing import Any

import pytest

from api.bodies import MIN_RATE, SMALL_BYTES, SMALL_LIMIT, Bodies
from api.call import Call
from api.mounts.exchange import BodyReader, Exchange, unpacked
from api.mounts.loop import Mailbox, Threads
from headrace.errors import BodiesFull, BodyTimeout, HeadraceError, InvalidRequest

from .conftest import APP, BODY, BODY_LIMIT, World

CHUNKED = {"headers": {"Transfer-Encoding": "chunked"}, "environ_base": {"wsgi.input_terminated": True}}
GZIP = {"headers": {"Content-Encoding": "gzip"}}


@pytest.mark.parametrize(
    ("body", "changes"),
    [(b" " * (SMALL_BYTES + 1), {}), (BODY, CHUNKED), (gzip.compress(BODY), GZIP)],
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
    assert world.posted[-1].body == (BODY if changes else body)


@pytest.mark.parametrize("size", [BODY_LIMIT, BODY_LIMIT + 1])
@pytest.mark.parametrize("way", ["told", "chunked", "packed"])
def test_a_body_is_read_up_to_its_limit(world: World, size: int, way: str) -> None:
    body: bytes = b" " * size
    changes: dict[str, Any] = {"chunked": CHUNKED, "packed": GZIP}.get(way, {})
    answer = world.post(gzip.compress(body) if way == "packed" else body, **changes)
    assert answer.status_code == (202 if size == BODY_LIMIT else 413)
    assert (b'"code":"request_too_large"' in answer.data) == (size > BODY_LIMIT)
    assert world.bodies._held == {}


def test_another_packing_is_refused(world: World) -> None:
    answer = world.post(BODY, headers={"Content-Encoding": "br"})
    assert (answer.status_code, b'"code":"unsupported_encoding"' in answer.data) == (415, True)


def test_bodies_use_calls_by_their_size(world: World) -> None:
    world.accepted = None

    def never(*_: Any) -> Any:
        raise ValueError

    world.web.submitter.submit = never
    # Wrong bodies, of which each counts as eleven calls.
    statuses = [world.post(b"[" + b" " * 40_960).status_code for _ in range(3)]
    assert statuses == [400, *[429] * 2]


class Sender:
    """A client that sends parts, each after its delay in seconds; after the last it is silent, or leaves."""

    def __init__(self, *parts: tuple[float, bytes], size: int | None, leaves: bool = False) -> None:
        self.parts, self._leaves = list(parts), leaves
        length = (b"transfer-encoding", b"chunked") if size is None else (b"content-length", str(size).encode())
        self._scope = {"method": "POST", "headers": [length], "query_string": b"", "path": "/v1/jobs"}
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
                call = Call("POST", "/v1/jobs", "", exchange.headers, APP)
                return await BodyReader(self.bodies, BODY_LIMIT, threads).read(exchange, call)
            finally:
                threads.close()

        try:
            return asyncio.run(run())
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


@pytest.mark.parametrize("size", [0, 1, 1000])
def test_a_gzip_is_unpacked(size: int) -> None:
    assert unpacked(gzip.compress(b"x" * size), 1000) == b"x" * size


def test_no_more_is_unpacked_than_shows_that_it_is_too_much() -> None:
    assert len(unpacked(gzip.compress(b"x" * 50_000_000), 1000)) == 1001


@pytest.mark.parametrize(
    "raw", [b"", b"{}", gzip.compress(b"{}", mtime=0)[:-1], gzip.compress(b"{}", mtime=0) + b"more"]
)
def test_what_is_no_whole_gzip_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidRequest) as raised:
        unpacked(raw, 1000)
    assert raised.value.code == "invalid_encoding"


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
