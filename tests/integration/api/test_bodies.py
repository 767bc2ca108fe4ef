"""Bodies: counted while they are read, given up when they come too slowly, and not read for unknown callers."""

import gc
import io
import json
import os
import socket
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from http.client import HTTPResponse
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx2
import pytest
from redis import Redis

from api.bodies import SMALL_BYTES, SMALL_LIMIT
from api.door.drafts import Draft
from api.reading import Waits
from api.schemas.chat import ChatRequest
from api.schemas.completions import CompletionRequest
from api.schemas.response_request import ResponseRequest
from api.turns import Step
from headrace.domain.apps import App
from headrace.domain.jobs import Job
from headrace.domain.queues import KEY_PREFIX
from headrace.stack.child import Child
from headrace.store import Store, apps
from tests.web import ApiClient, Web

DEADLINE_S = 60.0
#: Long enough that the test sees the server full before it ends.
GRACE_S = 3.0
LIMIT = 8 * 1024 * 1024


@pytest.fixture
def web_server(serve_web: Callable[..., tuple[Child, str]], tmp_path: Path) -> tuple[Child, str]:
    """The Procfile's web process, with room for two of the largest bodies, and its URL."""
    return serve_web(
        HEADRACE_BATCHES__FILES__STORE=str(tmp_path / "files"),
        HEADRACE_BODY_LIMIT_BYTES=str(LIMIT),
        HEADRACE_BODIES_IN_FLIGHT_BYTES=str(2 * LIMIT),
        HEADRACE_BODY_GRACE_S=str(GRACE_S),
    )


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
    assert refused.headers["Retry-After"] == "1"
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
        kinds = {Draft, ChatRequest, CompletionRequest, ResponseRequest}
        # The class itself: a proxy of something that is gone cannot be asked.
        held.extend(each for each in gc.get_objects() if type(each) in kinds and MARK in repr(each))
        return read()

    monkeypatch.setattr(Waits, "follow", follow)
    response = client_of(key, web).post(path, data=json.dumps(asked).encode().ljust(LARGE))
    assert (response.status_code, response.get_json()["error"]["code"]) == (504, "wait_timeout")
    assert held == []


class Trickle:
    """A client that declares the largest body and sends it a byte at a time."""

    def __init__(self, url: str, key: str, length: str = f"Content-Length: {LIMIT}", path: str = "/v1/jobs") -> None:
        host, port = url.removeprefix("http://").split(":")
        self._connection = socket.create_connection((host, int(port)), DEADLINE_S)
        lines = [f"POST {path} HTTP/1.1", f"Host: {host}", f"Authorization: Bearer {key}", length, "", ""]
        self._is_chunked = "chunked" in length
        self._connection.sendall("\r\n".join(lines).encode())

    def drip(self) -> None:
        self._connection.sendall(b"1\r\n \r\n" if self._is_chunked else b" ")

    def answer(self) -> tuple[int, str | None, dict[str, Any]]:
        """Status, whether the connection closes, and error."""
        response = HTTPResponse(self._connection)
        response.begin()
        return response.status, response.headers["Connection"], json.loads(response.read())["error"]

    def is_closed(self) -> bool:
        """Whether the server closes the connection. Waits for that."""
        with suppress(ConnectionResetError):
            return self._connection.recv(1) == b""
        return True

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def trickle(web_server: tuple[Child, str]) -> Iterator[Callable[..., Trickle]]:
    """Makes clients of the web process."""
    with ExitStack() as exits:
        yield lambda *arguments: exits.enter_context(closing(Trickle(web_server[1], *arguments)))


@pytest.mark.parametrize("length", [f"Content-Length: {LIMIT}", "Transfer-Encoding: chunked"])
def test_two_apps_that_trickle_bodies_keep_a_third_out_no_longer_than_the_grace(
    web_server: tuple[Child, str], trickle: Callable[..., Trickle], make_key: Callable[[str], str], length: str
) -> None:
    child, url = web_server
    keys = [make_key(name) for name in ("third", "first", "second")]
    large = json.dumps({"prompt": "Hi"}).encode().ljust(2 * SMALL_BYTES)
    tricklers: list[Trickle] = []

    def submit() -> int:
        for trickler in tricklers:
            with suppress(OSError):  # It may have been given up.
                trickler.drip()
        return httpx2.post(f"{url}/v1/jobs", content=large, headers=headers[0]).status_code

    # The process looks the keys up now. Else the third app's body could come before the others' have been admitted.
    headers = [{"Authorization": f"Bearer {key}"} for key in keys]
    assert {httpx2.post(f"{url}/v1/jobs", json={"prompt": "Hi"}, headers=each).status_code for each in headers} == {202}
    tricklers += [trickle(key, length) for key in keys[1:]]
    child.wait_until(lambda: submit() == 429, GRACE_S)
    child.wait_until(lambda: submit() == 202, 2 * GRACE_S)

    for trickler in tricklers:
        status, connection, error = trickler.answer()
        assert (status, error["code"], connection) == (408, "body_timeout", "close")
        assert "Send at least 64 KiB/s" in error["message"]
    assert submit() == 202, "connections that stay open hold up nothing else"


UPLOAD = "Content-Type: multipart/form-data; boundary=x"


@pytest.mark.parametrize(
    ("length", "path"),
    [
        (f"Content-Length: {LIMIT}", "/v1/jobs"),
        ("Content-Length: 300", "/v1/jobs"),
        ("Transfer-Encoding: chunked", "/v1/jobs"),
        (f"Content-Length: {LIMIT}\r\n{UPLOAD}", "/v1/files"),
    ],
)
def test_a_connection_whose_body_timed_out_is_closed_and_holds_nothing(
    web_server: tuple[Child, str],
    trickle: Callable[..., Trickle],
    make_key: Callable[[str], str],
    length: str,
    path: str,
) -> None:
    _, url = web_server
    key = make_key("late")
    trickler = trickle(key, length, path)
    assert trickler.answer()[0] == 408
    assert trickler.is_closed()
    body = json.dumps({"prompt": "Hi"}).ljust(2 * SMALL_BYTES)
    assert httpx2.post(f"{url}/v1/jobs", content=body, headers={"Authorization": f"Bearer {key}"}).status_code == 202


SMALL = "Content-Length: 300"


@pytest.mark.parametrize("length", [SMALL, f"Content-Length: {SMALL_BYTES}"])
def test_a_small_body_that_comes_a_byte_at_a_time_is_given_up_after_the_grace(
    web_server: tuple[Child, str], trickle: Callable[..., Trickle], make_key: Callable[[str], str], length: str
) -> None:
    child, url = web_server
    silent, dripping = (trickle(make_key(name), length) for name in ("silent", "dripping"))
    other = {"Authorization": f"Bearer {make_key('other')}"}
    answers = []

    def both_answered() -> bool:
        with suppress(OSError):
            dripping.drip()
        assert httpx2.post(f"{url}/v1/jobs", json={"prompt": "Hi"}, headers=other).status_code == 202
        return len(answers) == 2

    with ThreadPoolExecutor(2) as threads:
        for trickler in (silent, dripping):
            threads.submit(trickler.answer).add_done_callback(lambda done: answers.append(done.result()))
        child.wait_until(both_answered, 3 * GRACE_S)

    for status, connection, error in answers:
        assert (status, error["code"], connection) == (408, "body_timeout", "close")


def test_small_bodies_that_do_not_come_are_refused_above_a_number_for_each_app(
    web_server: tuple[Child, str], trickle: Callable[..., Trickle], make_key: Callable[[str], str]
) -> None:
    child, url = web_server
    key = make_key("many")

    def submit(key: str) -> httpx2.Response:
        return httpx2.post(f"{url}/v1/jobs", json={"prompt": "Hi"}, headers={"Authorization": f"Bearer {key}"})

    def is_full() -> bool:
        # Anew each time: none waits longer than the grace.
        for _ in range(SMALL_LIMIT):
            trickle(key, SMALL)
        return submit(key).json().get("error", {}).get("reason") == "app_bodies"

    child.wait_until(is_full, DEADLINE_S)
    assert submit(make_key("other")).status_code == 202, "another app has its own number"


METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW")
FRAMES = (f"Content-Length: {LIMIT}", "Content-Length: 100", "Transfer-Encoding: chunked")
#: A body that Flask would read by itself where anything asks for the form.
FORM = "Content-Type: application/x-www-form-urlencoded"
#: None, another scheme, one that the checksum refuses, and one of the old kind, which Postgres is asked about.
KEYS = (None, "Basic eDp5", "Bearer hr-" + "x" * 49, "Bearer hr-" + "x" * 43)
#: Where no route is.
NOWHERE = ("/nowhere", "/v1", "/v1/jobs/x/y/z", "/ops/login")
#: What anyone may read.
OPEN = {"/", "/openapi.json", "/docs", "/healthz", "/health", "/ping", "/version", "/readyz"}


def paths(web: Web) -> Iterator[str]:
    """A path of each route."""
    values = {"public_id": "job_" + "0" * 32, "file_id": "file-1", "name": "index.css", "rest": "some/path"}
    values["batch_id"] = "batch_1"
    for rule in web.url_map.iter_rules():
        built = rule.build({name: values[name] for name in rule.arguments})
        assert built is not None
        yield built[1]


def calls(web: Web) -> list[tuple[str, str]]:
    return [(method, path) for path in sorted({*paths(web), *NOWHERE}) for method in METHODS]


def expected(method: str, path: str) -> set[int]:
    if path in OPEN or path.startswith("/docs/"):
        return {200, 204, 302, 405}
    if path in NOWHERE:
        return {204, 404}
    # 404: OpenAI has the call, and Headrace has not.
    return {204, 405} if method in ("OPTIONS", "BREW") else {401, 404, 405}


def threads_of(child: Child) -> int:
    """The threads of the server's processes, which are one group."""
    found = 0
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(ProcessLookupError, FileNotFoundError):
            if os.getpgid(int(process.name)) == child.pid:
                found += len(os.listdir(process / "task"))
    return found


@pytest.mark.parametrize("frame", FRAMES)
def test_a_body_of_an_unknown_caller_is_never_waited_for(web: Web, web_server: tuple[Child, str], frame: str) -> None:
    child, url = web_server
    host, port = url.removeprefix("http://").split(":")
    statuses: dict[tuple[str, str], int] = {}
    before = threads_of(child)
    with ExitStack() as silent:
        for number, (method, path) in enumerate(calls(web)):
            key = KEYS[number % len(KEYS)]
            lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", FORM, frame]
            lines += [f"Authorization: {key}"] if key else []
            connection = silent.enter_context(socket.create_connection((host, int(port)), DEADLINE_S))
            connection.sendall("\r\n".join([*lines, "", ""]).encode())
            response = silent.enter_context(closing(HTTPResponse(connection, method=method)))
            response.begin()
            statuses[method, path] = response.status
        assert httpx2.get(f"{url}/healthz").status_code == 200
        assert threads_of(child) < before + 32, "the connections are still open, and hold no threads"
    wrong = {call: status for call, status in statuses.items() if status not in expected(*call)}
    assert wrong == {}
    assert {401, 404, 405} <= set(statuses.values())
