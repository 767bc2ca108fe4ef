"""An overflow worker's money, end to end in the use case: reserved before each call, settled after it, or refused."""

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from decimal import Decimal
from functools import partial
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from redis import Redis

from headrace.broker.admission import Admission
from headrace.broker.rates import Pace
from headrace.config import BudgetSettings, Price, Settings
from headrace.domain.attempts import Usage
from headrace.domain.jobs import Job
from headrace.domain.limits import ProviderRate, ProviderRates
from headrace.domain.prompts import Message, Sampling
from headrace.domain.queues import Lane, Overflow, Route, Ticket
from headrace.domain.states import JobState
from headrace.errors import (
    EngineBusy,
    EngineFault,
    EngineUnavailable,
    ModelUnavailable,
    PromptRejected,
    StoreBusy,
    StoreUnavailable,
    TooFewAnswers,
)
from headrace.policies.pricing import Tariff, ceiling
from headrace.policies.retries import RetryRules
from headrace.store import Store, apps, jobs
from headrace.store.money import budgets
from headrace.tables import jobs as jobs_table
from headrace.tables import ledger
from tests.integration.workers.conftest import Make, job, run_job
from workers.engines.base import Generation, GenerationRequest, OnDelta, Progress
from workers.paid import FIRST_S, Breaker, Lockout, Pacer, Payer
from workers.running.bill import Bill
from workers.running.execute import Execute
from workers.running.publisher import Notices

PRICE = Price(input_usd_per_mtok=Decimal(10), output_usd_per_mtok=Decimal(100), source="test", version="v1")
MESSAGES = (Message("user", "What is a headrace?"),)
MOST = ceiling(PRICE, MESSAGES, Sampling(16)).usd
#: 9 prompt and 4 output tokens.
PAID = Decimal("0.00049")


@dataclass
class Provider:
    """Answers as a paid API, or fails as one, and counts its calls."""

    name: str = "openai"
    continues: bool = False
    error: Exception | None = None
    rates: ProviderRates | None = None
    tier: str | None = None
    asked_tiers: list[str | None] = field(default_factory=list)
    during: Callable[[], None] = lambda: None
    calls: int = 0

    def generate(self, request: GenerationRequest, on_delta: OnDelta | None = None) -> Generation:
        self.calls += 1
        self.asked_tiers.append(request.tier)
        self.during()
        if self.error is not None:
            raise self.error
        return Generation("An answer.", Usage(9, 4), "stop", "gpt-4o-mini-2024-07-18", rates=self.rates, tier=self.tier)

    def progress(self) -> dict[str, Progress]:
        return {}


@pytest.fixture
def provider() -> Provider:
    return Provider()


@pytest.fixture
def make_execute(
    bare_worker: Make, store: Store, settings: Settings, redis: Redis, admission: Admission, provider: Provider
) -> Callable[..., Execute]:
    def make(
        day_usd: Decimal | None = Decimal(1_000_000),
        *,
        price: Price | None = PRICE,
        models: Mapping[str, str] | None = None,
    ) -> Execute:
        """Args: models: what else answers, at the same price, by the model that is asked for."""
        overflow = settings.overflow.model_copy(update={"models": dict(models or {})})
        prices = {model: price for model in (overflow.model, *overflow.models.values()) if price}
        tariff = Tariff.of(settings.model_copy(update={"prices": prices, "overflow": overflow}))
        lockout = Lockout(tariff.all_api_models, tariff.api_models_in_use, partial(Breaker, probe_s=60))
        pacer = Pacer(Pace(redis), reopened=lambda: None)
        return bare_worker(
            provider,
            Notices(admission, ThreadPoolExecutor(1)),
            pool="overflow",
            bill=Bill(tariff, Route.OVERFLOW, "host"),
            payer=Payer(store, tariff.api_model, BudgetSettings(day_usd=day_usd), lockout, pacer),
        )

    return make


@pytest.fixture
def spilled(store: Store, queued: Callable[..., Ticket]) -> Callable[..., Ticket]:
    """A job in the overflow queue."""

    def one(**changes: Any) -> Ticket:
        ticket = queued(messages=MESSAGES, sampling=Sampling(16), **changes)
        with store.begin() as db:
            moved = sa.update(jobs_table).where(jobs_table.c.id == ticket.job_id)
            db.execute(moved.values(queue="overflow.normal", route=Route.OVERFLOW))
        return ticket

    return one


def run(execute: Execute, store: Store, ticket: Ticket) -> Job:
    run_job(execute, ticket.job_id, ticket.enqueue_no)
    return job(store, ticket)


def spent(store: Store) -> list[tuple[Decimal, Decimal]]:
    """Of all apps together today: reserved and spent."""
    with store.begin() as db:
        found = budgets.balances(db, BudgetSettings()).accounts
    return [(each.reserved_usd, each.spent_usd) for each in found if each.app is None and each.period == "day"]


def entries(store: Store) -> list[tuple[str, Decimal, bool]]:
    with store.begin() as db:
        rows = db.execute(sa.select(ledger.c.kind, ledger.c.usd, ledger.c.estimated).order_by(ledger.c.id))
        return [tuple(row) for row in rows]


def test_without_a_budget_no_call_is_made_and_the_job_goes_to_its_own_pool(
    make_execute: Callable[..., Execute], provider: Provider, store: Store, spilled: Callable[..., Ticket]
) -> None:
    waiting = run(make_execute(None), store, spilled())

    assert (waiting.state, waiting.queue) == (JobState.WAITING, "chat.normal")
    assert "no budget is set" in waiting.route_reason
    assert (provider.calls, spent(store)) == (0, [(Decimal(0), Decimal(0))])


def test_an_answer_costs_what_the_provider_counted(
    make_execute: Callable[..., Execute], store: Store, spilled: Callable[..., Ticket]
) -> None:
    done = run(make_execute(MOST), store, spilled())

    assert (done.state, done.usd) == (JobState.SUCCEEDED, PAID)
    assert spent(store) == [(Decimal(0), PAID)]
    assert entries(store) == [("api", PAID, False)]


def test_a_call_is_billed_at_the_price_at_which_its_money_was_reserved(
    make_execute: Callable[..., Execute], provider: Provider, store: Store, spilled: Callable[..., Ticket]
) -> None:
    execute = make_execute(MOST)
    dearer = PRICE.model_copy(update={"output_usd_per_mtok": PRICE.output_usd_per_mtok * 1000, "version": "dearer"})

    def change() -> None:
        execute.bill.tariff = replace(execute.bill.tariff, api={"gpt-4o-mini": dearer})

    provider.during = change
    done = run(execute, store, spilled())
    waiting = run(execute, store, spilled())

    assert (done.usd, done.price_version) == (PAID, PRICE.version)
    assert spent(store) == [(Decimal(0), PAID)]
    assert "has 0.00" in waiting.route_reason, "the next call is reserved at the new price, which the budget lacks"


def test_without_money_nothing_is_called_and_the_job_waits_for_its_own_pool(
    make_execute: Callable[..., Execute], store: Store, spilled: Callable[..., Ticket], provider: Provider
) -> None:
    waiting = run(make_execute(MOST - Decimal("0.000001")), store, spilled())

    assert provider.calls == 0
    assert (waiting.state, waiting.queue, waiting.route) == (JobState.WAITING, "chat.normal", Route.POOL)
    assert waiting.route_reason.startswith("from overflow: No money: the budget of all apps together, 0.00")
    assert (waiting.attempt, waiting.started_at) == (0, None)
    assert entries(store) == []


def test_a_job_for_overflow_only_fails_when_the_money_is_gone(
    make_execute: Callable[..., Execute], store: Store, spilled: Callable[..., Ticket], provider: Provider
) -> None:
    failed = run(make_execute(Decimal(0)), store, spilled(overflow=Overflow.ONLY))

    assert provider.calls == 0
    assert (failed.state, failed.error_code, failed.usd) == (JobState.FAILED, "budget_exceeded", 0)


def test_an_app_s_own_budget_binds_it(
    make_execute: Callable[..., Execute], store: Store, spilled: Callable[..., Ticket], provider: Provider
) -> None:
    with store.begin() as db:
        apps.set_limits(db, "test", {"month_usd": Decimal(0)})
    waiting = run(make_execute(), store, spilled())

    assert provider.calls == 0
    assert "this app's budget, 0 USD a month" in waiting.route_reason


@pytest.mark.parametrize(
    ("changes", "price", "reason"),
    [
        ({"overflow": Overflow.NEVER}, PRICE, "never"),
        ({"max_cost_usd": MOST - Decimal("0.000001")}, PRICE, "max_cost_usd"),
        ({}, None, "No price is listed"),
    ],
    ids=["never", "too dear", "no price"],
)
def test_a_job_that_should_not_be_here_is_never_sent_out(
    make_execute: Callable[..., Execute],
    store: Store,
    spilled: Callable[..., Ticket],
    provider: Provider,
    changes: dict[str, Any],
    price: Price | None,
    reason: str,
) -> None:
    waiting = run(make_execute(price=price), store, spilled(**changes))

    assert provider.calls == 0
    assert (waiting.state, waiting.queue) == (JobState.WAITING, "chat.normal")
    assert reason in waiting.route_reason


def billed(error: Exception) -> Exception:
    error.may_be_billed = True  # type: ignore[attr-defined]
    return error


def test_a_call_of_no_use_whose_tokens_the_api_counted_costs_these(
    make_execute: Callable[..., Execute], store: Store, spilled: Callable[..., Ticket], provider: Provider
) -> None:
    provider.error = error = billed(PromptRejected("withheld"))
    error.billed_tokens = (1_000, 0, 0, 0)  # type: ignore[attr-defined]
    ended = run(make_execute(), store, spilled())

    usd = PRICE.input_usd_per_mtok / 1000
    assert (ended.state, ended.usd) == (JobState.FAILED, 0)
    assert (spent(store), entries(store)) == ([(Decimal(0), usd)], [("waste", usd, False)])


@pytest.mark.parametrize(("overflow", "state"), [("allow", JobState.WAITING), ("only", JobState.FAILED)])
def test_a_job_of_which_the_api_makes_too_few_answers_goes_to_its_own_pool_if_it_may(
    make_execute: Callable[..., Execute],
    store: Store,
    spilled: Callable[..., Ticket],
    provider: Provider,
    overflow: str,
    state: JobState,
) -> None:
    provider.error = error = billed(TooFewAnswers("1 of 3"))
    error.billed_tokens = (1_000, 0, 0, 0)  # type: ignore[attr-defined]
    ended = run(make_execute(), store, spilled(overflow=Overflow(overflow)))

    usd = PRICE.input_usd_per_mtok / 1000
    assert (ended.state, provider.calls) == (state, 1)
    assert ended.queue == ("chat.normal" if state is JobState.WAITING else "overflow.normal")
    assert (spent(store), entries(store)) == ([(Decimal(0), usd)], [("waste", usd, False)])


@pytest.mark.parametrize(
    ("error", "state", "usd"),
    [
        (EngineFault("refused"), JobState.WAITING, Decimal(0)),
        (EngineBusy("too many"), JobState.WAITING, Decimal(0)),
        (EngineUnavailable("no quota"), JobState.WAITING, Decimal(0)),
        (ModelUnavailable("not this model"), JobState.WAITING, Decimal(0)),
        (PromptRejected("too long"), JobState.FAILED, Decimal(0)),
        (billed(EngineFault("cut off")), JobState.WAITING, MOST),
        (billed(PromptRejected("withheld")), JobState.FAILED, MOST),
    ],
    ids=["refused", "too many", "no quota", "no such model", "rejected", "cut off", "withheld"],
)
def test_a_call_without_an_answer_costs_nothing_or_the_most_it_can(
    make_execute: Callable[..., Execute],
    store: Store,
    spilled: Callable[..., Ticket],
    provider: Provider,
    error: Exception,
    state: JobState,
    usd: Decimal,
) -> None:
    provider.error = error
    ended = run(make_execute(), store, spilled())

    assert (ended.state, ended.usd) == (state, 0)
    assert spent(store) == [(Decimal(0), usd)]
    counted = [] if isinstance(error, EngineBusy | EngineUnavailable) else [("waste", usd, usd > 0)]
    assert entries(store) == counted


def test_an_api_that_has_locked_us_out_is_left_alone_and_its_jobs_go_to_their_own_pool(
    make_execute: Callable[..., Execute], store: Store, spilled: Callable[..., Ticket], provider: Provider
) -> None:
    execute, provider.error = make_execute(), EngineUnavailable("The paid API answered 429 (insufficient_quota).")
    first, second = (run(execute, store, spilled()) for _ in range(2))
    only = run(execute, store, spilled(overflow=Overflow.ONLY))

    assert provider.calls == 1
    assert [(job.state, job.queue, job.attempt) for job in (first, second)] == [
        (JobState.WAITING, "chat.normal", 0),
        (JobState.WAITING, "chat.normal", 0),
    ]
    assert "insufficient_quota" in first.route_reason
    assert (only.state, only.error_code) == (JobState.FAILED, "overflow_unavailable")
    assert execute.payer is not None
    assert execute.payer.lockout.is_open
    assert spent(store) == [(Decimal(0), Decimal(0))]


def test_a_model_that_is_not_for_us_is_left_alone_and_jobs_of_others_are_answered(
    make_execute: Callable[..., Execute], store: Store, spilled: Callable[..., Ticket], provider: Provider
) -> None:
    execute, provider.error = make_execute(models={"big": "gpt-4o"}), ModelUnavailable("The paid API answered 403.")
    first = run(execute, store, spilled(model="big"))
    provider.error = None
    second, other = run(execute, store, spilled(model="big")), run(execute, store, spilled())

    assert provider.calls == 2
    assert [(job.state, job.queue, job.attempt) for job in (first, second)] == [
        (JobState.WAITING, "chat.normal", 0),
        (JobState.WAITING, "chat.normal", 0),
    ]
    assert first.route_reason == "from overflow: The paid API answered 403."
    assert second.route_reason == "from overflow: The paid API has locked us out for now."
    assert (other.state, other.usd) == (JobState.SUCCEEDED, PAID)


def test_a_job_that_was_not_let_in_waits_as_long_as_it_is_told_and_was_never_started(
    make_execute: Callable[..., Execute], store: Store, spilled: Callable[..., Ticket], provider: Provider
) -> None:
    provider.error = EngineBusy("too many")
    provider.error.retry_after_s = 20.0
    waiting = run(make_execute(), store, spilled())

    with store.begin() as db:
        row = db.execute(sa.select(jobs_table.c.not_before, jobs_table.c.queued_at, sa.func.now().label("now"))).one()
    assert 19 <= (row.not_before - row.now).total_seconds() <= 25
    assert (waiting.state, waiting.queue) == (JobState.WAITING, "overflow.normal")
    assert (waiting.attempt, waiting.started_at) == (0, None)


def not_before_s(store: Store, ticket: Ticket) -> float:
    """Seconds until a waiting job is due."""
    with store.begin() as db:
        this = sa.select(jobs_table.c.not_before - sa.func.now()).where(jobs_table.c.id == ticket.job_id)
        return float(db.scalars(this).one().total_seconds())


def test_a_job_for_which_the_api_has_no_room_waits_and_was_never_started(
    make_execute: Callable[..., Execute], store: Store, spilled: Callable[..., Ticket], provider: Provider
) -> None:
    execute = make_execute()
    provider.rates = ProviderRates(time.monotonic(), ProviderRate(limit=10, left=0, full_in_s=200))
    run(execute, store, spilled())
    assert execute.takes()
    early = spilled()
    waiting = run(execute, store, early)

    assert provider.calls == 1
    assert (waiting.state, waiting.queue) == (JobState.WAITING, "overflow.normal")
    assert (waiting.attempt, waiting.started_at) == (0, None)
    assert 15 <= not_before_s(store, early) <= 25, "one call in twenty seconds"
    assert not execute.takes(), "the others wait where they are"
    assert spent(store) == [(Decimal(0), PAID)], "no money is held for it"


def test_one_that_was_put_off_puts_off_the_others(
    make_execute: Callable[..., Execute], store: Store, spilled: Callable[..., Ticket], provider: Provider
) -> None:
    provider.error = EngineBusy("too many")
    provider.error.retry_after_s, provider.error.rates = 20.0, ProviderRates(time.monotonic())
    run(make_execute(), store, spilled())
    other = spilled()
    run(make_execute(), store, other)

    assert provider.calls == 1
    assert 19 <= not_before_s(store, other) <= 25


def while_waiting_for_its_pace(execute: Execute, redis: Redis, act: Callable[[str], None]) -> None:
    """Let the next call wait a moment in its slot, and do this meanwhile, with its name."""
    pace, asked = Pace(redis), list[str]()

    class Asked(Pace):
        def ask(self, model: str, call: str, tokens: int) -> float:
            asked.append(call)
            return super().ask(model, call, tokens)

    def meanwhile(_: float) -> None:
        act(asked[-1])
        pace.hear("gpt-4o-mini", ProviderRates(time.monotonic(), ProviderRate(limit=10, left=10, full_in_s=0)))

    pace.hear("gpt-4o-mini", ProviderRates(time.monotonic(), ProviderRate(limit=10, left=0, full_in_s=2)))
    assert execute.payer is not None
    execute.payer = replace(execute.payer, pacer=Pacer(Asked(redis), reopened=lambda: None, sleep=meanwhile))


def test_a_job_that_is_cancelled_while_it_waits_for_its_pace_is_not_called_for(
    make_execute: Callable[..., Execute],
    store: Store,
    redis: Redis,
    spilled: Callable[..., Ticket],
    provider: Provider,
) -> None:
    execute, ticket = make_execute(), spilled()

    def cancel(request_id: str) -> None:
        with store.begin() as db:
            jobs.cancel(db, ticket.app_id, ticket.job_id)
        execute.state.attempts.stop(request_id, "cancelled")

    while_waiting_for_its_pace(execute, redis, cancel)
    ended = run(execute, store, ticket)

    assert (provider.calls, ended.state) == (0, JobState.CANCELLED)
    assert spent(store) == [(Decimal(0), Decimal(0))]


def test_a_worker_that_leaves_begins_no_call_more(
    make_execute: Callable[..., Execute],
    store: Store,
    redis: Redis,
    spilled: Callable[..., Ticket],
    provider: Provider,
) -> None:
    execute, ticket = make_execute(), spilled()
    while_waiting_for_its_pace(execute, redis, lambda _: execute.state.ready.clear())
    waiting = run(execute, store, ticket)

    assert (provider.calls, waiting.state, waiting.queue) == (0, JobState.WAITING, "overflow.normal")
    assert (waiting.attempt, waiting.started_at) == (0, None)
    assert spent(store) == [(Decimal(0), Decimal(0))]


TIERED = PRICE.model_copy(update={"tiers": {"flex": Decimal("0.5")}})
HOUR_S = 3600.0


@pytest.mark.parametrize(
    ("changes", "price", "tier"),
    [
        ({"lane": Lane.LOW, "max_wait_s": HOUR_S}, TIERED, "flex"),
        ({"lane": Lane.BATCH, "max_wait_s": HOUR_S}, TIERED, "flex"),
        ({"lane": Lane.LOW, "max_wait_s": 600.0}, TIERED, "default"),
        ({"lane": Lane.NORMAL, "max_wait_s": HOUR_S}, TIERED, "default"),
        ({"lane": Lane.LOW, "max_wait_s": HOUR_S}, PRICE, None),
    ],
    ids=["low", "batch", "no time", "normal", "no tiers"],
)
def test_a_job_that_has_time_goes_to_the_cheaper_tier(
    make_execute: Callable[..., Execute],
    store: Store,
    spilled: Callable[..., Ticket],
    provider: Provider,
    changes: dict[str, Any],
    price: Price,
    tier: str | None,
) -> None:
    provider.tier = tier
    done = run(make_execute(price=price), store, spilled(**changes))

    assert provider.asked_tiers == [tier]
    usd = PAID / 2 if tier == "flex" else PAID
    assert (done.state, done.usd, spent(store)) == (JobState.SUCCEEDED, usd, [(Decimal(0), usd)])
    assert done.price_version == ("v1/flex" if tier == "flex" else "v1")


def test_what_the_provider_served_otherwise_costs_what_it_says(
    make_execute: Callable[..., Execute], store: Store, spilled: Callable[..., Ticket], provider: Provider
) -> None:
    provider.tier = "default"
    done = run(make_execute(price=TIERED), store, spilled(lane=Lane.LOW, max_wait_s=HOUR_S))

    assert provider.asked_tiers == ["flex"]
    assert (done.usd, done.price_version) == (PAID, "v1")


def test_the_cheaper_tier_is_left_when_a_deadline_comes_near(
    make_execute: Callable[..., Execute], store: Store, spilled: Callable[..., Ticket], provider: Provider
) -> None:
    execute, ticket = make_execute(price=TIERED), spilled(lane=Lane.LOW, max_wait_s=HOUR_S)
    provider.error = EngineBusy("The paid API answered 429 (resource_unavailable).")
    run(execute, store, ticket)
    with store.begin() as db:
        near = sa.update(jobs_table).values(not_before=sa.func.now(), finish_by=sa.func.now() + timedelta(minutes=10))
        db.execute(near)
        [again] = jobs.enqueue_due(db)
    provider.error = None
    run(execute, store, again)

    assert provider.asked_tiers == ["flex", "default"]


def test_the_cheaper_tier_is_for_first_attempts(
    make_execute: Callable[..., Execute], store: Store, spilled: Callable[..., Ticket], provider: Provider
) -> None:
    execute, ticket = make_execute(price=TIERED), spilled(lane=Lane.LOW, max_wait_s=HOUR_S)
    provider.error = EngineFault("broken")
    run(execute, store, ticket)
    with store.begin() as db:
        db.execute(sa.update(jobs_table).values(not_before=sa.func.now()))
        [again] = jobs.enqueue_due(db)
    provider.error = None
    run(execute, store, again)

    assert provider.asked_tiers == ["flex", "default"], "a refusal would count now, and be its end"


def test_a_refusal_of_the_cheaper_tier_puts_off_no_other_call(
    make_execute: Callable[..., Execute], store: Store, spilled: Callable[..., Ticket], provider: Provider
) -> None:
    execute = make_execute(price=TIERED)
    provider.error = EngineBusy("The paid API answered 429 (resource_unavailable).")
    provider.error.retry_after_s, provider.error.rates = 20.0, ProviderRates(time.monotonic())
    refused = spilled(lane=Lane.LOW, max_wait_s=HOUR_S)
    run(execute, store, refused)
    assert 19 <= not_before_s(store, refused) <= 25
    provider.error = None
    done = run(execute, store, spilled())

    assert provider.asked_tiers == ["flex", "default"]
    assert done.state == JobState.SUCCEEDED


def test_while_one_tries_whether_the_api_is_back_the_others_wait(
    make_execute: Callable[..., Execute], store: Store, spilled: Callable[..., Ticket], provider: Provider
) -> None:
    execute = make_execute()
    assert execute.payer is not None
    clock_s = [0.0]
    lockout = Lockout(["gpt-4o-mini"], ["gpt-4o-mini"], partial(Breaker, probe_s=60, clock=lambda: clock_s[0]))
    execute.payer = replace(execute.payer, lockout=lockout)
    lockout.account_failed("gpt-4o-mini")
    assert execute.takes()
    clock_s[0] += FIRST_S
    assert lockout.admits("gpt-4o-mini"), "the probe"
    assert not execute.takes(), "nor are they taken and put back, over and over"
    waiting = run(execute, store, spilled(overflow=Overflow.ONLY))

    assert provider.calls == 0
    assert (waiting.state, waiting.attempt) == (JobState.WAITING, 0)
    lockout.is_unsure("gpt-4o-mini")
    assert execute.takes(), "one more may try"


def test_a_job_whose_money_cannot_be_asked_for_is_given_back(
    make_execute: Callable[..., Execute],
    store: Store,
    spilled: Callable[..., Ticket],
    provider: Provider,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def away(*_: object) -> None:
        raise StoreUnavailable("a deadlock")

    monkeypatch.setattr("headrace.store.attempts.reserve_all", away)
    waiting = run(make_execute(), store, spilled())

    assert provider.calls == 0
    assert (waiting.state, waiting.queue, waiting.attempt) == (JobState.WAITING, "overflow.normal", 0)


@contextmanager
def locked_budgets(settings: Settings) -> Iterator[None]:
    """An operator's transaction on the budgets' rows, which stays open."""
    with psycopg.connect(settings.database_url.replace("+psycopg", "")) as db:
        db.execute("SELECT id FROM budgets FOR UPDATE")
        yield
        db.rollback()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer is given up sooner than the lock that it meets."""
    monkeypatch.setattr("headrace.connections.LOCK_TIMEOUT_MS", 200)
    monkeypatch.setattr("workers.running.execute.REWRITE_FOR_S", 1.0)


@pytest.mark.parametrize("error", [None, EngineFault("cut off"), EngineBusy("too many")])
def test_a_call_whose_budgets_are_locked_meanwhile_ends_once_and_is_settled_later(
    impatient: None,
    make_execute: Callable[..., Execute],
    store: Store,
    settings: Settings,
    spilled: Callable[..., Ticket],
    provider: Provider,
    error: Exception | None,
) -> None:
    execute, ticket = make_execute(), spilled()
    with ExitStack() as open_transactions:
        provider.during = lambda: open_transactions.enter_context(locked_budgets(settings))
        provider.error = error
        job = run(execute, store, ticket)
        assert provider.calls == 1
        assert job.state is (JobState.WAITING if error else JobState.SUCCEEDED)
        assert [entry for entry in entries(store) if entry[1]] == ([] if error else [("api", PAID, False)])
        assert spent(store) == [(MOST, Decimal(0))], "held until it is settled"
        with pytest.raises(StoreBusy), store.begin() as db:
            budgets.settle_late(db)

    with store.begin() as db:
        assert (budgets.settle_late(db), budgets.settle_late(db)) == (1, 0)
    assert spent(store) == [(Decimal(0), Decimal(0) if error else PAID)]


def test_a_rate_limit_counts_once_the_job_s_start_by_binds_it_no_more(
    make_execute: Callable[..., Execute], store: Store, spilled: Callable[..., Ticket], provider: Provider
) -> None:
    execute, ticket = make_execute(), spilled()
    provider.error = EngineFault("broken")
    run(execute, store, ticket)
    with store.begin() as db:
        db.execute(sa.update(jobs_table).values(not_before=sa.func.now()))
        [again] = jobs.enqueue_due(db)
    provider.error = EngineBusy("too many")
    failed = run(execute, store, again)

    assert (failed.state, failed.error_code, failed.attempt) == (JobState.FAILED, "engine_busy", 2)


def test_without_a_pool_of_ours_a_job_waits_for_the_paid_api_until_its_start_by(
    make_execute: Callable[..., Execute], store: Store, spilled: Callable[..., Ticket], provider: Provider
) -> None:
    execute = replace(make_execute(Decimal(0)), rules=RetryRules(2, ("chat",)))
    waiting = run(execute, store, spilled())

    assert provider.calls == 0
    assert (waiting.state, waiting.queue, waiting.route) == (JobState.WAITING, "overflow.normal", Route.OVERFLOW)
    assert waiting.route_reason.startswith("waits: No money: the budget of all apps together")
    assert (waiting.attempt, waiting.started_at) == (0, None)
    assert 1.5 < not_before_s(store, waiting.ticket) <= 2.5
    with store.begin() as db:
        db.execute(sa.update(jobs_table).values(start_by=sa.func.now()))
        jobs.expire(db, [waiting.id])
        expired = jobs.find(db, waiting.app_id, waiting.id)
    assert (expired.state, expired.usd) == (JobState.EXPIRED, 0)
