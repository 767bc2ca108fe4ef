"""A call from its head to its reply: who may make it, whose thread serves it, how it waits, and what it counts as."""

import asyncio
import gc
import threading
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NoReturn
from uuid import UUID

import pytest

from api.app import Gate
from api.turns import ClientGone
from headrace.batching import Batching
from headrace.domain.apps import App, Scope
from headrace.domain.ids import show_id
from headrace.errors import NotFound, StoreUnavailable
from tests.waiting import until

from .conftest import ACCEPTED, APP, BODY, BODY_LIMIT, FULL, LIMIT_S, World

JOB_ID = UUID("01a22e506c04752b8b2136f2787f0a19")
PATH = f"/v1/jobs/{show_id(JOB_ID)}"
POLLED = "/v1/jobs/<public_id>"


def test_a_submit_is_answered_whole(world: World) -> None:
    answer = world.post()
    job_id = show_id(ACCEPTED.job_id)
    assert (answer.status_code, answer.get_json()["id"]) == (202, job_id)
    assert answer.headers["Content-Length"] == str(len(answer.data))
    assert (answer.headers["x-job-id"], answer.headers["Cache-Control"]) == (job_id, "no-store")
    assert answer.headers["openai-processing-ms"].isdigit()
    [asked] = world.submitted
    assert (asked.app, asked.idempotency) == (APP, None)
    assert (asked.sent.body, asked.sent.id) == (BODY, answer.headers["x-request-id"])
    [noted] = world.noted
    assert (noted.rule, noted.status, noted.kind, world.noted_refusals) == ("/v1/jobs", 202, "plain", [])


def test_a_refusal_is_answered_whole(world: World) -> None:
    world.accepted = FULL
    answer = world.post()
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "3")
    assert answer.headers["Content-Length"] == str(len(answer.data))
    assert answer.get_json()["error"]["queue"] == "chat.normal"
    assert [asked.sent.body for asked in world.submitted] == [BODY]
    [noted] = world.noted
    assert (noted.rule, noted.status, world.noted_refusals) == ("/v1/jobs", 429, ["depth"])


def test_a_submit_that_fails_is_answered_with_its_error_and_not_tried_again(world: World) -> None:
    world.accepted = StoreUnavailable("It does not answer.")
    answer = world.post()
    assert (answer.status_code, answer.get_json()["error"]["code"]) == (503, "store_unavailable")
    [asked] = world.submitted
    assert answer.headers["x-request-id"] == asked.sent.id


def test_submits_that_come_together_have_threads_of_their_own(world: World) -> None:
    together, threads = threading.Barrier(3), set[int]()

    def meet() -> None:
        threads.add(threading.get_ident())
        together.wait(10)

    world.meanwhile = meet
    with ThreadPoolExecutor() as clients:
        assert {each.status_code for each in clients.map(lambda _: world.post(), range(3))} == {202}
    assert len(threads) == 3


def test_refused_submits_use_calls_until_they_are_refused_unread(world: World) -> None:
    world.accepted = FULL
    answers = [world.post() for _ in range(20)]
    # The app may owe a call.
    reasons = [answer.get_json()["error"]["reason"] for answer in answers]
    assert reasons == ["depth"] * 11 + ["calls_per_minute"] * 9
    assert len(world.submitted) == world.bodies_read == 11
    last = answers[-1]
    assert (last.status_code, last.headers["Retry-After"]) == (429, "1")
    assert (last.headers["x-ratelimit-limit-calls"], last.headers["x-ratelimit-remaining-calls"]) == ("60", "0")
    assert last.headers["x-ratelimit-reset-calls"] == "10s"


def test_accepted_jobs_use_no_calls(world: World) -> None:
    assert {world.post().status_code for _ in range(50)} == {202}


@pytest.mark.parametrize("is_known", [True, False])
@pytest.mark.parametrize(
    ("app", "status"),
    [(None, 401), (App(JOB_ID, "test", "whsec_test", scopes=frozenset({Scope.READ})), 403)],
    ids=["no app", "an app that reads"],
)
def test_a_key_that_may_not_submit_is_refused_unread(
    world: World, app: App | None, status: int, is_known: bool
) -> None:
    world.app, world.is_known = app, is_known
    assert world.post().status_code == status
    assert (world.bodies_read, world.submitted) == (0, [])
    [noted] = world.noted
    assert (noted.rule, noted.status) == ("/v1/jobs", status)


def test_a_call_whose_header_is_too_long_is_refused_unread(world: World) -> None:
    answer = world.post(headers={"Prefer": "x" * 2000})
    assert (answer.status_code, answer.get_json()["error"]["code"]) == (431, "header_too_large")
    assert (world.bodies_read, world.submitted) == (0, [])
    assert [noted.status for noted in world.noted] == [431]


@pytest.mark.parametrize(("query", "wait_s"), [("", None), ("wait=0", None), ("wait=30", 30), ("wait=0.25", 0.25)])
def test_a_poll_waits_as_long_as_it_says(world: World, query: str, wait_s: float | None) -> None:
    world.failure = NotFound("No such job.")
    assert world.request("GET", PATH, query_string=query).status_code == 404
    assert world.waited == ([] if wait_s is None else [(JOB_ID, wait_s)])
    assert [each.kind for each in world.noted] == ["plain" if wait_s is None else "wait"]


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (NotFound("No such job."), 404),
        (StoreUnavailable("It is away."), 503),
        (ValueError("A bug."), 500),
        (ClientGone(), 500),
    ],
)
def test_a_poll_that_fails_has_waited_once_and_is_counted_as_a_wait(
    world: World, failure: Exception, status: int
) -> None:
    world.failure = failure
    assert world.request("GET", PATH, query_string="wait=30").status_code == status
    assert (len(world.waited), world.released) == (1, 1)
    [noted] = world.noted
    assert (noted.rule, noted.kind, noted.status) == (POLLED, "wait", status)


def test_a_submit_that_waits_is_one_call_and_holds_no_body_meanwhile(world: World) -> None:
    world.failure, held = StoreUnavailable("It is away."), list[Any]()
    follow = world.follow

    def following(*given: Any) -> Any:
        held.append(dict(world.bodies._held))
        return follow(*given)

    world.follow = following  # type: ignore[method-assign]
    body = b'{"messages": [{"role": "user", "content": "Hi"}]}' + b" " * 70_000
    answer = world.request("POST", "/v1/chat/completions", body)
    assert (answer.status_code, answer.get_json()["error"]["code"]) == (504, "wait_timeout")
    assert answer.headers["x-job-id"] == show_id(ACCEPTED.job_id)
    assert (world.waited, world.released, held) == ([(ACCEPTED.job_id, LIMIT_S)], 1, [{}])
    [asked] = world.submitted
    assert answer.headers["x-request-id"] == asked.sent.id
    [noted] = world.noted
    assert (noted.rule, noted.kind, noted.status) == ("/v1/chat/completions", "wait", 504)


@pytest.mark.parametrize(
    "query", [f"wait={LIMIT_S + 1}", "wait=-1", "wait=nan", "wait=", "wait=1&wait=2", "wait=1&other=2"]
)
def test_a_poll_whose_query_is_wrong_is_refused_without_a_wait(world: World, query: str) -> None:
    answer = world.request("GET", PATH, query_string=query)
    assert (answer.status_code, answer.get_json()["error"]["type"]) == (400, "invalid_request_error")
    assert world.waited == []


def test_polls_above_the_rate_are_refused(world: World) -> None:
    world.failure = NotFound("No such job.")
    for _ in range(10):
        world.request("GET", PATH)
    assert world.request("GET", PATH).get_json()["error"]["reason"] == "calls_per_minute"
    assert (world.noted[-1].rule, world.noted[-1].status) == (POLLED, 429)
    assert world.noted_refusals == ["calls_per_minute"]


@pytest.mark.parametrize(
    ("method", "path", "status", "rule"),
    [
        ("OPTIONS", "/v1/jobs", 204, "/v1/jobs"),
        ("PUT", "/v1/jobs", 405, None),
        ("GET", "/v1/jobs/a/b", 404, None),
        ("GET", "/v1/chat/completions", 404, None),
        ("GET", "/ü", 404, None),
    ],
)
def test_a_call_that_reaches_no_view_needs_no_key_and_is_counted(
    world: World, method: str, path: str, status: int, rule: str | None
) -> None:
    world.app = None
    assert world.request(method, path).status_code == status
    [noted] = world.noted
    assert (noted.method, noted.rule, noted.status, noted.kind) == (method, rule, status, "plain")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/jobs"),
        ("POST", "/v1/jobs/"),
        ("GET", f"{PATH}/"),
        ("GET", f"{PATH}0"),
        ("GET", f"{PATH}\n"),
        ("GET", PATH.upper().replace("/V1/JOBS/JOB_", "/v1/jobs/job_")),
        ("GET", PATH.replace("job_", "resp_")),
        ("GET", PATH.replace("/v1/jobs/job_", "/v1/responses/resp_")),
        ("HEAD", PATH),
        ("POST", "/v1/responses"),
    ],
)
def test_every_spelling_of_a_path_reaches_its_view_once(world: World, method: str, path: str) -> None:
    world.failure = NotFound("No such job.")
    assert world.request(method, path, BODY if method == "POST" else b"").status_code in (202, 400, 404)
    [noted] = world.noted
    assert noted.rule in ("/v1/jobs", POLLED, "/v1/responses", "/v1/responses/<public_id>")


def test_a_reply_to_head_has_no_body(world: World) -> None:
    world.failure = NotFound("No such job.")
    answer = world.request("HEAD", PATH)
    assert (answer.status_code, answer.data) == (404, b"")
    assert int(answer.headers["Content-Length"]) > 0


def test_what_is_to_be_done_at_the_end_is_done_once_the_reply_is_sent(world: World) -> None:
    closed: list[str] = []

    def fails() -> None:
        raise ValueError

    world.closing = [fails, lambda: closed.append("once")]
    assert world.post().get_json()["id"] == show_id(ACCEPTED.job_id)
    assert closed == ["once"]


@pytest.mark.parametrize("error", [FULL, ValueError("A bug.")])
def test_what_is_to_be_done_at_the_end_is_done_after_an_error_too(world: World, error: Exception) -> None:
    closed: list[str] = []
    world.accepted, world.closing = error, [lambda: closed.append("once")]
    assert world.post().get_json()["error"]["code"] in ("queue_full", "internal_error")
    assert closed == ["once"]


@pytest.fixture
def silent(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Postgres, asked for a key, does not answer before this is set. One thread is all there is."""
    monkeypatch.setattr("api.server.THREADS", 1)
    world.is_known, answers = False, threading.Event()

    def authenticate(_header: str | None) -> App:
        world.keys_asked += 1
        assert answers.wait(10)
        return APP

    monkeypatch.setattr(world, "authenticate", authenticate)
    yield answers
    answers.set()


@pytest.mark.parametrize(("method", "path"), [("GET", "/healthz"), ("HEAD", "/health"), ("POST", "/ping")])
def test_that_the_process_lives_is_said_without_a_thread(
    world: World, silent: threading.Event, method: str, path: str
) -> None:
    with ThreadPoolExecutor() as clients:
        waiting = clients.submit(world.post)
        until(lambda: world.keys_asked == 1)
        answer = world.request(method, path)
        assert (answer.status_code, answer.data) == (200, b"" if method == "HEAD" else b'{"status":"ok"}\n')
        assert (world.noted[-1].rule, world.noted[-1].method) == (path, method)
        assert not waiting.done()
        silent.set()
        assert waiting.result().status_code == 202


def test_calls_with_one_key_ask_for_it_once(world: World, silent: threading.Event) -> None:
    gate = gate_of(world)
    with ThreadPoolExecutor() as clients:
        waiting = [clients.submit(world.post) for _ in range(3)]
        until(lambda: len(gate._asking) == 1 and world.keys_asked == 1)
        silent.set()
        assert [each.result().status_code for each in waiting] == [202] * 3
    assert gate._asking == {}


def gate_of(world: World) -> Gate:
    admit: Any = world.server._admit
    gate: Gate = admit.__self__
    return gate


def test_a_batch_is_served_while_all_threads_wait_for_its_outcome(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.server.THREADS", 2)
    monkeypatch.setattr("api.threads.LINE_SHARE", 1.0)
    begun, answers = list[int](), threading.Event()

    def serve(asks: Sequence[object]) -> list[None]:
        begun.append(len(asks))
        assert answers.wait(10)
        return [None] * len(asks)

    def read(*key: object) -> NoReturn:
        batching.call(key)
        raise world.failure or AssertionError

    batching = Batching[object, None](serve, 1)
    world.failure, world.web.reader.read = NotFound("No such job."), read
    poll = partial(world.request, "GET", PATH)
    with ThreadPoolExecutor() as clients:
        leading = clients.submit(poll)
        until(lambda: begun == [1])
        next_to_lead = clients.submit(poll)
        until(lambda: batching.waiting == 1)
        waiting = clients.submit(poll)
        until(lambda: bool(world.server._threads._lines))
        answers.set()
        assert [each.result(10).status_code for each in (leading, next_to_lead, waiting)] == [404] * 3


class _Connection:
    """One connection to the server, as far as the app knows it: it brings a head, and no body."""

    def __init__(self, size: int) -> None:
        key, length = (b"authorization", b"Bearer hr-test"), (b"content-length", str(size).encode())
        self.scope = {
            "type": "http",
            "http_version": "1.1",
            "scheme": "http",
            "method": "POST",
            "path": "/v1/jobs",
            "query_string": b"",
            "headers": [key, length],
        }
        self.status: int | None = None

    async def receive(self) -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError("no body comes")

    async def send(self, message: dict[str, Any]) -> None:
        self.status = message.get("status", self.status)


@pytest.mark.parametrize(("size", "status"), [(300, 408), (BODY_LIMIT, 408), (BODY_LIMIT + 1, 413)])
def test_a_connection_whose_body_was_not_read_is_let_go_without_the_garbage_collector(
    world: World, size: int, status: int
) -> None:
    # The server closes such a connection once nothing refers to it.
    world.bodies.grace_s = 0.01
    connection = _Connection(size)
    gc.disable()
    try:
        asyncio.run(world.server(connection.scope, connection.receive, connection.send))
        assert connection.status == status
        held = weakref.ref(connection)
        del connection
        assert held() is None
    finally:
        gc.enable()
