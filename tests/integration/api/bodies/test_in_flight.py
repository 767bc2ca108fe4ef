"""Large bodies: what is asked before one is read, and how many bytes of them are held at once."""

import gc
import io
import json
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any
from uuid import UUID

import pytest
from redis import Redis

from api.bodies.in_flight import RETRY_AFTER_S, SMALL_BYTES
from api.call import Step
from api.door.drafts import Draft
from api.reading.waits import Waits
from api.schemas.chat.request import ChatRequest
from api.schemas.completions.request import CompletionRequest
from api.schemas.responses import ResponseRequest
from headrace.domain.apps import App
from headrace.domain.jobs import Job
from headrace.domain.queues import KEY_PREFIX
from headrace.store import Store
from headrace.store.clients import apps
from tests.web import ApiClient, Web

LARGE = 2 * SMALL_BYTES
PATIENCE_S = 20


def large_body() -> bytes:
    # White space, so that its prompt fits the model.
    return json.dumps({"prompt": "Hi"}).encode().ljust(LARGE)


#: In a prompt, to find it by in memory.
MARK = "Where is the headrace of 1887?"


class Unreadable(io.BytesIO):
    """A body that is not to be read."""

    def __init__(self) -> None:
        super().__init__(large_body())

    def _fail(self, *_: object) -> Any:
        raise AssertionError("the body was read")

    read = readinto = readall = _fail


class Held(io.BytesIO):
    """A body that comes when it is told to."""

    def __init__(self) -> None:
        super().__init__(large_body())
        self.is_read, self.may_come = threading.Event(), threading.Event()

    def _wait(self) -> None:
        self.is_read.set()
        assert self.may_come.wait(PATIENCE_S)

    def read(self, size: int | None = -1, /) -> bytes:
        self._wait()
        return super().read(size)

    def readinto(self, buffer: Any, /) -> int:
        self._wait()
        return super().readinto(buffer)


@pytest.fixture
def limited(store: Store, app: App) -> App:
    """The app may make two requests a minute."""
    with store.begin() as db:
        return apps.set_limits(db, app.name, {"requests_per_minute": 2})


def submit(client: ApiClient, body: Any = None, **headers: str) -> Any:
    stream = io.BytesIO(large_body()) if body is None else body
    return client.post("/v1/jobs", input_stream=stream, content_length=LARGE, headers=headers)


def test_the_rate_of_requests_is_asked_before_a_large_body_is_read(
    client: ApiClient, limited: App, redis: Redis
) -> None:
    assert [submit(client).status_code for _ in range(2)] == [202, 202]

    refused = submit(client, Unreadable())

    assert (refused.status_code, refused.get_json()["error"]["reason"]) == (429, "requests_per_minute")
    assert 0 < int(refused.headers["Retry-After"]) <= 31
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"


def test_a_look_at_the_rate_uses_nothing_up_and_a_replay_passes_it(
    client: ApiClient, limited: App, redis: Redis
) -> None:
    bucket = f"{KEY_PREFIX}rate:{limited.id.hex}"
    first = submit(client, **{"Idempotency-Key": "one"})
    assert redis.hget(bucket, "requests") == "1", "the look and the reservation use up one together"
    assert submit(client, io.BytesIO(b"[" * LARGE)).status_code == 400
    assert redis.hget(bucket, "requests") == "1", "what is refused uses nothing up"
    assert submit(client).status_code == 202

    again = submit(client, **{"Idempotency-Key": "one"})

    assert (again.status_code, again.headers["Idempotent-Replayed"]) == (202, "true")
    assert again.get_json()["id"] == first.get_json()["id"]
    assert submit(client, Unreadable(), **{"Idempotency-Key": "two"}).status_code == 429


@pytest.fixture
def small(build_web: Callable[..., Web]) -> Web:
    """A server with room for four large bodies, two of them of one app."""
    return build_web(bodies_in_flight_bytes=4 * LARGE, body_limit_bytes=2 * LARGE)


@pytest.fixture
def hold() -> Iterator[Callable[[ApiClient], tuple[Held, "Future[Any]"]]]:
    """Sends a large body as far as the server's reading it."""
    with ExitStack() as exits, ThreadPoolExecutor(8) as threads:

        def hold(client: ApiClient) -> tuple[Held, "Future[Any]"]:
            body = Held()
            exits.callback(body.may_come.set)
            sent = threads.submit(submit, client, body)
            assert body.is_read.wait(PATIENCE_S)
            return body, sent

        try:
            yield hold
        finally:
            exits.close()


def test_bytes_of_large_bodies_in_flight_are_bounded_for_one_app_and_for_all(
    small: Web,
    client_of: Callable[..., ApiClient],
    make_key: Callable[[str], str],
    hold: Callable[[ApiClient], tuple[Held, "Future[Any]"]],
) -> None:
    greedy, modest, third = (client_of(make_key(name), small) for name in ("greedy", "modest", "third"))
    held = [hold(greedy) for _ in range(2)]

    refused = submit(greedy, Unreadable())
    error = refused.get_json()["error"]
    assert (refused.status_code, error["code"], error["reason"]) == (429, "bodies_full", "app_bodies")
    assert refused.headers["Retry-After"] == str(RETRY_AFTER_S)
    assert greedy.post("/v1/jobs", json={"prompt": "Hi"}).status_code == 202, "small ones are not counted"
    assert submit(modest).status_code == 202, "another app has its own share"

    held += [hold(modest) for _ in range(2)]
    error = submit(third, Unreadable()).get_json()["error"]
    assert (error["code"], error["reason"]) == ("bodies_full", "bodies")

    for body, sent in held:
        body.may_come.set()
        assert sent.result(PATIENCE_S).status_code == 202
    assert submit(greedy).status_code == submit(third).status_code == 202
    assert small.deps.bodies._held == {}, "nothing is counted any more"


def test_a_chunked_body_counts_as_the_largest(
    small: Web,
    client_of: Callable[..., ApiClient],
    make_key: Callable[[str], str],
    hold: Callable[[ApiClient], tuple[Held, "Future[Any]"]],
) -> None:
    greedy = client_of(make_key("greedy"), small)
    hold(greedy)
    chunked = {"Transfer-Encoding": "chunked"}
    refused = greedy.post(
        "/v1/jobs", input_stream=Unreadable(), headers=chunked, environ_overrides={"wsgi.input_terminated": True}
    )
    assert refused.get_json()["error"]["code"] == "bodies_full"


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": MARK}]}),
        ("/v1/completions", {"prompt": MARK, "echo": True}),
        ("/v1/responses", {"input": MARK}),
    ],
)
def test_a_caller_that_waits_holds_nothing_of_its_body(
    build_web: Callable[..., Web],
    client_of: Callable[..., ApiClient],
    key: str,
    app: App,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    asked: dict[str, Any],
) -> None:
    web = build_web(bodies_in_flight_bytes=LARGE + 1, body_limit_bytes=2 * LARGE)
    bodies = web.deps.bodies
    held: list[object] = []

    def follow(_: Waits, _job_id: UUID, read: Callable[[], Job], *_args: object) -> Generator[Step, None, Job]:
        bodies.admit(app, LARGE, None)
        bodies.release(app.id, LARGE)
        yield Step(b"", 0.0)
        kinds = Draft, ChatRequest, CompletionRequest, ResponseRequest
        held.extend(each for each in gc.get_objects() if isinstance(each, kinds) and MARK in repr(each))
        return read()

    monkeypatch.setattr(Waits, "follow", follow)
    response = client_of(key, web).post(path, data=json.dumps(asked).encode().ljust(LARGE))
    assert (response.status_code, response.get_json()["error"]["code"]) == (504, "wait_timeout")
    assert held == []
