"""A body is read whole, up to its limit, and only by as many threads as its sender has earned."""

import gzip
import threading
from io import BytesIO
from typing import Any

import pytest

from api.bodies.in_flight import SMALL_BYTES
from headrace.domain.apps import App
from headrace.domain.ids import new_id

from .conftest import APP, BODY, BODY_LIMIT, World


class Noting(BytesIO):
    """A stream that notes which threads read it."""

    def __init__(self, body: bytes) -> None:
        super().__init__(body)
        self.readers = set[int]()

    def read(self, size: int | None = -1) -> bytes:
        self.readers.add(threading.get_ident())
        return super().read(size)


def readers_of(world: World, body: bytes = BODY, **changes: Any) -> set[int]:
    stream = Noting(body)
    assert world.post(body, **{"wsgi.input": stream, **changes})[0] == "202 ACCEPTED"
    return stream.readers


def test_the_body_of_a_prompt_sender_is_read_by_the_requests_own_thread(world: World) -> None:
    assert readers_of(world) != {threading.get_ident()}, "the first may come slowly"
    assert readers_of(world) == {threading.get_ident()}
    world.app = App(new_id(), "new", "whsec_test", scopes=APP.scopes)
    assert readers_of(world) != {threading.get_ident()}, "of another app"


@pytest.mark.parametrize(
    ("body", "changes"),
    [
        (b" " * (SMALL_BYTES + 1), {}),
        (BODY, {"HTTP_TRANSFER_ENCODING": "chunked", "CONTENT_LENGTH": "", "wsgi.input_terminated": True}),
        (gzip.compress(BODY), {"HTTP_CONTENT_ENCODING": "gzip"}),
    ],
    ids=["large", "chunked", "packed"],
)
def test_other_bodies_have_a_deadline_and_are_counted_until_their_requests_end(
    world: World, body: bytes, changes: dict[str, Any]
) -> None:
    readers_of(world)
    assert threading.get_ident() not in readers_of(world, body, **changes)
    assert world.bodies._held == {}
    assert world.posted[-1].body == (BODY if changes else body)


def test_a_body_of_a_server_that_cannot_tell_its_end_is_empty(world: World) -> None:
    readers_of(world, HTTP_TRANSFER_ENCODING="chunked", CONTENT_LENGTH="")
    assert world.posted[-1].body == b""


@pytest.mark.parametrize("size", [BODY_LIMIT, BODY_LIMIT + 1])
@pytest.mark.parametrize("way", ["told", "chunked", "packed"])
def test_a_body_is_read_up_to_its_limit(world: World, size: int, way: str) -> None:
    body: bytes = b" " * size
    changes: dict[str, Any] = {}
    if way == "chunked":
        changes = {"HTTP_TRANSFER_ENCODING": "chunked", "CONTENT_LENGTH": "", "wsgi.input_terminated": True}
    elif way == "packed":
        body, changes = gzip.compress(body), {"HTTP_CONTENT_ENCODING": "gzip"}
    status, _, said = world.post(body, **changes)
    assert status == ("202 ACCEPTED" if size == BODY_LIMIT else "413 REQUEST ENTITY TOO LARGE")
    assert (b'"code":"request_too_large"' in said) == (size > BODY_LIMIT)
    assert world.bodies._held == {}


def test_a_body_that_ends_early_is_refused(world: World) -> None:
    for _ in range(2):
        status, _, said = world.post(BODY, CONTENT_LENGTH=str(len(BODY) + 1))
        assert status == "400 BAD REQUEST"
        assert f"ends after {len(BODY)} of {len(BODY) + 1} bytes".encode() in said
    assert world.posted == []


def test_another_packing_is_refused(world: World) -> None:
    status, _, said = world.post(BODY, HTTP_CONTENT_ENCODING="br")
    assert (status, b'"code":"unsupported_encoding"' in said) == ("415 UNSUPPORTED MEDIA TYPE", True)


def test_bodies_use_calls_by_their_size(world: World) -> None:
    world.accepted = None

    def never(*_: Any) -> Any:
        raise ValueError

    world.web.submitter.submit = never
    # Wrong bodies, of which each counts as eleven calls.
    statuses = [world.post(b"[" + b" " * 40_960)[0] for _ in range(3)]
    assert statuses == ["400 BAD REQUEST", *["429 TOO MANY REQUESTS"] * 2]
