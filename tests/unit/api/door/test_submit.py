"""The use case with fakes around it: what is done in which order, undone when a step fails, and told to the caller."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from pydantic import SecretStr

from api.door.drafts import Draft, Spelling
from api.door.intake import FAILPOINT_INSERTED
from api.door.refusals import LATE_S, RETRY_BLINDLY_S
from api.door.submit import Submitter
from headrace.broker.forecast import Forecast
from headrace.config import Price
from headrace.domain.apps import App, AppLimits
from headrace.domain.fleet import Fleet
from headrace.domain.ids import new_id
from headrace.domain.jobs import Idempotency, Inserted
from headrace.domain.limits import NO_RATES, Account, RateLeft, RatesLeft
from headrace.domain.places import Load, Place, Refusal, bound_of
from headrace.domain.prompts import Message
from headrace.domain.queues import OVERFLOW, Lane, Overflow
from headrace.domain.states import JobState
from headrace.errors import (
    AppLimited,
    BrokerUnavailable,
    BudgetExceeded,
    GoalMissed,
    HeadraceError,
    IdempotencyInProgress,
    IdempotencyKeyReused,
    InvalidRequest,
    ModelNotFound,
    OverflowUnavailable,
    OverflowUnserved,
    PermissionDenied,
    QueueFull,
    StoreUnavailable,
)
from headrace.policies.answers import BOUNDS, ExpectedOutput
from headrace.policies.forecasting import PoolRates, to_json
from headrace.policies.pricing import Tariff

DRAFT = Draft(Spelling("prompt"), (Message("user", "Why is the sky blue?"),), max_tokens=256)
KEYED = Idempotency("key", b"hash")
FULL = Refusal("depth", 500, 150_000, 150_000, NO_RATES, cap_jobs=500)


@pytest.fixture
def measured(door: Any, fleet: dict[str, Fleet]) -> None:
    """A busy pool with a measured drain of 1000 tokens a second. Only `normal` has work, so it gets all of it."""
    fleet["chat"] = Fleet("chat", 1, 1, 10, 10, None, None)
    door.rates = '{"chat": {"drain_tokens_per_s_per_slot": 100.0, "lanes": {}}}'
    door.backlog["chat.normal"] = Load(500, 150_000, 1, 150_000)


def refused(submitter: Submitter, app: App, draft: Draft = DRAFT) -> QueueFull:
    with pytest.raises(QueueFull) as raised:
        submitter.submit(draft, app)
    return raised.value


def test_a_submit_takes_a_place_then_inserts_then_publishes(submitter: Submitter, door: Any, app: App) -> None:
    limited = replace(app, limits=AppLimits(queued_jobs=7))
    accepted = submitter.submit(DRAFT, limited)

    assert door.steps == ["reserve", "insert", FAILPOINT_INSERTED, "commit"]
    assert (accepted.state, accepted.queue, accepted.position, accepted.depth) == (
        JobState.QUEUED,
        "chat.normal",
        3,
        4,
    )
    assert accepted.start_by == door.start_by
    assert not accepted.is_replay
    [[ask]] = door.asked
    [ticket] = door.committed
    assert ask.job_id == ticket.job_id == accepted.job_id
    assert ask.limits == limited.limits
    assert ask.tokens == ticket.kv_tokens > 256


@pytest.mark.usefixtures("measured")
def test_an_accept_tells_the_wait_for_what_is_before_it(submitter: Submitter, app: App) -> None:
    # Two jobs with 500 tokens between them are before it, and then a slot must free: three times their mean.
    assert submitter.submit(DRAFT, app).expected_wait_s == 0.75


@pytest.mark.usefixtures("measured")
def test_a_job_asks_for_no_more_before_it_than_drains_in_its_time(submitter: Submitter, door: Any, app: App) -> None:
    submitter.submit(replace(DRAFT, max_wait_s=20.0), app)
    [[ask]] = door.asked
    assert ask.candidates[0].ahead_cap_tokens == 20_000


@pytest.mark.usefixtures("measured")
def test_a_deadline_that_is_sooner_binds_the_start_as_well(submitter: Submitter, door: Any, app: App) -> None:
    submitter.submit(replace(DRAFT, max_wait_s=20.0, deadline=datetime.now(UTC) + timedelta(seconds=5)), app)
    assert 4000 < door.asked[0][0].candidates[0].ahead_cap_tokens <= 5000
    door.refusal = Refusal("wait", 500, 150_000, 150_000, NO_RATES, cap_tokens=5000)
    # Told in three digits, so that a moment more or less does not show.
    soon = datetime.now(UTC) + timedelta(seconds=500)
    error = refused(submitter, app, replace(DRAFT, max_wait_s=2000.0, deadline=soon))
    assert "must start within 500 s" in str(error)


@pytest.mark.usefixtures("measured")
def test_a_job_is_told_of_the_slots_that_are_free_when_it_takes_its_place(
    submitter: Submitter, door: Any, app: App, fleet: dict[str, Fleet], monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet["chat"] = Fleet("chat", 1, 1, 10, 7, None, None)
    door.departures = 40
    told = []
    for free in (3, 2):
        place = partial(Place, position=3, depth=4, ahead_tokens=500, rates_left=NO_RATES, free=free)
        monkeypatch.setattr(door, "reserve", lambda asks, place=place: [place(ask.candidates[0]) for ask in asks])
        told.append(submitter.submit(DRAFT, app).expected_wait_s)
    assert told[0] == 0.0
    assert told[1] is not None
    assert told[1] > 0
    assert submitter._bid(DRAFT, app, door.inserted[0][0], "").candidates[0].free_until == 43


def test_nothing_is_bounded_by_a_rate_that_is_only_believed(submitter: Submitter, door: Any, app: App) -> None:
    submitter.submit(DRAFT, app)
    assert door.asked[0][0].candidates[0].ahead_cap_tokens is None


@pytest.mark.usefixtures("measured")
def test_a_full_queue_is_told_counted_and_costs_no_insert(submitter: Submitter, door: Any, app: App) -> None:
    door.refusal = FULL
    error = refused(submitter, app)

    assert door.steps == ["reserve", "knock"]
    assert (error.queue, error.reason, error.depth, error.cap) == ("chat.normal", "depth", 500, 500)
    assert error.expected_wait_s == 150.3
    # One job of 300 tokens must leave.
    assert error.retry_after_s == 1
    assert str(error) == "Queue chat.normal is full: 500 jobs wait and its cap is 500. Retry after 1 s."
    assert door.knocks == [(app.id, "chat.normal", 1 + LATE_S)]
    [(app_id, queue, reason, tokens, expected_tokens)] = door.refused
    assert (app_id, queue, reason) == (app.id, "chat.normal", "depth")
    assert tokens == expected_tokens > 256


@pytest.mark.usefixtures("measured")
def test_a_refusal_counts_what_the_job_would_likely_have_used(submitter: Submitter, door: Any, app: App) -> None:
    outputs = {Lane.NORMAL: ExpectedOutput(10**6, tuple(min(bound, 24.0) for bound in BOUNDS))}
    door.rates = to_json({"chat": PoolRates(100.0, outputs=outputs)})
    door.refusal = FULL
    refused(submitter, app)
    [(_, _, _, tokens, expected_tokens)] = door.refused
    assert expected_tokens == pytest.approx(tokens - 256 + 24, abs=1)


@pytest.mark.usefixtures("measured")
@pytest.mark.parametrize(
    ("refusal", "max_wait_s", "words", "retry_after_s", "knocks"),
    [
        (
            Refusal("tokens", 400, 1_002_000, 1_002_000, NO_RATES, cap_tokens=1_000_000),
            30.0,
            "1002000 tokens wait",
            3,
            1,
        ),
        (Refusal("wait", 500, 150_000, 150_000, NO_RATES, cap_tokens=100_000), 100.0, "would wait about 150 s", 51, 0),
        (Refusal("wait", 500, 150_000, 150_000, NO_RATES, cap_tokens=10_000), 10.0, "must start within 10 s", None, 0),
        (Refusal("share", 500, 150_000, 150_000, NO_RATES, cap_jobs=250), 30.0, "all of the 250 places", 1, 0),
        (
            Refusal("token_share", 500, 150_000, 150_000, NO_RATES, cap_tokens=500_000),
            30.0,
            "may have 500000 tokens there",
            1,
            0,
        ),
        (
            Refusal("app_jobs", 500, 150_000, 150_000, NO_RATES, cap_jobs=3),
            30.0,
            "as many jobs waiting as it may have: 3",
            1,
            0,
        ),
    ],
    ids=lambda value: value.reason if isinstance(value, Refusal) else "",
)
def test_each_refusal_says_what_it_met_and_when_to_come_back(
    submitter: Submitter,
    door: Any,
    app: App,
    refusal: Refusal,
    max_wait_s: float,
    words: str,
    retry_after_s: int | None,
    knocks: int,
) -> None:
    door.refusal = refusal
    error = refused(submitter, app, replace(DRAFT, max_wait_s=max_wait_s))
    cap = refusal.cap_tokens or refusal.cap_jobs
    assert (error.reason, error.cap, error.retry_after_s) == (refusal.reason, cap, retry_after_s)
    is_of_tokens = refusal.reason in ("tokens", "token_share", "wait")
    kind = (refusal.backlog_tokens, "tokens") if is_of_tokens else (refusal.depth, "jobs")
    assert (error.depth, error.unit) == kind
    assert words in str(error)
    assert str(error).endswith(f"Retry after {retry_after_s} s." if retry_after_s else "Do not retry soon.")
    assert len(door.knocks) == knocks


@pytest.mark.usefixtures("measured")
def test_a_refused_job_comes_back_by_what_the_jobs_there_will_likely_take(
    submitter: Submitter, door: Any, app: App
) -> None:
    # A tenth of what they may take: 15,000 tokens wait, and 1,000 drain in a second.
    door.refusal = Refusal("wait", 500, 150_000, 15_000, NO_RATES, cap_tokens=10_000)
    error = refused(submitter, app, replace(DRAFT, max_wait_s=10.0))
    assert (error.expected_wait_s, error.retry_after_s) == (15.03, 6)
    door.refusal = Refusal("tokens", 400, 1_050_000, 105_000, NO_RATES, cap_tokens=1_000_000)
    assert refused(submitter, app).retry_after_s == 6, "50,263 of those that they may take must leave"


@pytest.mark.usefixtures("measured")
def test_a_job_is_booked_with_the_tokens_that_it_will_likely_take(submitter: Submitter, door: Any, app: App) -> None:
    outputs = {Lane.NORMAL: ExpectedOutput(10**6, tuple(min(bound, 24.0) for bound in BOUNDS))}
    door.rates = to_json({"chat": PoolRates(100.0, outputs=outputs)})
    submitter.submit(DRAFT, app)
    [[ask]] = door.asked
    assert ask.tokens > 256
    assert ask.expected_tokens == pytest.approx(ask.tokens - 256 + 24, abs=1)


@pytest.mark.usefixtures("measured")
def test_the_wait_is_of_what_refused_and_not_of_a_moment_before(submitter: Submitter, door: Any, app: App) -> None:
    door.backlog.clear()
    door.refusal = Refusal("wait", 500, 150_000, 150_000, NO_RATES, cap_tokens=30_000)
    error = refused(submitter, app, replace(DRAFT, max_wait_s=30.0))
    assert (error.expected_wait_s, error.retry_after_s) == (150.3, None)


def test_without_any_rate_a_client_is_asked_to_come_back_soon(submitter: Submitter, door: Any, app: App) -> None:
    door.refusal = FULL
    error = refused(submitter, app)
    assert (error.retry_after_s, error.expected_wait_s) == (RETRY_BLINDLY_S, None)


def test_without_a_worker_the_reason_is_that_and_no_place_is_kept(submitter: Submitter, door: Any, app: App) -> None:
    door.refusal, door.next_worker = FULL, ("host", 200.4)
    error = refused(submitter, app)
    assert (error.reason, error.retry_after_s, error.worker_in_s) == ("no_worker", 201, 200.4)
    assert [reason for _, _, reason, _, _ in door.refused] == ["no_worker"], "a host would have taken it"
    assert door.knocks == []
    door.refusal = Refusal("app_jobs", 500, 150_000, 150_000, NO_RATES, cap_jobs=5)
    assert refused(submitter, replace(app, id=new_id())).reason == "app_jobs", "a worker would change nothing"


@pytest.mark.usefixtures("measured")
def test_what_a_worker_serves_costs_no_look_at_the_next_one(submitter: Submitter, door: Any, app: App) -> None:
    asked: list[str] = []
    submitter.refusals.vacancies._read = asked.append  # type: ignore[assignment]
    assert submitter.submit(DRAFT, app).vacancy is None
    assert asked == []


def test_a_knock_that_is_not_noted_is_no_error_of_the_caller(submitter: Submitter, door: Any, app: App) -> None:
    door.refusal = FULL
    door.failures["knock"] = BrokerUnavailable()
    assert refused(submitter, app).reason == "depth"


@pytest.mark.parametrize("reason", ["depth", "share", "app_jobs", "tokens", "wait", "token_share"])
def test_each_job_asks_for_a_place_of_its_own_and_each_refused_one_is_counted(
    submitter: Submitter, door: Any, app: App, reason: Any
) -> None:
    door.refusal = Refusal(reason, 500, 150_000, 150_000, NO_RATES, **bound_of(reason, 5))
    first, again = refused(submitter, app), refused(submitter, app)
    assert (str(again), again.reason, again.depth) == (str(first), first.reason, first.depth)
    assert door.steps.count("reserve") == 2
    assert door.refused == [door.refused[0]] * 2

    other = replace(app, id=new_id())
    refused(submitter, other)
    assert [app_id for app_id, *_ in door.refused] == [app.id, app.id, other.id]

    door.refusal = None
    assert submitter.submit(DRAFT, app).state == JobState.QUEUED, "there is room again"


@pytest.mark.usefixtures("clock")
def test_a_knock_is_not_repeated_for_every_refusal(submitter: Submitter, door: Any, app: App) -> None:
    door.refusal = FULL
    for _ in range(3):
        refused(submitter, app)
    assert (door.steps.count("reserve"), door.steps.count("knock")) == (3, 1)


@pytest.mark.parametrize(
    ("reason", "number", "tokens_per_minute", "retry_after_s", "words"),
    [
        ("requests_per_minute", 1_200, 1000, 2, "may make 60 requests a minute"),
        ("tokens_per_minute", 30_000, 1000, 30, "may use 1000 tokens a minute"),
        ("tokens_per_minute", 60_000, 100, None, "too large for that limit"),
    ],
)
def test_an_app_that_used_its_minute_up_is_told_when_it_may_go_on(
    submitter: Submitter,
    door: Any,
    app: App,
    reason: Any,
    number: int,
    tokens_per_minute: int,
    retry_after_s: int | None,
    words: str,
) -> None:
    limits = AppLimits(requests_per_minute=60, tokens_per_minute=tokens_per_minute)
    rates = RatesLeft(RateLeft(60, 0), RateLeft(tokens_per_minute, 10))
    door.refusal = Refusal(reason, 0, 0, 0, rates, **bound_of(reason, number))
    with pytest.raises(AppLimited) as raised:
        submitter.submit(DRAFT, replace(app, limits=limits))
    error = raised.value
    assert (error.reason, error.retry_after_s, error.rates_left) == (reason, retry_after_s, rates)
    assert words in str(error)
    assert door.refused[0][2] == reason
    assert door.knocks == []


@pytest.mark.parametrize("failure", [StoreUnavailable("down"), IdempotencyKeyReused("reused")])
def test_the_place_is_given_back_when_the_insert_fails(
    submitter: Submitter, door: Any, app: App, failure: HeadraceError
) -> None:
    door.outcome = failure

    with pytest.raises(type(failure), match=str(failure)):
        submitter.submit(DRAFT, app)

    assert door.steps == ["reserve", "insert", FAILPOINT_INSERTED, "give_back"]
    assert door.given_back == [door.inserted[0][0].id]


def test_a_job_is_accepted_when_only_its_publish_fails(submitter: Submitter, door: Any, app: App) -> None:
    door.failures["commit"] = BrokerUnavailable()

    accepted = submitter.submit(DRAFT, app)

    assert accepted.job_id == door.inserted[0][0].id
    assert "give_back" not in door.steps


def test_a_job_is_accepted_when_its_wait_cannot_be_told(
    submitter: Submitter, app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(*_: Any) -> float:
        raise BrokerUnavailable

    monkeypatch.setattr("headrace.broker.forecast.Forecast.expected_wait_s", down)
    assert submitter.submit(DRAFT, app).expected_wait_s is None


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch) -> UUID:
    """The job that the store finds, whichever is asked for."""
    job = SimpleNamespace(
        id=new_id(),
        state=JobState.RUNNING,
        lane=Lane.LOW,
        queue="chat.low",
        start_by=datetime.now(UTC),
        max_tokens=64,
        max_wait_s=30.0,
        cache="hit",
        is_leader_ended=False,
        is_over=False,
    )
    monkeypatch.setattr("headrace.store.jobs.find", lambda *_: job)
    return job.id


def test_a_replay_takes_no_place_and_tells_the_job_as_it_stands(
    submitter: Submitter, door: Any, app: App, stored: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.door.submit.find_replay", lambda *_: (stored, KEYED.request_hash))

    accepted = submitter.submit(DRAFT, app, KEYED)

    assert (accepted.job_id, accepted.state, accepted.lane) == (stored, JobState.RUNNING, Lane.LOW)
    assert (accepted.max_tokens, accepted.max_wait_s, accepted.cache) == (64, 30.0, "hit")
    assert (accepted.position, accepted.depth, accepted.rates_left, accepted.is_replay) == (None, None, None, True)
    assert door.steps == []


def test_a_key_that_came_with_another_body_is_refused(
    submitter: Submitter, door: Any, app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.door.submit.find_replay", lambda *_: (new_id(), b"other"))

    with pytest.raises(IdempotencyKeyReused) as raised:
        submitter.submit(DRAFT, app, KEYED)

    assert raised.value.param == "Idempotency-Key"
    assert door.steps == []


def test_a_replay_that_shows_only_at_the_insert_gives_its_place_back(
    submitter: Submitter, door: Any, app: App, stored: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.door.submit.find_replay", lambda *_: None)
    door.outcome = Inserted(stored, None)

    accepted = submitter.submit(DRAFT, app, KEYED)

    assert (accepted.job_id, accepted.is_replay) == (stored, True)
    assert door.steps == ["reserve", "insert", FAILPOINT_INSERTED, "give_back"]


def test_a_key_that_another_request_holds_is_asked_for_again_until_it_is_settled(
    submitter: Submitter, door: Any, app: App, stored: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.store.jobs.insertion.POLL_S", 0)
    answers = iter([None, None, (stored, KEYED.request_hash)])
    monkeypatch.setattr("api.door.submit.find_replay", lambda *_: next(answers))
    door.outcome = IdempotencyInProgress()

    assert submitter.submit(DRAFT, app, KEYED).job_id == stored

    assert door.steps.count("reserve") == door.steps.count("give_back") == 2, "each try gives its place back"


@pytest.mark.parametrize("looks", [1, 2, 3])
def test_a_request_that_its_own_twin_left_no_room_for_is_a_replay(
    submitter: Submitter, door: Any, app: App, stored: UUID, monkeypatch: pytest.MonkeyPatch, looks: int
) -> None:
    monkeypatch.setattr("api.door.submit.LOOK_AGAIN_S", (0, 0))
    answers = iter([None] * looks + [(stored, KEYED.request_hash)])
    monkeypatch.setattr("api.door.submit.find_replay", lambda *_: next(answers))
    door.refusal = FULL

    if looks < 3:
        assert submitter.submit(DRAFT, app, KEYED).job_id == stored
    else:
        with pytest.raises(QueueFull):
            submitter.submit(DRAFT, app, KEYED)
    assert door.steps.count("reserve") == 1
    assert len(door.refused) == (looks == 3), "the twin's job counts, and this request is no refused demand"


def test_a_repeat_whose_deadline_has_passed_meanwhile_is_a_replay(
    submitter: Submitter, app: App, stored: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = replace(DRAFT, deadline=datetime.now(UTC))
    monkeypatch.setattr("api.door.submit.find_replay", lambda *_: (stored, KEYED.request_hash))
    assert submitter.submit(late, app, KEYED).job_id == stored

    monkeypatch.setattr("api.door.submit.find_replay", lambda *_: None)
    with pytest.raises(InvalidRequest) as raised:
        submitter.submit(late, app, KEYED)
    assert (raised.value.code, raised.value.param) == ("deadline_in_past", "deadline")


def test_an_unknown_model_takes_no_place(submitter: Submitter, door: Any, app: App) -> None:
    with pytest.raises(ModelNotFound):
        submitter.submit(replace(DRAFT, model="nope"), app)
    assert door.steps == []


def test_a_lane_that_is_closed_to_the_app_takes_no_place(submitter: Submitter, door: Any, app: App) -> None:
    with pytest.raises(PermissionDenied):
        submitter.submit(DRAFT, replace(app, lanes=frozenset({Lane.LOW})))
    assert door.steps == []


def test_an_overflow_that_is_not_open_is_refused_under_the_callers_own_name(
    submitter: Submitter, door: Any, app: App
) -> None:
    draft = replace(DRAFT, spelling=Spelling("input", "max_output_tokens", "job."), overflow=Overflow.ONLY)
    with pytest.raises(InvalidRequest) as raised:
        submitter.submit(draft, app)
    assert raised.value.param == "job.overflow"
    assert door.steps == []


@pytest.fixture
def paid(submitter: Submitter, fleet: dict[str, Fleet]) -> Submitter:
    """As `submitter`, with a paid API set up."""
    fleet[OVERFLOW] = Fleet(OVERFLOW, 1, 1, 8, 8, None, None)
    price = Price(input_usd_per_mtok=Decimal(1), output_usd_per_mtok=Decimal(1), source="test", version="v1")
    settings = submitter.settings.model_copy(update={"openai_api_key": SecretStr("sk-test")})
    return replace(submitter, settings=settings, tariff=lambda: replace(submitter.tariff(), api={"gpt-4o-mini": price}))


def spent(app: App, usd: str) -> Account:
    return Account(new_id(), app.name, "day", datetime.now(UTC), Decimal(0), Decimal(usd), None)


def test_a_job_that_may_spill_over_is_given_both_queues_while_there_is_money(
    paid: Submitter, door: Any, app: App, accounts: list[Account]
) -> None:
    limited = replace(app, limits=AppLimits(day_usd=Decimal(5)))
    paid.submit(DRAFT, limited)
    accounts.append(spent(app, "4.9999"))
    paid.submit(DRAFT, limited)
    accounts[0] = spent(replace(app, name="another"), "4.9999")
    paid.submit(DRAFT, limited)

    queues = [[each.queue for each in ask.candidates] for [ask] in door.asked]
    both = ["chat.normal", "overflow.normal"]
    assert queues == [both, ["chat.normal"], both]


@pytest.mark.parametrize(
    ("own_usd", "running", "queues"),
    [
        ("1.01", 10, ["overflow.normal", "chat.normal"]),
        ("1.01", 0, ["chat.normal", "overflow.normal"]),
        ("0.99", 10, ["chat.normal", "overflow.normal"]),
    ],
    ids=["the paid API is cheaper than another host", "own GPUs idle", "another host is cheaper"],
)
def test_money_decides_which_queue_is_tried_first(
    paid: Submitter, door: Any, app: App, fleet: dict[str, Fleet], own_usd: str, running: int, queues: list[str]
) -> None:
    fleet["chat"] = Fleet("chat", 1, 1, 10, running, None, None)
    door.backlog["chat.normal"] = Load(10, 3000, 1, 3000)
    own = Price(input_usd_per_mtok=Decimal(own_usd), output_usd_per_mtok=Decimal(own_usd), source="test", version="v1")
    measured = paid.tariff().with_own({"chat": own})

    replace(paid, tariff=lambda: measured).submit(DRAFT, app)

    asked = door.asked[0][0].candidates
    assert [each.queue for each in asked] == queues
    is_spilled = queues[0] == "overflow.normal"
    assert ("the paid API is cheaper than another host" in asked[0].reason) is is_spilled


@pytest.mark.parametrize("workers", [1, 0], ids=["locked out", "dead"])
def test_an_overflow_whose_workers_answer_nothing_now_is_worth_another_try(
    paid: Submitter, door: Any, app: App, fleet: dict[str, Fleet], workers: int
) -> None:
    fleet[OVERFLOW] = Fleet(OVERFLOW, workers, workers, 0, 0, None, None)
    door.next_worker = "process", None
    with pytest.raises(OverflowUnavailable if workers else OverflowUnserved):
        paid.submit(replace(DRAFT, overflow=Overflow.ONLY), app)
    paid.submit(DRAFT, app)

    assert [each.queue for each in door.asked[0][0].candidates] == ["chat.normal"]


def test_an_overflow_without_money_is_refused_and_counted(
    paid: Submitter, door: Any, app: App, accounts: list[Account]
) -> None:
    accounts.append(spent(app, "5"))
    with pytest.raises(BudgetExceeded) as raised:
        paid.submit(replace(DRAFT, overflow=Overflow.ONLY), replace(app, limits=AppLimits(day_usd=Decimal(5))))

    assert raised.value.retry_after_s is None
    assert door.steps == []
    [(app_id, queue, reason, _, _)] = door.refused
    assert (app_id, queue, reason) == (app.id, "overflow.normal", "budget")


def test_new_jobs_go_to_the_paid_api_first_while_their_queue_is_deep(
    paid: Submitter, door: Any, app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.broker.forecast.LIVE_TTL_S", -1)
    first = []
    for jobs in (199, 200, 160, 159):
        door.backlog["chat.normal"] = Load(jobs, 300 * jobs, 1, 300 * jobs)
        paid.submit(DRAFT, app)
        first.append(door.asked[-1][0].candidates[0].queue)

    assert first == ["chat.normal", "overflow.normal", "overflow.normal", "chat.normal"]


def with_goal(submitter: Submitter, goal_s: float) -> Submitter:
    """The same, where the pool has a latency goal."""
    chat = submitter.settings.pools["chat"].model_copy(update={"latency_goal_s": goal_s})
    settings = submitter.settings.model_copy(update={"pools": {"chat": chat}})
    forecast = Forecast(submitter.intake.admission, submitter.catalogue.read_fleets, settings)
    refusals = replace(submitter.refusals, settings=settings, forecast=forecast)
    return replace(submitter, settings=settings, forecast=forecast, refusals=refusals)


#: Of each of the 256 tokens that it may get, nothing was learned.
RUNS_S = 256 * 0.01


@pytest.mark.usefixtures("measured")
def test_a_caller_who_waits_gets_a_place_only_where_the_pool_s_latency_goal_is_met(
    submitter: Submitter, door: Any, app: App
) -> None:
    door.rates = to_json({"chat": PoolRates(100.0, run_s_per_token=0.01)})
    fast = with_goal(submitter, 5.0)
    for asked in (replace(DRAFT, background=False), replace(DRAFT, stream=True), replace(DRAFT, max_wait_s=2.0)):
        fast.submit(asked, app)

    # The pool drains 1000 tokens a second. A background job has only its own max_wait.
    within_s = [4 - RUNS_S, 4 - RUNS_S, 2.0]
    assert [ask.candidates[0].ahead_cap_tokens for [ask] in door.asked] == pytest.approx(
        [1000 * each_s for each_s in within_s], abs=1
    )


@pytest.mark.usefixtures("measured")
def test_a_refusal_for_the_latency_goal_names_it(submitter: Submitter, door: Any, app: App) -> None:
    door.refusal = Refusal("wait", 500, 150_000, 150_000, NO_RATES, cap_tokens=5000)
    error = refused(with_goal(submitter, 2.0), app, replace(DRAFT, background=False, max_wait_s=60.0))

    assert "must start within 1.6 s to meet its pool's latency goal of 2 s." in str(error)
    assert error.reason == "wait"


def test_a_goal_is_held_by_the_settings_rate_until_one_is_measured(
    submitter: Submitter, door: Any, app: App, fleet: dict[str, Fleet]
) -> None:
    fleet["chat"] = Fleet("chat", 1, 1, 10, 10, None, None)
    door.backlog["chat.normal"] = Load(10, 3000, 1, 3000)
    with_goal(submitter, 5.0).submit(replace(DRAFT, background=False), app)

    # Two jobs a second, of 300 tokens each, in 80 % of the goal.
    assert door.asked[0][0].candidates[0].ahead_cap_tokens == pytest.approx(4 * 2 * 300, abs=2)


def test_an_answer_that_takes_longer_than_the_goal_is_refused_at_once_and_counted(
    submitter: Submitter, door: Any, app: App
) -> None:
    door.rates = to_json({"chat": PoolRates(None, run_s_per_token=0.01)})
    fast = with_goal(submitter, 2.0)
    with pytest.raises(GoalMissed, match=r"about 2\.6 s, and pool 'chat' accepts up to 1\.6 s, 80% of its goal"):
        fast.submit(replace(DRAFT, background=False), app)

    assert door.steps == []
    assert [(queue, reason) for _, queue, reason, _, _ in door.refused] == [("chat.normal", "latency_goal")]
    assert fast.submit(replace(DRAFT, background=False, max_tokens=100), app).queue == "chat.normal"
    assert fast.submit(DRAFT, app).queue == "chat.normal", "the goal is not for background jobs"


def test_an_answer_that_takes_longer_than_the_goal_spills_at_once(paid: Submitter, door: Any, app: App) -> None:
    door.rates = to_json({"chat": PoolRates(None, run_s_per_token=0.01)})
    with_goal(paid, 2.0).submit(replace(DRAFT, background=False), app)

    [[ask]] = door.asked
    assert [each.queue for each in ask.candidates] == ["overflow.normal"]
    assert ask.candidates[0].reason.startswith("latency goal: ")


@pytest.fixture
def without_gpu(paid: Submitter) -> Submitter:
    """As `paid`, where the paid API alone answers the pool."""
    pools = {"chat": paid.settings.pools["chat"].model_copy(update={"engine": "openai"})}
    return replace(paid, settings=paid.settings.model_copy(update={"pools": pools}))


def test_without_a_gpu_every_job_goes_to_the_paid_api(without_gpu: Submitter, door: Any, app: App) -> None:
    accepted = without_gpu.submit(DRAFT, app)

    assert accepted.queue == "overflow.normal"
    assert [each.queue for each in door.asked[0][0].candidates] == ["overflow.normal"]


def test_without_a_gpu_a_job_that_must_not_go_to_the_paid_api_is_refused_by_its_field(
    without_gpu: Submitter, door: Any, app: App
) -> None:
    spelling = Spelling("input", "max_output_tokens", "job.")
    with pytest.raises(InvalidRequest, match="the paid API alone") as raised:
        without_gpu.submit(replace(DRAFT, spelling=spelling, overflow=Overflow.NEVER), app)

    assert raised.value.param == "job.overflow"
    assert door.steps == []


def test_without_a_gpu_a_model_without_a_price_is_the_field_that_is_at_fault(
    without_gpu: Submitter, door: Any, app: App
) -> None:
    unpriced = Tariff.of(without_gpu.settings.model_copy(update={"prices": {}}))
    draft = replace(DRAFT, spelling=Spelling("input", "max_output_tokens", "job."))
    with pytest.raises(InvalidRequest, match="No price is listed") as raised:
        replace(without_gpu, tariff=lambda: unpriced).submit(draft, app)

    assert raised.value.param == "model"
    assert door.steps == []


@pytest.mark.parametrize("workers", [0, 1])
def test_without_a_gpu_a_closed_paid_api_is_an_outage(
    workers: int, without_gpu: Submitter, door: Any, app: App, fleet: dict[str, Fleet]
) -> None:
    fleet[OVERFLOW] = Fleet(OVERFLOW, workers, workers, 0, 0, None, None)
    door.next_worker = "process", None
    with pytest.raises(OverflowUnavailable if workers else OverflowUnserved):
        without_gpu.submit(DRAFT, app)
    assert door.steps == []


def test_without_a_gpu_and_without_money_a_job_is_refused(
    without_gpu: Submitter, door: Any, app: App, accounts: list[Account]
) -> None:
    accounts.append(spent(app, "5"))
    with pytest.raises(BudgetExceeded):
        without_gpu.submit(DRAFT, replace(app, limits=AppLimits(day_usd=Decimal(5))))
    assert door.steps == []


LATER = {"not_before": datetime.now(UTC) + timedelta(hours=1), "background": True}


@pytest.fixture
def delaying(door: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Accepts of jobs that start later, without Postgres."""
    monkeypatch.setattr("api.door.submit.insert_batch", door.insert_batch)
    monkeypatch.setattr("api.door.submit.count_delayed", lambda *_: 0)


@pytest.mark.usefixtures("delaying")
@pytest.mark.parametrize(
    ("which", "changes", "param"),
    [
        ("paid", {"overflow": Overflow.ONLY, "max_cost_usd": Decimal(0)}, "job.max_cost_usd"),
        ("submitter", {"overflow": Overflow.ONLY}, "job.overflow"),
        ("without_gpu", {"overflow": Overflow.NEVER}, "job.overflow"),
    ],
    ids=["too dear", "no paid API", "not served"],
)
def test_a_job_that_can_never_run_is_refused_also_if_it_starts_later(
    which: str, changes: dict[str, Any], param: str, request: pytest.FixtureRequest, door: Any, app: App
) -> None:
    submitter: Submitter = request.getfixturevalue(which)
    draft = replace(DRAFT, spelling=Spelling("input", "max_output_tokens", "job."), **changes)
    messages = []
    for each in (draft, replace(draft, **LATER)):
        with pytest.raises(InvalidRequest) as raised:
            submitter.submit(each, app)
        assert raised.value.param == param
        messages.append(str(raised.value))

    assert messages[0] == messages[1]
    assert door.steps == []


@pytest.mark.usefixtures("delaying")
def test_what_may_be_different_by_then_does_not_refuse_a_job_that_starts_later(
    paid: Submitter, door: Any, app: App, accounts: list[Account], fleet: dict[str, Fleet]
) -> None:
    door.next_worker = "process", None
    del fleet[OVERFLOW]
    accounts.append(spent(app, "5"))
    door.refusal = FULL
    draft = replace(DRAFT, overflow=Overflow.ONLY)
    with pytest.raises(OverflowUnserved):
        paid.submit(draft, app)

    accepted = paid.submit(replace(draft, **LATER), replace(app, limits=AppLimits(day_usd=Decimal(5))))

    assert (accepted.state, accepted.queue) == (JobState.WAITING, "overflow.normal")
