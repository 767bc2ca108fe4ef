"""Submits and polls reach their handlers without Flask, and every other request reaches Flask as it came."""

import json
from typing import Any

import pytest

from api.call import Reply
from api.reading.waits import ClientGone
from headrace.domain.apps import App, Scope
from headrace.domain.ids import new_id, show_id
from headrace.errors import NotFound, StoreUnavailable

from .conftest import APP, BODY, FULL, LIMIT_S, World

JOB_ID = new_id()
PATH = f"/v1/jobs/{show_id(JOB_ID)}"


def reason_of(body: bytes) -> str | None:
    reason: str | None = json.loads(body)["error"].get("reason")
    return reason


def test_a_plain_job_is_answered_whole(world: World) -> None:
    status, headers, body = world.post()
    assert (status, body, headers["Content-Length"]) == ("202 ACCEPTED", b'{"id": "job_1"}\n', str(len(body)))
    assert (headers["x-job-id"], headers["Cache-Control"]) == ("job_1", "no-store")
    assert headers["openai-processing-ms"].isdigit()
    [call] = world.posted
    assert (call.app, call.body, call.id) == (APP, BODY, headers["x-request-id"])
    [noted] = world.noted
    assert (noted.rule, noted.status, noted.kind, world.noted_refusals) == ("/v1/jobs", 202, "plain", [])
    assert world.by_flask == []


def test_an_early_refusal_is_whole(world: World) -> None:
    world.refusal = FULL
    status, headers, body = world.post()
    assert (status, headers["Retry-After"], headers["Content-Length"]) == ("429 TOO MANY REQUESTS", "3", str(len(body)))
    assert json.loads(body)["error"]["queue"] == "chat.normal"
    assert (world.asked, world.posted) == ([BODY], [])
    [noted] = world.noted
    assert (noted.rule, noted.status, world.noted_refusals) == ("/v1/jobs", 429, ["depth"])


def test_a_submit_that_fails_is_answered_with_its_error_and_not_tried_again(world: World) -> None:
    world.accepted = StoreUnavailable("It does not answer.")
    status, headers, body = world.post()
    assert (status, json.loads(body)["error"]["code"]) == ("503 SERVICE UNAVAILABLE", "store_unavailable")
    [call] = world.posted
    assert headers["x-request-id"] == call.id


def test_early_refusals_use_calls_until_they_are_refused_unread(world: World) -> None:
    world.refusal = FULL
    answers = [world.post() for _ in range(20)]
    # The app may owe a call.
    assert [reason_of(body) for _, _, body in answers] == ["depth"] * 11 + ["calls_per_minute"] * 9
    assert len(world.asked) == 11
    status, headers, _ = answers[-1]
    assert (status, headers["Retry-After"]) == ("429 TOO MANY REQUESTS", "1")
    assert (headers["x-ratelimit-limit-calls"], headers["x-ratelimit-remaining-calls"]) == ("60", "0")
    assert headers["x-ratelimit-reset-calls"] == "10s"


def test_accepted_jobs_use_no_calls(world: World) -> None:
    assert {world.post()[0] for _ in range(50)} == {"202 ACCEPTED"}


@pytest.mark.parametrize(
    ("app", "status"),
    [
        (None, "401 UNAUTHORIZED"),
        (App(new_id(), "test", "whsec_test", scopes=frozenset({Scope.READ})), "403 FORBIDDEN"),
    ],
    ids=repr,
)
def test_a_key_that_may_not_submit_is_refused_unread(world: World, app: App | None, status: str) -> None:
    world.app = app
    assert world.post()[0] == status
    assert (world.asked, world.posted) == ([], [])


@pytest.mark.parametrize(("query", "wait_s"), [("", None), ("wait=0", None), ("wait=30", 30), ("wait=0.25", 0.25)])
def test_a_poll_waits_as_long_as_it_says(world: World, query: str, wait_s: float | None) -> None:
    world.failure = NotFound("No such job.")
    assert world.request("GET", PATH, QUERY_STRING=query)[0] == "404 NOT FOUND"
    assert world.waited == ([] if wait_s is None else [(JOB_ID, wait_s)])
    assert [each.kind for each in world.noted] == ["plain" if wait_s is None else "wait"]


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (NotFound("No such job."), "404 NOT FOUND"),
        (StoreUnavailable("It is away."), "503 SERVICE UNAVAILABLE"),
        (ValueError("A bug."), "500 INTERNAL SERVER ERROR"),
        (ClientGone(), "500 INTERNAL SERVER ERROR"),
    ],
)
def test_a_poll_that_fails_has_waited_once_and_is_counted_as_a_wait(
    world: World, failure: Exception, status: str
) -> None:
    world.failure = failure
    assert world.request("GET", PATH, QUERY_STRING="wait=30")[0] == status
    assert (len(world.waited), world.released) == (1, 1)
    [noted] = world.noted
    assert (noted.rule, noted.kind, noted.status) == ("/v1/jobs/{public_id}", "wait", int(status[:3]))


@pytest.mark.parametrize(
    "query", [f"wait={LIMIT_S + 1}", "wait=-1", "wait=nan", "wait=", "wait=1&wait=2", "wait=1&other=2"]
)
def test_a_poll_whose_query_is_wrong_is_refused_without_a_wait(world: World, query: str) -> None:
    status, _, body = world.request("GET", PATH, QUERY_STRING=query)
    assert (status, json.loads(body)["error"]["type"]) == ("400 BAD REQUEST", "invalid_request_error")
    assert world.waited == []


def test_polls_above_the_rate_are_refused(world: World) -> None:
    world.failure = NotFound("No such job.")
    for _ in range(10):
        world.request("GET", PATH)
    assert reason_of(world.request("GET", PATH)[2]) == "calls_per_minute"
    assert (world.noted[-1].rule, world.noted[-1].status) == ("/v1/jobs/{public_id}", 429)
    assert world.noted_refusals == ["calls_per_minute"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/responses"),
        ("GET", "/v1/jobs"),
        ("POST", "/v1/jobs/"),
        ("GET", f"{PATH}/"),
        ("GET", f"{PATH}\n"),
        ("GET", f"{PATH}0"),
        ("GET", PATH.upper().replace("/V1/JOBS/JOB_", "/v1/jobs/job_")),
        ("GET", PATH.replace("job_", "resp_")),
        ("GET", PATH.replace("/v1/jobs/job_", "/v1/responses/resp_")),
        ("HEAD", PATH),
        ("DELETE", PATH),
    ],
)
def test_any_other_request_reaches_flask(world: World, method: str, path: str) -> None:
    assert world.request(method, path)[2] == b"by Flask"
    assert (world.by_flask, world.noted) == ([path], [])


def test_what_is_to_be_done_at_the_end_is_done_when_the_reply_is_closed(world: World) -> None:
    closed: list[str] = []

    def accepted(_call: Any) -> Reply:
        return Reply(202, b"{}", {}, on_close=[lambda: closed.append("once")])

    world.web.plain_jobs.submit = accepted
    environ: Any = {"REQUEST_METHOD": "POST", "PATH_INFO": "/v1/jobs", "CONTENT_LENGTH": "0"}
    answer: Any = world.mount(environ, lambda *_: None)  # type: ignore[arg-type]
    assert closed == []
    answer.close()
    assert closed == ["once"]
