"""Plain jobs: a share is submitted in one thread, each gets its own answer, and what is not plain is left alone."""

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest

from api.call import Call, Reply
from api.door.intake import FAILPOINT_INSERTED
from api.door.submit import OFF_S, PLAIN_BYTES, REFUSED_S, SLOW_S, PlainJobs, Submitter
from api.handlers.jobs import accepted_reply, plain_draft
from headrace.domain.apps import App
from headrace.domain.ids import new_id
from headrace.domain.limits import NO_RATES, RateLeft, RatesLeft
from headrace.domain.places import Place, Refusal
from headrace.errors import BrokerUnavailable, HeadraceError, InvalidRequest, PoisonPrompt, QueueFull, StoreUnavailable

THREADS = 16
PATIENCE_S = 20
BODY = {"prompt": "Why is the sky blue?", "max_tokens": 16}
FULL = Refusal("tokens", 500, 150_000, 150_000, NO_RATES, cap_tokens=150_000)


@pytest.fixture
def clock() -> SimpleNamespace:
    """The time as the door sees it; a test moves it by setting `now_s`."""
    return SimpleNamespace(now_s=1000.0)


@pytest.fixture
def plain(submitter: Submitter, clock: SimpleNamespace) -> PlainJobs[Reply]:
    return PlainJobs(submitter, plain_draft, accepted_reply, lambda: clock.now_s)


def submit_to(plain: PlainJobs[Reply], call: Call) -> Reply | None:
    """The answer to one job; None if it is not plain. Raises: its error."""
    answer = plain.batching.call(call) if plain.takes(call.app, len(call.body)) else None
    return answer() if isinstance(answer, partial) else answer


Submit = Callable[..., Reply | None]


def call_of(app: App, **changes: Any) -> Call:
    return Call("POST", "/v1/jobs", "", {}, caller=app, body=json.dumps({**BODY, **changes}).encode(), id="req_1")


def body_of(reply: Reply | None) -> Any:
    assert reply is not None
    assert isinstance(reply.body, bytes)
    return json.loads(reply.body)


@pytest.fixture
def submit(plain: PlainJobs[Reply], app: App) -> Submit:
    """Submits one job with these fields."""

    def submit(_app: App = app, **changes: Any) -> Reply | None:
        return submit_to(plain, call_of(_app, **changes))

    return submit


def test_a_plain_job_takes_a_place_a_row_and_a_message(submit: Submit, door: Any) -> None:
    reply = submit()
    told = body_of(reply)
    assert door.steps == ["reserve", "insert", FAILPOINT_INSERTED, "commit"]
    [ticket] = door.committed
    assert (told["id"], told["status"], told["queue"]) == (f"job_{ticket.job_id.hex}", "queued", "chat.normal")
    assert (told["position"], told["depth"], told["max_tokens"]) == (3, 4, 16)
    assert reply is not None
    assert (reply.status, reply.headers) == (202, {"Content-Type": "application/json", "x-job-id": told["id"]})


def test_what_is_left_of_the_rates_is_told(
    submit: Submit, door: Any, app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = RatesLeft(RateLeft(7, 6))
    monkeypatch.setattr(door, "reserve", lambda asks: [Place(ask.candidates[0], 3, 4, 500, left) for ask in asks])
    reply = submit()
    assert reply is not None
    assert reply.headers["x-ratelimit-remaining-requests"] == "6"


def test_jobs_that_come_together_share_one_thread_and_each_round_trip(
    plain: PlainJobs[Reply], door: Any, app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    reserve, is_open, threads = door.reserve, threading.Event(), set()

    def slow(asks: Any) -> Any:
        assert is_open.wait(PATIENCE_S)
        threads.add(threading.get_ident())
        return reserve(asks)

    monkeypatch.setattr(door, "reserve", slow)
    with ThreadPoolExecutor(THREADS) as pool:
        answers = [pool.submit(submit_to, plain, call_of(app, max_tokens=number + 1)) for number in range(THREADS)]
        while len(plain.batching._waiting) < THREADS - 1:
            threading.Event().wait(0.001)
        is_open.set()
        assert not wait(answers, PATIENCE_S).not_done
    told = [body_of(answer.result()) for answer in answers]
    assert [each["max_tokens"] for each in told] == list(range(1, THREADS + 1))
    assert sorted(map(len, door.asked)) == [1, THREADS - 1]
    assert len({each["id"] for each in told}) == THREADS


@pytest.mark.parametrize(
    "changes",
    [
        {"n": 2},
        {"cache": "off"},
        {"tools": []},
        {"response_format": {"type": "json_object"}},
        {"quality": "high"},
        {"model": "auto"},
        {"unknown": None},
        {"prompt": "x" * 2001},
        {"prompt": "x" * PLAIN_BYTES},
    ],
    ids=lambda changes: str(changes)[:40],
)
def test_what_is_not_plain_is_left_alone(submit: Submit, door: Any, changes: dict[str, Any]) -> None:
    assert submit(**changes) is None
    assert door.steps == []


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"prompt": ""}, "prompt"),
        ({"model": "nope"}, "model"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 10**6}, "max_tokens"),
        ({"deadline": 1}, "deadline"),
        ({"webhook": "http://127.0.0.1/"}, "webhook"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_at_fault_is_refused(submit: Submit, door: Any, changes: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        submit(**changes)
    assert raised.value.param == param
    assert door.steps == []


def test_one_at_fault_does_not_fail_its_share(plain: PlainJobs[Reply], app: App, door: Any) -> None:
    outcomes = plain._serve([call_of(app, **changes) for changes in ({"prompt": ""}, {}, {"n": 2})])
    assert [type(outcome) for outcome in outcomes] == [InvalidRequest, Reply, type(None)]
    assert len(door.inserted) == 1


def test_a_job_that_the_cache_may_serve_is_left_alone(submit: Submit, door: Any, app: App) -> None:
    assert submit(replace(app, cache_s=60)) is None
    assert door.steps == []


def test_a_poison_prompt_is_refused(submit: Submit, door: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def poison(*_: Any) -> None:
        raise PoisonPrompt("It is one.")

    monkeypatch.setattr("api.door.confinement.Poison.check", poison)
    with pytest.raises(PoisonPrompt):
        submit()
    assert door.steps == []


def test_a_job_without_a_place_is_refused_and_counted(submit: Submit, door: Any) -> None:
    door.refusal = FULL
    with pytest.raises(QueueFull) as raised:
        submit()
    assert (raised.value.reason, raised.value.queue) == ("tokens", "chat.normal")
    assert (door.steps, len(door.refused)) == (["reserve", "knock"], 1)


def test_the_jobs_of_a_refused_app_take_their_own_threads_for_a_while(
    submit: Submit, door: Any, clock: SimpleNamespace
) -> None:
    door.refusal = FULL
    with pytest.raises(QueueFull):
        submit()
    door.refusal, steps = None, len(door.steps)
    assert submit() is None
    assert len(door.steps) == steps
    assert submit(App(new_id(), "other", "whsec_test")) is not None
    clock.now_s += REFUSED_S
    assert submit() is not None


@pytest.mark.parametrize("step", ["reserve", "insert"])
@pytest.mark.parametrize("error", [StoreUnavailable("It is down."), BrokerUnavailable("It is down.")])
def test_an_error_of_the_intake_is_raised(submit: Submit, door: Any, step: str, error: HeadraceError) -> None:
    door.failures[step] = error
    with pytest.raises(type(error)):
        submit()


def test_the_error_of_one_row_is_raised_to_its_job(submit: Submit, door: Any) -> None:
    door.outcome = HeadraceError("Postgres refused the job.")
    with pytest.raises(HeadraceError, match="refused the job"):
        submit()


def test_a_server_that_does_not_answer_is_waited_for_once(
    plain: PlainJobs[Reply], app: App, clock: SimpleNamespace, door: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def find(*_: Any, **__: Any) -> Any:
        asked.append(clock.now_s)
        clock.now_s += SLOW_S + 0.1
        raise StoreUnavailable("It does not answer.")

    calls = [call_of(app) for _ in range(5)]
    with monkeypatch.context() as outage:
        outage.setattr(plain._submitter.catalogue, "find", find)
        outcomes = plain._serve(calls)
    assert [type(outcome) for outcome in outcomes] == [StoreUnavailable, *[type(None)] * 4]
    assert len(asked) == 1
    assert submit_to(plain, calls[0]) is None
    assert door.steps == []
    clock.now_s += OFF_S
    assert submit_to(plain, calls[0]) is not None


def test_answers_that_take_long_are_made_by_the_requests_themselves(
    plain: PlainJobs[Reply], submitter: Submitter, app: App, clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(*_: Any) -> None:
        clock.now_s += SLOW_S + 0.1

    monkeypatch.setattr(type(submitter.forecast), "expected_wait_s", slow)
    first, *others = plain._serve([call_of(app) for _ in range(3)])
    assert isinstance(first, Reply)
    assert all(body_of(cast(partial[Reply], each)())["status"] == "queued" for each in others)
