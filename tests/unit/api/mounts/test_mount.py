"""Calls with a body, and those that may wait, reach their handlers on the loop; every other call is Flask's."""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NoReturn
from uuid import UUID

import pytest

from api.call import ClientGone, Reply
from api.mounts.flask_app import WebApp
from headrace.batching import Batching
from headrace.domain.apps import App, Scope
from headrace.domain.ids import show_id
from headrace.errors import NotFound, StoreUnavailable
from tests.waiting import until

from .conftest import APP, BODY, FULL, LIMIT_S, World

JOB_ID = UUID("01a22e506c04752b8b2136f2787f0a19")
PATH = f"/v1/jobs/{show_id(JOB_ID)}"


def test_a_plain_job_is_answered_whole(world: World) -> None:
    answer = world.post()
    assert (answer.status_code, answer.data) == (202, b'{"id": "job_1"}\n')
    assert answer.headers["Content-Length"] == str(len(answer.data))
    assert (answer.headers["x-job-id"], answer.headers["Cache-Control"]) == ("job_1", "no-store")
    assert answer.headers["openai-processing-ms"].isdigit()
    [call] = world.posted
    assert (call.app, call.body, call.id) == (APP, BODY, answer.headers["x-request-id"])
    [noted] = world.noted
    assert (noted.rule, noted.status, noted.kind, world.noted_refusals) == ("/v1/jobs", 202, "plain", [])


def test_an_early_refusal_is_whole(world: World) -> None:
    world.refusal = FULL
    answer = world.post()
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "3")
    assert answer.headers["Content-Length"] == str(len(answer.data))
    assert answer.get_json()["error"]["queue"] == "chat.normal"
    assert (world.asked, world.posted) == ([BODY], [])
    [noted] = world.noted
    assert (noted.rule, noted.status, world.noted_refusals) == ("/v1/jobs", 429, ["depth"])


def test_a_submit_that_fails_is_answered_with_its_error_and_not_tried_again(world: World) -> None:
    world.accepted = StoreUnavailable("It does not answer.")
    answer = world.post()
    assert (answer.status_code, answer.get_json()["error"]["code"]) == (503, "store_unavailable")
    [call] = world.posted
    assert answer.headers["x-request-id"] == call.id


def test_an_answer_that_is_still_to_be_made_is_made_in_another_thread(world: World) -> None:
    threads = list[int]()

    def answer() -> Reply:
        threads.append(threading.get_ident())
        return Reply(202, b"{}", {})

    told = threading.get_ident()
    world.accepted = partial(answer)
    post = world.web.plain_jobs.batching.post
    world.web.plain_jobs.batching.post = lambda *given: (threads.append(threading.get_ident()), post(*given))
    assert world.post().status_code == 202
    [batch, made] = threads
    assert made not in (batch, told)


@pytest.mark.parametrize("takes_plain", [True, False], ids=["it is not plain after all", "it may not be plain"])
def test_what_is_not_plain_is_submitted_by_its_handler(world: World, takes_plain: bool) -> None:
    world.takes_plain, world.accepted = takes_plain, None
    reached = list[Any]()

    def submit(*given: Any) -> Any:
        reached.append(given)
        raise StoreUnavailable("It does not answer.")

    world.web.submitter.submit = submit
    assert world.post().status_code == 503
    assert len(reached) == 1
    assert len(world.posted) == takes_plain


def test_early_refusals_use_calls_until_they_are_refused_unread(world: World) -> None:
    world.refusal = FULL
    answers = [world.post() for _ in range(20)]
    # The app may owe a call.
    reasons = [answer.get_json()["error"]["reason"] for answer in answers]
    assert reasons == ["depth"] * 11 + ["calls_per_minute"] * 9
    assert len(world.asked) == 11
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
    assert (world.asked, world.posted) == ([], [])


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
    assert (noted.rule, noted.kind, noted.status) == ("/v1/jobs/{public_id}", "wait", status)


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
    assert (world.noted[-1].rule, world.noted[-1].status) == ("/v1/jobs/{public_id}", 429)
    assert world.noted_refusals == ["calls_per_minute"]


@pytest.fixture
def by_flask(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The path of each request that Flask gets, and answers with nothing."""
    paths = list[str]()

    def wsgi_app(_: WebApp, environ: Any, start_response: Any) -> Any:
        paths.append(environ["PATH_INFO"])
        start_response("204 NO CONTENT", [])
        return []

    monkeypatch.setattr(WebApp, "wsgi_app", wsgi_app)
    return paths


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/jobs"),
        ("GET", "/readyz"),
        ("GET", "/v1/jobs/a/b"),
        ("DELETE", PATH),
        ("OPTIONS", "/v1/jobs"),
        ("PUT", "/v1/jobs"),
        ("GET", "/v1/chat/completions"),
        ("GET", "/ü"),
    ],
)
def test_what_has_no_body_and_never_waits_reaches_flask(
    world: World, by_flask: list[str], method: str, path: str
) -> None:
    assert world.request(method, path).status_code == 204
    assert len(by_flask) == 1
    assert world.noted == []


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
def test_what_has_a_body_or_may_wait_does_not(world: World, by_flask: list[str], method: str, path: str) -> None:
    world.failure = NotFound("No such job.")
    assert world.request(method, path).status_code in (202, 400, 404)
    assert by_flask == []
    assert len(world.noted) == 1


def test_a_reply_to_head_has_no_body(world: World) -> None:
    world.failure = NotFound("No such job.")
    answer = world.request("HEAD", PATH)
    assert (answer.status_code, answer.data) == (404, b"")
    assert int(answer.headers["Content-Length"]) > 0


def test_what_is_to_be_done_at_the_end_is_done_once_the_reply_is_sent(world: World) -> None:
    closed: list[str] = []

    def fails() -> None:
        raise ValueError

    world.accepted = partial(Reply, 202, b"{}", {}, on_close=[fails, lambda: closed.append("once")])
    assert world.post().data == b"{}"
    assert closed == ["once"]


@pytest.fixture
def silent(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Postgres, asked for a key, does not answer before this is set. One thread is all there is."""
    monkeypatch.setattr("api.mounts.mount.THREADS", 1)
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
    with ThreadPoolExecutor() as clients:
        waiting = [clients.submit(world.post) for _ in range(3)]
        until(lambda: len(world.mount._asking) == 1 and world.keys_asked == 1)
        silent.set()
        assert [each.result().status_code for each in waiting] == [202] * 3
    assert world.mount._asking == {}


def test_a_batch_gets_a_thread_while_all_others_wait_for_its_outcome(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.mounts.mount.THREADS", 1)
    begun, answers = list[int](), threading.Event()

    def serve(asks: Sequence[object]) -> list[None]:
        begun.append(len(asks))
        assert answers.wait(10)
        return [None] * len(asks)

    def read(*key: object) -> NoReturn:
        batching.call(key)
        raise world.failure or AssertionError

    batching = Batching[object, None](serve, 1)
    world.failure, world.web.reader.batching, world.web.reader.read = NotFound("No such job."), batching, read
    with ThreadPoolExecutor() as clients:
        leading = clients.submit(world.request, "GET", PATH)
        until(lambda: begun == [1])
        next_to_lead = clients.submit(world.request, "GET", PATH)
        until(lambda: batching.waiting == 1)
        waiting = clients.submit(world.request, "GET", PATH, query_string="wait=0")
        until(lambda: batching.waiting == 2 or world.mount._threads._lines)
        answers.set()
        assert [each.result(10).status_code for each in (leading, next_to_lead, waiting)] == [404] * 3
