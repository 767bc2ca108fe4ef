"""A submit is one place, one row and one message; a long poll is answered once its job has ended, or at once."""

from collections.abc import Generator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from flask import Response
from werkzeug.test import TestResponse

from api.app import WebServer, build
from api.calls import Later
from api.door.intake import FAILPOINT_INSERTED
from api.door.submit import Submitter
from api.routes import jobs
from api.turns import ClientGone, Step, Turn
from headrace.config import Settings
from headrace.domain.apps import App
from headrace.domain.ids import new_id
from headrace.domain.jobs import Job
from headrace.domain.limits import NO_RATES, RateLeft, RatesLeft
from headrace.domain.places import Place, Refusal
from headrace.domain.states import JobState
from headrace.errors import BrokerUnavailable, HeadraceError, InvalidRequest, NotFound, PoisonPrompt, StoreUnavailable
from tests.unit.api.routes.conftest import in_call
from tests.web import ApiClient, Web

BODY = {"prompt": "Why is the sky blue?", "max_tokens": 16}
FULL = Refusal("tokens", 500, 150_000, 150_000, NO_RATES, cap_tokens=150_000)
LIMIT_S = 60.0


@pytest.fixture
def client(settings: Settings, submitter: Submitter, app: App, monkeypatch: pytest.MonkeyPatch) -> ApiClient:
    """A client of an API whose door is fake, with a good key."""
    web = Web(WebServer(replace(build(settings), submitter=submitter)))
    for name in ("authenticate", "recall"):
        monkeypatch.setattr(web.deps.callers.authenticator, name, lambda _: app)
    return ApiClient(web, "hr-test")


def submit(client: ApiClient, **changes: Any) -> TestResponse:
    return client.post("/v1/jobs", json={**BODY, **changes})


def error_of(answer: TestResponse) -> Any:
    return answer.get_json()["error"]


def test_a_job_takes_a_place_a_row_and_a_message(client: ApiClient, door: Any) -> None:
    answer = submit(client)
    told = answer.get_json()
    assert door.steps == ["reserve", "insert", FAILPOINT_INSERTED, "commit"]
    [ticket] = door.committed
    assert (told["id"], told["status"], told["queue"]) == (f"job_{ticket.job_id.hex}", "queued", "chat.normal")
    assert (told["position"], told["depth"], told["max_tokens"]) == (3, 4, 16)
    assert (answer.status_code, answer.content_type, answer.headers["x-job-id"]) == (
        202,
        "application/json",
        told["id"],
    )


def test_the_rest_of_the_rates_is_told(client: ApiClient, door: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    left = RatesLeft(RateLeft(7, 6))
    monkeypatch.setattr(door, "reserve", lambda asks: [Place(ask.candidates[0], 3, 4, 500, left) for ask in asks])
    assert submit(client).headers["x-ratelimit-remaining-requests"] == "6"


@pytest.mark.parametrize(
    "changes",
    [
        {"n": 2},
        {"cache": "never"},
        {"tools": []},
        {"response_format": {"type": "json_object"}},
        {"unknown": None},
        {"prompt": "x" * 2001},
        {"prompt": "x " * 3000, "max_tokens": 1},
    ],
    ids=lambda changes: str(changes)[:40],
)
def test_a_job_with_more_than_a_prompt_goes_the_same_way(client: ApiClient, door: Any, changes: dict[str, Any]) -> None:
    answer = submit(client, **changes)
    assert answer.status_code == 202, answer.text
    assert door.steps == ["reserve", "insert", FAILPOINT_INSERTED, "commit"]


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"prompt": ""}, "prompt"),
        ({"model": "nope"}, "model"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 10**6}, "max_tokens"),
        ({"deadline": 1}, "deadline"),
        ({"webhook": "http://127.0.0.1/"}, "webhook"),
        ({"quality": "high"}, "quality"),
        ({"model": "auto"}, "model"),
        ({"unknown": 1}, "unknown"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_field_at_fault_is_named_and_takes_no_place(
    client: ApiClient, door: Any, changes: dict[str, Any], param: str
) -> None:
    answer = submit(client, **changes)
    assert answer.status_code in (400, 404)
    assert error_of(answer)["param"] == param
    assert door.steps == []


def test_a_poison_prompt_is_refused(client: ApiClient, door: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def poison(*_: Any) -> None:
        raise PoisonPrompt("It is one.")

    monkeypatch.setattr("api.door.confinement.Poison.check", poison)
    answer = submit(client)
    assert (answer.status_code, error_of(answer)["code"]) == (400, "poison_prompt")
    assert door.steps == []


def test_a_job_without_a_place_is_refused_and_counted(client: ApiClient, door: Any) -> None:
    door.refusal = FULL
    answer = submit(client)
    assert (answer.status_code, error_of(answer)["reason"], error_of(answer)["queue"]) == (
        429,
        "tokens",
        "chat.normal",
    )
    assert (door.steps, len(door.refused)) == (["reserve", "knock"], 1)


@pytest.mark.parametrize("step", ["reserve", "insert"])
@pytest.mark.parametrize("error", [StoreUnavailable("It is down."), BrokerUnavailable("It is down.")])
def test_an_error_of_the_intake_is_told(client: ApiClient, door: Any, step: str, error: HeadraceError) -> None:
    door.failures[step] = error
    answer = submit(client)
    assert (answer.status_code, error_of(answer)["code"]) == (503, error.code)


def test_the_error_of_one_row_is_told_to_its_job(client: ApiClient, door: Any) -> None:
    door.outcome = HeadraceError("Postgres refused the job.")
    answer = submit(client)
    assert (answer.status_code, error_of(answer)["code"]) == (500, "internal_error")


class World:
    """What a poll meets.

    Attributes:
        has_slot: a slot is free.
        job: as it stands. A read raises `failure` in its place.
        reads: how often it was read.
        waited: the job and the seconds of each wait.
        released: slots that were given back.
        turn: of the last poll.
    """

    def __init__(self) -> None:
        self.has_slot = True
        self.job = cast(Job, SimpleNamespace(id=new_id(), state=JobState.RUNNING))
        self.failure: Exception | None = None
        self.reads = self.released = 0
        self.waited = list[Any]()
        self.turn = Turn()
        settings = SimpleNamespace(wait_limit_s=LIMIT_S)
        self.web = SimpleNamespace(settings=settings, waits=self, reader=self, plugins=())

    def take(self, *_: object) -> Any:
        return SimpleNamespace(release=self._release) if self.has_slot else None

    def _release(self) -> None:
        self.released += 1

    def read(self, *_: object) -> Job:
        self.reads += 1
        if self.failure is not None:
            raise self.failure
        return self.job

    def follow(self, job_id: object, read: Any, wait_s: float, _wake: object) -> Generator[Step, None, Any]:
        self.waited.append((job_id, wait_s))
        yield Step(b"", 0.0)
        return read()

    def poll(self, wait_s: float, method: str = "GET") -> Response:
        with in_call(f"/v1/jobs/{self.job.id}", web=self.web, method=method) as self.turn:
            return jobs.when_ended(self.job.id, wait_s, reply_of)

    def end(self, later: Later, found: Job | Exception) -> bytes:
        with in_call(f"/v1/jobs/{self.job.id}", web=self.web, method="GET"):
            return later.end(found).get_data()


def reply_of(job: Job) -> Response:
    return Response(str(job.state))


@pytest.fixture
def world() -> World:
    return World()


def test_a_poll_without_a_wait_is_answered_at_once(world: World) -> None:
    reply = world.poll(0)
    assert not isinstance(reply, Later)
    assert (reply.get_data(), world.reads, world.turn.kind) == (b"running", 1, "plain")


def test_without_a_free_slot_a_long_poll_is_answered_at_once(world: World) -> None:
    world.has_slot = False
    reply = world.poll(60)
    assert not isinstance(reply, Later)
    assert (reply.get_data(), world.reads, world.turn.kind) == (b"running", 1, "wait")


def test_head_does_not_wait(world: World) -> None:
    assert not isinstance(world.poll(60, "HEAD"), Later)
    assert world.waited == []


def test_a_long_poll_waits_for_the_end_and_holds_a_slot(world: World) -> None:
    later = world.poll(30)
    assert isinstance(later, Later)
    assert (world.reads, world.turn.kind) == (0, "wait")
    steps = later.steps(lambda: None)
    next(steps)
    assert (world.waited, world.released) == ([(world.job.id, 30)], 0)
    with pytest.raises(StopIteration) as ended:
        next(steps)
    assert (ended.value.value, world.released) == (world.job, 1)
    assert world.end(later, cast(Job, SimpleNamespace(state=JobState.SUCCEEDED))) == b"succeeded"
    assert world.end(later, ClientGone()) == b"running", "no client reads it"
    with pytest.raises(StoreUnavailable):
        world.end(later, StoreUnavailable("It is away."))


@pytest.mark.parametrize("failure", [StoreUnavailable("It is away."), NotFound("No such job."), ValueError("A bug.")])
def test_a_long_poll_whose_read_fails_gives_its_slot_back(world: World, failure: Exception) -> None:
    later = world.poll(30)
    assert isinstance(later, Later)
    steps = later.steps(lambda: None)
    next(steps)
    world.failure = failure
    with pytest.raises((StopIteration, type(failure))) as ended:
        next(steps)
    assert getattr(ended.value, "value", ended.value) is failure
    assert world.released == 1


def test_a_wait_beyond_the_limit_is_refused(world: World) -> None:
    with pytest.raises(InvalidRequest) as raised:
        world.poll(LIMIT_S + 1)
    assert raised.value.param == "wait"
