"""Plain jobs: a share is submitted in one thread, each gets its own answer, and what is not plain is left alone."""

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from api.door.intake import FAILPOINT_INSERTED
from api.door.submit import Submitter
from api.plain import OFF_S, PLAIN_BYTES, REFUSED_S, SLOW_S, Answer, PlainJobs, Post
from headrace.domain.apps import App
from headrace.domain.ids import new_id
from headrace.domain.limits.rates import NO_RATES, RateLeft, RatesLeft
from headrace.domain.places import Place, Refusal
from headrace.errors import BrokerUnavailable, HeadraceError, PoisonPrompt, StoreUnavailable

THREADS = 16
PATIENCE_S = 20
BODY = {"prompt": "Why is the sky blue?", "max_tokens": 16}
FULL = Refusal("tokens", 500, 150_000, 150_000, NO_RATES, cap_tokens=150_000)


@pytest.fixture
def clock() -> SimpleNamespace:
    """The time as the door sees it; a test moves it by setting `now_s`."""
    return SimpleNamespace(now_s=1000.0)


@pytest.fixture
def plain(submitter: Submitter, clock: SimpleNamespace) -> PlainJobs:
    return PlainJobs(submitter, lambda: clock.now_s)


Submit = Callable[..., Answer | None]


@pytest.fixture
def submit(plain: PlainJobs, app: App) -> Submit:
    """Submits one job with these fields."""

    def submit(_app: App = app, **changes: Any) -> Answer | None:
        return plain.submit(Post(_app, json.dumps({**BODY, **changes}).encode(), "req_1"))

    return submit


def test_a_plain_job_takes_a_place_a_row_and_a_message(submit: Submit, door: Any) -> None:
    answer = submit()
    assert answer is not None
    assert door.steps == ["reserve", "insert", FAILPOINT_INSERTED, "commit"]
    [ticket] = door.committed
    told = json.loads(answer.body)
    assert answer.body.endswith(b"\n")
    assert (told["id"], told["status"], told["queue"]) == (f"job_{ticket.job_id.hex}", "queued", "chat.normal")
    assert (told["position"], told["depth"], told["max_tokens"]) == (3, 4, 16)
    assert answer.headers == {"x-job-id": told["id"]}


def test_what_is_left_of_the_rates_is_told(
    submit: Submit, door: Any, app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = RatesLeft(RateLeft(7, 6))
    monkeypatch.setattr(door, "reserve", lambda asks: [Place(ask.candidates[0], 3, 4, 500, left) for ask in asks])
    answer = submit()
    assert answer is not None
    assert answer.headers["x-ratelimit-remaining-requests"] == "6"


def test_jobs_that_come_together_share_one_thread_and_each_round_trip(
    plain: PlainJobs, door: Any, app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    reserve, is_open, threads = door.reserve, threading.Event(), set()

    def slow(asks: Any) -> Any:
        assert is_open.wait(PATIENCE_S)
        threads.add(threading.get_ident())
        return reserve(asks)

    monkeypatch.setattr(door, "reserve", slow)
    bodies = [json.dumps({**BODY, "max_tokens": number + 1}).encode() for number in range(THREADS)]
    with ThreadPoolExecutor(THREADS) as pool:
        answers = [pool.submit(plain.submit, Post(app, raw, "req_1")) for raw in bodies]
        while len(plain.batching._waiting) < THREADS - 1:
            threading.Event().wait(0.001)
        is_open.set()
        assert not wait(answers, PATIENCE_S).not_done
    told = [json.loads(answer.result().body) for answer in answers]  # type: ignore[union-attr]
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
        {"prompt": ""},
        {"model": "nope"},
        {"max_tokens": -1},
        {"max_tokens": 10**6},
        {"prompt": "x" * 2001},
        {"prompt": "x" * PLAIN_BYTES},
        {"deadline": 1},
        {"webhook": "http://127.0.0.1/"},
    ],
    ids=lambda changes: str(changes)[:40],
)
def test_what_is_not_plain_or_is_at_fault_is_left_alone(submit: Submit, door: Any, changes: dict[str, Any]) -> None:
    assert submit(**changes) is None
    assert door.steps == []


def test_one_at_fault_does_not_fail_its_share(plain: PlainJobs, app: App, door: Any) -> None:
    bodies = [b"{", json.dumps(BODY).encode(), b'{"prompt": ""}']
    outcomes = plain._serve([Post(app, raw, "req_1") for raw in bodies])
    assert [outcome is None for outcome in outcomes] == [True, False, True]
    assert len(door.inserted) == 1


def test_a_job_that_the_cache_may_serve_is_left_alone(submit: Submit, door: Any, app: App) -> None:
    assert submit(replace(app, cache_s=60)) is None
    assert door.steps == []


def test_a_poison_prompt_is_left_alone(submit: Submit, door: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def poison(*_: Any) -> None:
        raise PoisonPrompt("It is one.")

    monkeypatch.setattr("api.door.cached.poison.Poison.check", poison)
    assert submit() is None
    assert door.steps == []


def test_the_jobs_of_a_refused_app_are_left_alone_for_a_while(
    submit: Submit, door: Any, clock: SimpleNamespace
) -> None:
    door.refusal = FULL
    assert submit() is None
    assert door.steps == ["reserve"]
    door.refusal = None
    assert submit() is None
    assert door.steps == ["reserve"]
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
    plain: PlainJobs, app: App, clock: SimpleNamespace, door: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def find(*_: Any, **__: Any) -> Any:
        asked.append(clock.now_s)
        clock.now_s += SLOW_S + 0.1
        raise StoreUnavailable("It does not answer.")

    post = Post(app, json.dumps(BODY).encode(), "req_1")
    with monkeypatch.context() as outage:
        outage.setattr(plain._submitter.catalogue, "find", find)
        assert plain._serve([post] * 5) == [None] * 5
    assert len(asked) == 1
    assert plain.submit(post) is None
    assert door.steps == []
    clock.now_s += OFF_S
    assert plain.submit(post) is not None


def test_answers_that_take_long_are_made_by_the_requests_themselves(
    plain: PlainJobs, submitter: Submitter, app: App, clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(*_: Any) -> None:
        clock.now_s += SLOW_S + 0.1

    monkeypatch.setattr(type(submitter.forecast), "expected_wait_s", slow)
    outcomes = plain._serve([Post(app, json.dumps(BODY).encode(), "req_1")] * 3)
    assert [isinstance(outcome, Answer) for outcome in outcomes] == [True, False, False]
    answers = [plain._answer(*outcome) for outcome in outcomes[1:]]  # type: ignore[misc]
    assert all(json.loads(answer.body)["status"] == "queued" for answer in answers)
