"""The door before Flask: it answers what is surely refused and plain jobs, and hands on all else as it came."""

import json
from collections.abc import Iterable
from io import BytesIO
from types import SimpleNamespace
from typing import Any, cast

import pytest

from api.auth import Authenticator
from api.bodies.in_flight import SMALL_BYTES
from api.bodies.small import SmallBodies
from api.calls import Callers, CallRates
from api.deps import FAILED, Failed, WebDeps
from api.early.door import EarlyDoor
from api.plain import PLAIN_BYTES, Answer, PlainJobs, Post
from headrace.domain.apps import App, Scope
from headrace.domain.ids import new_id
from headrace.errors import QueueFull, StoreUnavailable, Unauthenticated

BODY = b'{"prompt": "Hi"}'
FULL = QueueFull("It is full.", queue="chat.normal", reason="depth", depth=5, cap=5, retry_after_s=3)
APP = App(new_id(), "test", "whsec_test", scopes=frozenset({Scope.SUBMIT}))

#: A bucket of ten calls.
CALLS_PER_MINUTE = 60


class World:
    """What the door stands on.

    Attributes:
        app: whose key it is; None: a bad one.
        noted: what the metrics were told.
        accepted: the answer to a plain job, or its error; None: it is not plain.
        handed_on: the error of each request that Flask got.
        failed_ids: the ids of those that had one.
    """

    def __init__(self) -> None:
        self.app: App | None = APP
        self.rates = CallRates(CALLS_PER_MINUTE)
        self.refuses_early, self.asked, self.noted = True, list[bytes](), list[Any]()
        self.refusal: QueueFull | None = FULL
        self.accepted: Answer | Exception | None = None
        self.posted, self.handed_on, self.failed_ids = list[Post](), list[Any](), list[str]()
        self.small = SmallBodies()
        with self.small.reading(APP.id):
            pass  # Its last body came promptly.
        bodies = SimpleNamespace(reading_small=self.small.reading)
        metrics = SimpleNamespace(note=lambda handled, took_s: self.noted.append(handled))
        parts = SimpleNamespace(
            callers=Callers(cast(Authenticator, self), self.rates),
            bodies=bodies,
            submitter=SimpleNamespace(refusals=self),
            metrics=metrics,
        )
        self.door = EarlyDoor(self._flask, cast(WebDeps, parts), cast(PlainJobs, self))

    def authenticate(self, _header: str | None) -> App:
        if self.app is None:
            raise Unauthenticated
        return self.app

    def early(self, _app_id: object, raw: bytes) -> QueueFull | None:
        self.asked.append(raw)
        return self.refusal

    def submit(self, post: Post) -> Answer | None:
        self.posted.append(post)
        if isinstance(self.accepted, Exception):
            raise self.accepted
        return self.accepted

    def _flask(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("202 ACCEPTED", [])
        failed: Failed | None = environ.get(FAILED)
        self.handed_on.append(None if failed is None else failed.error)
        self.failed_ids += [] if failed is None else [failed.request_id]
        return [environ["wsgi.input"].read()]

    def post(self, **changes: str) -> tuple[str, dict[str, str], bytes]:
        environ: dict[str, Any] = {"REQUEST_METHOD": "POST", "PATH_INFO": "/v1/jobs", "CONTENT_LENGTH": str(len(BODY))}
        told: list[Any] = []
        given = {**environ, "wsgi.input": BytesIO(BODY), **changes}
        body = b"".join(self.door(given, lambda *head: told.append(head)))  # type: ignore[arg-type]
        [(status, headers)] = told
        return status, dict(headers), body


@pytest.fixture
def world() -> World:
    return World()


def test_a_refusal_is_whole(world: World) -> None:
    status, headers, body = world.post()
    assert (status, headers["Retry-After"], headers["Content-Length"]) == ("429 TOO MANY REQUESTS", "3", str(len(body)))
    assert json.loads(body)["error"]["queue"] == "chat.normal"
    assert world.asked == [BODY]
    [noted] = world.noted
    assert (noted.rule, noted.status, noted.refusal) == ("/v1/jobs", 429, "depth")


def test_what_must_be_examined_is_handed_on_with_its_body(world: World) -> None:
    world.refusal = None
    assert world.post()[::2] == ("202 ACCEPTED", BODY)
    assert (world.asked, world.noted) == ([BODY], [])


@pytest.mark.parametrize(
    "changes",
    [
        {"PATH_INFO": "/v1/responses"},
        {"REQUEST_METHOD": "GET"},
        {"CONTENT_LENGTH": ""},
        {"CONTENT_LENGTH": str(SMALL_BYTES + 1)},
        {"HTTP_TRANSFER_ENCODING": "chunked"},
        {"HTTP_CONTENT_ENCODING": "gzip"},
        {"HTTP_IDEMPOTENCY_KEY": "once"},
    ],
    ids=str,
)
def test_what_the_routes_must_read_is_handed_on_unread(world: World, changes: dict[str, str]) -> None:
    assert world.post(**changes)[::2] == ("202 ACCEPTED", BODY)
    assert world.asked == []


@pytest.mark.parametrize("app", [None, App(APP.id, "test", "whsec_test", scopes=frozenset({Scope.READ}))], ids=repr)
def test_a_key_that_may_not_submit_is_refused_by_the_routes(world: World, app: App | None) -> None:
    world.app = app
    assert world.post()[0] == "202 ACCEPTED"
    assert world.asked == []


def test_a_body_that_may_come_slowly_is_handed_on_and_its_sender_proves_nothing(world: World) -> None:
    world.app = App(new_id(), "new", "whsec_test")
    assert world.post()[0] == "202 ACCEPTED"
    assert world.asked == []
    with world.small.reading(world.app.id) as needs_deadline:
        assert needs_deadline


def test_no_refusal_is_looked_for_while_no_queue_was_full(world: World) -> None:
    world.refuses_early = False
    assert world.post()[0] == "202 ACCEPTED"
    assert world.asked == []


def test_a_plain_job_is_answered_whole(world: World) -> None:
    world.refusal, world.accepted = None, Answer(b'{"id": "job_1"}\n', {"x-job-id": "job_1"})
    status, headers, body = world.post()
    assert (status, body, headers["Content-Length"]) == ("202 ACCEPTED", b'{"id": "job_1"}\n', str(len(body)))
    assert (headers["x-job-id"], headers["Cache-Control"]) == ("job_1", "no-store")
    [post] = world.posted
    assert (post.app, post.raw, post.request_id) == (APP, BODY, headers["x-request-id"])
    [noted] = world.noted
    assert (noted.rule, noted.status, noted.refusal) == ("/v1/jobs", 202, None)
    assert world.handed_on == []


def test_a_job_that_may_exist_is_handed_on_with_its_error(world: World) -> None:
    world.refusal, world.accepted = None, StoreUnavailable("It does not answer.")
    assert world.post()[2] == BODY
    assert world.handed_on == [world.accepted]
    assert world.failed_ids == [world.posted[0].request_id]


def test_a_long_body_is_handed_on_unread_while_no_queue_was_full(world: World) -> None:
    world.refuses_early = False
    world.post(CONTENT_LENGTH=str(PLAIN_BYTES + 1))
    assert world.posted == []
    assert len(world.handed_on) == 1


def test_early_refusals_use_calls_until_they_are_refused_unread(world: World) -> None:
    answers = [world.post() for _ in range(20)]
    reasons = [json.loads(body)["error"].get("reason") for _, _, body in answers]
    # The app may owe a call.
    assert reasons == ["depth"] * 11 + ["calls_per_minute"] * 9
    assert len(world.asked) == 11
    status, headers, _ = answers[-1]
    assert (status, headers["Retry-After"]) == ("429 TOO MANY REQUESTS", "1")
    assert (headers["x-ratelimit-limit-calls"], headers["x-ratelimit-remaining-calls"]) == ("60", "0")
    assert headers["x-ratelimit-reset-calls"] == "10s"


def test_accepted_jobs_use_no_calls(world: World) -> None:
    world.refusal, world.accepted = None, Answer(b"{}", {})
    assert {world.post()[0] for _ in range(50)} == {"202 ACCEPTED"}
