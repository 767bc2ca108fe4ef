"""Jobs in Postgres against a model of them in plain Python, through whatever may happen to them and their workers."""

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from itertools import combinations_with_replacement, count
from threading import Barrier
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck
from hypothesis import settings as effort
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from redis import Redis

from headrace.config import BudgetSettings, Price
from headrace.domain.apps import App
from headrace.domain.attempts import AttemptEnd, Claim, HandBack, HeldAttempt, Reroute, Usage
from headrace.domain.fleet import NO_WORKER, WorkerInfo, WorkerReport
from headrace.domain.ids import new_id
from headrace.domain.jobs import Inserted, JobSpec
from headrace.domain.limits import Cost
from headrace.domain.prompts import Message, Sampling
from headrace.domain.queues import Candidate, Lane, Route
from headrace.domain.states import TERMINAL, JobState
from headrace.errors import LockHeld
from headrace.store import Store, attempts, jobs
from headrace.store.fleet import workers
from headrace.store.jobs.insertion import insert_batch
from headrace.tables import apps as apps_table
from headrace.tables import attempts as attempts_table
from headrace.tables import budgets as budgets_table
from headrace.tables import deliveries as deliveries_table
from headrace.tables import jobs as jobs_table
from headrace.tables import ledger, metadata, plugin_versions
from headrace.tables import workers as workers_table
from scheduler import sweep
from scheduler.deps import ControlDeps
from scheduler.rescue import Patience, rescue
from tests import one_attempt
from tests.integration.conftest import empty

EXAMPLES, STEPS = 50, 50
ROUNDS = 5
MAX_ATTEMPTS = 3
WORKERS, MOST_OPEN = 2, 4
LEASE_S = 600.0
#: The most that a call to the paid API can cost: more than any of them does.
CEILING_USD = Decimal(1)
#: What `rescue` books for an attempt on an own GPU: the prompt's price.
LOST_USD = Decimal("0.000004")
HOOK = "https://receiver.example/hook"
NOTHING = Decimal(0)
NO_COST = Cost(NOTHING, "v1")
UNSTARTED = {JobState.WAITING, JobState.QUEUED}
OPEN = set(JobState) - TERMINAL
WRITES = ("succeed", "succeed", "abort", "fail", "retry", "hand back", "hand back unused", "hand back elsewhere")
EVENTS = (
    *("a message comes again", "start_by", "finish_by", "cancel", "cancel what runs", "disown", "renew"),
    *("end_lease", "a worker is too slow", "expire", "publish_due", "rescue"),
)

IS_OVER = jobs_table.c.state.in_(TERMINAL)
#: Each finds what must not be.
BROKEN = {
    "an end that is none, or has no time": """
        SELECT id FROM jobs WHERE (ended_at IS NULL) = (state IN ('succeeded', 'failed', 'cancelled', 'expired'))
    """,
    "a gap between attempts, or one that is not there": """
        SELECT id FROM jobs LEFT JOIN attempts ON job_id = id
        GROUP BY id HAVING count(number) <> attempt OR count(number) <> coalesce(max(number), 0)
    """,
    "an attempt that no worker runs and that is not over": """
        SELECT job_id FROM attempts JOIN jobs ON id = job_id
        WHERE (outcome IS NULL) <> (state = 'running' AND number = attempt)
    """,
    "two bills for one job": """
        SELECT job_id FROM ledger WHERE kind <> 'waste' GROUP BY job_id HAVING count(*) > 1
    """,
    "a job that is told another sum than its bill's": """
        SELECT id FROM jobs WHERE usd <> (
            SELECT coalesce(sum(ledger.usd), 0) FROM ledger WHERE job_id = jobs.id AND kind <> 'waste'
        )
    """,
    "two entries for one claim": """
        SELECT usd FROM ledger WHERE NOT estimated GROUP BY usd HAVING count(*) > 1 AND usd > 0
    """,
    "two entries for one lost attempt": """
        SELECT job_id FROM ledger WHERE estimated GROUP BY job_id, attempt HAVING count(*) > 1
    """,
    "money set aside for nothing that runs": """
        SELECT job_id FROM attempts WHERE reserved_usd > 0 AND ended_at IS NOT NULL
        UNION ALL SELECT id FROM budgets WHERE reserved_usd <> (SELECT coalesce(sum(reserved_usd), 0) FROM attempts)
    """,
    "two webhooks for one end": "SELECT job_id FROM deliveries GROUP BY job_id HAVING count(*) > 1",
}


@dataclass(frozen=True, order=True)
class Right:
    """A claim, as the model knows it."""

    job: UUID
    attempt: int
    number: int
    worker: UUID

    @classmethod
    def of(cls, claim: Claim) -> "Right":
        return cls(claim.job_id, claim.attempt, claim.enqueue_no, claim.worker_id)


@dataclass
class Life:
    """A job.

    Attributes:
        tries: of each attempt, how it ended; None while it runs.
        entries: of the ledger, as (kind, attempt, USD).
        reserved, spent: what it added to the budgets.
    """

    is_paid: bool
    has_hook: bool
    state: JobState = JobState.QUEUED
    number: int = 1
    attempt: int = 0
    worker: UUID | None = None
    is_started: bool = False
    is_late: bool = False
    is_overdue: bool = False
    is_unwanted: bool = False
    usd: Decimal = NOTHING
    tries: dict[int, str | None] = field(default_factory=dict)
    entries: list[tuple[str, int, Decimal]] = field(default_factory=list)
    reserved: Decimal = NOTHING
    spent: Decimal = NOTHING

    @property
    def right(self) -> tuple[int, int, UUID | None]:
        return self.attempt, self.number, self.worker

    def leave(self, state: JobState, outcome: str, kind: str, usd: Decimal) -> None:
        """Its attempt is over."""
        self.state, self.worker = state, None
        self.tries[self.attempt] = outcome
        self.book(kind, usd)

    def book(self, kind: str, usd: Decimal) -> None:
        self.entries.append((kind, self.attempt, usd))
        self.settle(usd)

    def settle(self, usd: Decimal) -> None:
        self.spent += usd if self.reserved else NOTHING
        self.reserved = NOTHING


class Model:
    """What `docs/lifecycle.md` says, without Postgres. Each method returns what the real thing must."""

    def __init__(self) -> None:
        self.lives: dict[UUID, Life] = {}
        self.alive: set[UUID] = set()

    def held(self, right: Right) -> Life | None:
        life = self.lives[right.job]
        is_held = life.state is JobState.RUNNING and life.right == (right.attempt, right.number, right.worker)
        return life if is_held else None

    def claim(self, job: UUID, number: int, worker: UUID) -> Right | None:
        life = self.lives[job]
        if life.state is not JobState.QUEUED or life.number != number or worker not in self.alive:
            return None
        if life.is_overdue or (life.is_late and not life.is_started):
            return None
        life.state, life.worker, life.is_started = JobState.RUNNING, worker, True
        life.attempt += 1
        life.tries[life.attempt] = None
        return Right(job, life.attempt, number, worker)

    def reserve(self, right: Right) -> bool:
        life = self.held(right)
        if life:
            life.reserved = CEILING_USD
        return life is not None

    def finish(self, right: Right, target: JobState, end: AttemptEnd) -> bool:
        life = self.held(right)
        if life:
            life.usd = NOTHING if end.kind == "waste" else end.cost.usd
            life.leave(target, end.outcome, end.kind, end.cost.usd)
        return life is not None

    def retry(self, right: Right, end: AttemptEnd) -> bool:
        life = self.held(right)
        if life:
            target = JobState.CANCELLED if life.is_unwanted else JobState.WAITING
            life.leave(target, end.outcome, end.kind, end.cost.usd)
        return life is not None

    def hand_back(self, right: Right, end: AttemptEnd, reroute: Reroute | None) -> bool:
        life = self.held(right)
        if life and life.is_unwanted:
            life.leave(JobState.CANCELLED, end.outcome, end.kind, end.cost.usd)
        elif life:
            if end.cost.usd:
                life.book(end.kind, end.cost.usd)
            life.settle(end.cost.usd)
            del life.tries[life.attempt]
            life.attempt -= 1
            life.state, life.worker = JobState.WAITING, None
            if reroute:
                life.is_paid, life.is_started = False, life.attempt > 0
        return life is not None

    def cancel(self, job: UUID) -> JobState:
        life = self.lives[job]
        if life.state in UNSTARTED:
            life.state = JobState.CANCELLED
        elif life.state is JobState.RUNNING:
            life.is_unwanted = True
        return life.state

    def expire(self) -> int:
        ended = 0
        for life in self.lives.values():
            if life.state in UNSTARTED and life.is_late and not life.is_started:
                life.state, ended = JobState.EXPIRED, ended + 1
            elif life.state in UNSTARTED and life.is_overdue:
                life.state, ended = JobState.FAILED, ended + 1
        return ended

    def publish_due(self) -> None:
        for life in self.lives.values():
            if life.state is JobState.WAITING:
                life.state, life.number = JobState.QUEUED, life.number + 1

    def renew(self, worker: UUID) -> set[tuple[UUID, int, str | None]]:
        self.alive.add(worker)
        return {(job, life.number, self.stop(life)) for job, life in self.lives.items() if life.worker == worker}

    @staticmethod
    def stop(life: Life) -> str | None:
        return "cancelled" if life.is_unwanted else "deadline_exceeded" if life.is_overdue else None

    def end_lease(self, worker: UUID) -> None:
        self.alive.discard(worker)

    def pass_time(self, job: UUID, is_overdue: bool) -> None:
        life = self.lives[job]
        life.is_late, life.is_overdue = True, life.is_overdue or is_overdue

    def disown(self, right: Right) -> None:
        life = self.lives[right.job]
        if life.state is JobState.RUNNING and (life.worker, life.number) == (right.worker, right.number):
            life.worker = NO_WORKER

    def rescue(self) -> int:
        lost = [life for life in self.lives.values() if life.worker and life.worker not in self.alive]
        for life in lost:
            is_over = life.is_overdue or life.attempt >= MAX_ATTEMPTS
            target = JobState.FAILED if is_over else JobState.WAITING
            # A reservation counts as spent whole; without one, no call is known.
            usd = life.reserved if life.is_paid else LOST_USD
            life.leave(JobState.CANCELLED if life.is_unwanted else target, "lost", "waste", usd)
        return len(lost)


class Actors:
    """The same methods on Postgres, by what the product's own processes call."""

    def __init__(self, deps: ControlDeps, app: App, redis: Redis) -> None:
        self.deps, self.store, self.app, self.redis = deps, deps.store, app, redis

    def forget(self) -> None:
        """All but the app."""
        self.redis.flushall()
        with self.store.begin() as db:
            empty(db, (table for table in metadata.sorted_tables if table not in (apps_table, plugin_versions)))

    def start_worker(self) -> UUID:
        info = WorkerInfo(new_id(), "gpu@test", "host", "chat", "simulator", "test-model", max_running=32)
        with self.store.begin() as db:
            workers.register(db, info, LEASE_S)
        return info.id

    def submit(self, is_paid: bool, has_hook: bool) -> UUID:
        spec = JobSpec(
            new_id(),
            self.app.id,
            "test-model",
            "chat",
            Lane.NORMAL,
            (Message("user", "What is a headrace?"),),
            Sampling(max_tokens=16),
            prompt_tokens=8,
            max_wait_s=3600,
            deadline=datetime.now(UTC) + timedelta(hours=1),
            webhook_url=HOOK if has_hook else None,
        )
        queue = "overflow.normal" if is_paid else "chat.normal"
        (inserted,) = insert_batch(self.store, [(spec, Candidate(queue, 1, 1, None, "test"))])
        assert isinstance(inserted, Inserted)
        return spec.id

    def claim(self, job: UUID, number: int, worker: UUID) -> Claim | None:
        with self.store.autocommit() as db:
            return one_attempt.claim(db, job, number, worker, "simulator")

    def reserve(self, claim: Claim) -> bool:
        with self.store.begin() as db:
            outcome = one_attempt.reserve(db, claim, CEILING_USD, BudgetSettings(month_usd=Decimal(1_000_000)))
        assert outcome is None or isinstance(outcome, Claim)
        return outcome is not None

    def finish(self, claim: Claim, target: JobState, end: AttemptEnd) -> bool:
        is_several = claim.has_webhook or claim.route is Route.OVERFLOW
        with self.store.begin() if is_several else self.store.autocommit() as db:
            return one_attempt.finish(db, claim, target, end)

    def retry(self, claim: Claim, end: AttemptEnd) -> bool:
        with self.store.begin() as db:
            return attempts.retry(db, claim, end, delay_s=0) is not None

    def hand_back(self, claim: Claim, end: AttemptEnd, reroute: Reroute | None) -> bool:
        with self.store.begin() as db:
            return attempts.hand_back(db, claim, end, HandBack(reroute=reroute)) is not None

    def cancel(self, job: UUID) -> JobState:
        with self.store.begin() as db:
            return jobs.cancel(db, self.app.id, job).state

    def expire(self) -> int:
        return sweep.expire(self.deps)

    def publish_due(self) -> None:
        sweep.publish_due(self.deps)

    def renew(self, worker: UUID) -> set[tuple[UUID, int, str | None]]:
        with self.store.begin() as db:
            held = workers.renew(db, worker, LEASE_S, WorkerReport(0, ready=True)).held
        return {(each.job_id, each.enqueue_no, each.stop) for each in held}

    def end_lease(self, worker: UUID) -> None:
        self._change(workers_table, worker, lease_until=sa.func.now() - timedelta(seconds=1))

    def pass_time(self, job: UUID, is_overdue: bool) -> None:
        past = sa.func.now() - timedelta(seconds=1)
        self._change(jobs_table, job, start_by=past, **({"finish_by": past} if is_overdue else {}))

    def _change(self, table: sa.Table, key: UUID, **values: Any) -> None:
        with self.store.begin() as db:
            db.execute(sa.update(table).where(table.c.id == key).values(**values))

    def disown(self, claim: Claim) -> None:
        with self.store.begin() as db:
            workers.disown(db, claim.worker_id, HeldAttempt(claim.job_id, claim.enqueue_no, None))

    def rescue(self) -> int:
        with suppress(LockHeld):
            return rescue(self.deps, Patience(0))
        return 0


def seen(store: Store) -> dict[str, Any]:
    """All that Postgres has of jobs, in the model's words."""
    fates = [jobs_table.c[name] for name in ("id", "state", "enqueue_no", "attempt", "worker_id", "usd")]
    asked = [jobs_table.c[name].is_not(None) for name in ("cancel_requested_at", "started_at")]
    tries = [attempts_table.c[name] for name in ("job_id", "number", "outcome", "reserved_usd")]
    entries = [ledger.c[name] for name in ("job_id", "kind", "attempt", "usd")]
    sums = [sa.func.sum(budgets_table.c[name]) for name in ("reserved_usd", "spent_usd")]
    accounts = sa.select(*sums).group_by(budgets_table.c.app_id, budgets_table.c.period)
    with store.begin() as db:
        return {
            "jobs": {row[0]: tuple(row[1:]) for row in db.execute(sa.select(*fates, *asked))},
            "attempts": Counter(map(tuple, db.execute(sa.select(*tries)))),
            "ledger": Counter(map(tuple, db.execute(sa.select(*entries)))),
            "webhooks": sorted(db.scalars(sa.select(deliveries_table.c.job_id))),
            "budgets": {tuple(row) for row in db.execute(accounts)} - {(NOTHING, NOTHING)},
        }


def foreseen(model: Model) -> dict[str, Any]:
    """What `seen` must be."""
    lives = model.lives
    reserved, spent = (sum((getattr(each, name) for each in lives.values()), NOTHING) for name in ("reserved", "spent"))
    tries = [
        (job, number, outcome, life.reserved if number == life.attempt else NOTHING)
        for job, life in lives.items()
        for number, outcome in life.tries.items()
    ]
    return {
        "jobs": {
            job: (life.state, life.number, life.attempt, life.worker, life.usd, life.is_unwanted, life.is_started)
            for job, life in lives.items()
        },
        "attempts": Counter(tries),
        "ledger": Counter((job, *entry) for job, life in lives.items() for entry in life.entries),
        "webhooks": sorted(job for job, life in lives.items() if life.has_hook and life.state in TERMINAL),
        "budgets": {(reserved, spent)} - {(NOTHING, NOTHING)},
    }


class Lives(RuleBasedStateMachine):
    """What callers, workers and sweeps do to a few jobs, and what happens to the workers.

    Attributes:
        claims: every claim that a worker was ever given, also those that it has lost since and knows nothing of.
        ends: of jobs that have ended, their rows as they were then.
    """

    def __init__(self, actors: Actors) -> None:
        super().__init__()
        actors.forget()
        self.real, self.model = actors, Model()
        self.claims: list[Claim] = []
        self.ends: dict[UUID, Any] = {}
        self.amounts = count(1)

    def both(self, name: str, *given: Any) -> Any:
        """Let it happen on both sides, which must tell the same of it."""
        rights = [Right.of(each) if isinstance(each, Claim) else each for each in given]
        expected = getattr(self.model, name)(*rights)
        got = getattr(self.real, name)(*given)
        assert (Right.of(got) if isinstance(got, Claim) else got) == expected, name
        return got

    def jobs(self, *states: JobState) -> list[UUID]:
        return [job for job, life in self.model.lives.items() if life.state in states]

    def held(self) -> list[Claim]:
        return [claim for claim in self.claims if self.model.held(Right.of(claim))]

    def end(self, outcome: Any, kind: Any) -> AttemptEnd:
        """No other attempt costs as much."""
        usd = Decimal(next(self.amounts)) / 1000
        return AttemptEnd(outcome, 0.1, Cost(usd, "v1"), kind, Usage(8, 1), "An answer.")

    @initialize()
    def begin(self) -> None:
        self.workers = [self.real.start_worker() for _ in range(WORKERS)]
        self.model.alive |= set(self.workers)
        for is_paid in (False, True):
            self.submit(is_paid, has_hook=not is_paid)

    @precondition(lambda self: len(self.jobs(*OPEN)) < MOST_OPEN)
    @rule(is_paid=st.booleans(), has_hook=st.booleans())
    def submit(self, is_paid: bool, has_hook: bool) -> None:
        job = self.real.submit(is_paid, has_hook)
        self.model.lives[job] = Life(is_paid, has_hook)

    @precondition(lambda self: self.jobs(*UNSTARTED) and self.model.alive)
    @rule(data=st.data())
    def claim(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(self.jobs(*UNSTARTED)))
        if self.model.lives[job].state is JobState.WAITING:
            self.both("publish_due")
        self.take(job, self.model.lives[job].number, data.draw(st.sampled_from(sorted(self.model.alive))))

    def take(self, job: UUID, number: int, worker: UUID) -> None:
        claim = self.both("claim", job, number, worker)
        if claim and self.model.lives[job].is_paid:
            self.both("reserve", claim)
        self.claims += [claim] if claim else []

    @precondition(held)
    @rule(data=st.data(), how=st.sampled_from(WRITES))
    def write(self, data: st.DataObject, how: str) -> None:
        assert self.told(data.draw(st.sampled_from(self.held())), how)

    def lost(self) -> list[Claim]:
        """Claims that hold no more: those of jobs that run, if there are any."""
        lost = [each for each in self.claims if each not in self.held()]
        return [each for each in lost if self.model.lives[each.job_id].worker] or lost

    @precondition(lost)
    @rule(data=st.data(), how=st.sampled_from([*WRITES, "reserve"]))
    def write_too_late(self, data: st.DataObject, how: str) -> None:
        claim = data.draw(st.sampled_from(self.lost()))
        if how != "reserve":
            assert not self.told(claim, how)
        elif claim.route is Route.OVERFLOW:
            assert not self.both("reserve", claim)

    @rule(data=st.data(), event=st.sampled_from(EVENTS))
    def event(self, data: st.DataObject, event: str) -> None:
        """What is not work, together as frequent as each kind of work."""
        job, worker = (data.draw(st.sampled_from(each)) for each in (list(self.model.lives), self.workers))
        match event:
            case "a message comes again":
                self.take(job, self.model.lives[job].number - data.draw(st.integers(0, 2)), worker)
            case "start_by" | "finish_by" if self.model.lives[job].state in OPEN:
                self.both("pass_time", job, event == "finish_by")
            case "cancel":
                self.both("cancel", job)
            case "cancel what runs" if held := self.held():
                self.both("cancel", data.draw(st.sampled_from(held)).job_id)
            case "disown" if self.claims:
                self.both("disown", data.draw(st.sampled_from(self.held() or self.claims)))
            case "renew" | "end_lease":
                self.both(event, worker)
            case "a worker is too slow":
                self.both("end_lease", worker)
                self.both("rescue")
                self.both("renew", worker)
            case "expire" | "publish_due" | "rescue":
                self.both(event)

    def told(self, claim: Claim, how: str) -> bool:
        """True when it was written."""
        # No other attempt costs as much.
        usd = Decimal(next(self.amounts)) / 1000
        paid = "api" if claim.route is Route.OVERFLOW else "compute"
        end = AttemptEnd("succeeded", 0.1, Cost(usd, "v1"), paid, Usage(8, 1), "An answer.")
        wasted = replace(end, outcome="failed", kind="waste", text=None)
        match how:
            case "succeed":
                written = self.both("finish", claim, JobState.SUCCEEDED, end)
            case "abort":
                written = self.both("finish", claim, JobState.CANCELLED, replace(end, outcome="aborted"))
            case "fail":
                written = self.both("finish", claim, JobState.FAILED, wasted)
            case "retry":
                written = self.both("retry", claim, wasted)
            case "hand back":
                written = self.both("hand_back", claim, wasted, None)
            case "hand back unused":
                written = self.both("hand_back", claim, replace(wasted, cost=NO_COST, usage=Usage()), None)
            case _:
                reroute = Reroute("chat.normal", Route.POOL, "test")
                written = self.both("hand_back", claim, wasted, reroute)
        return bool(written)

    @invariant()
    def postgres_has_what_the_model_has(self) -> None:
        assert seen(self.real.store) == foreseen(self.model)

    @invariant()
    def the_promises_hold(self) -> None:
        """By the rows alone, without the model."""
        with self.real.store.begin() as db:
            rows = {row.id: tuple(row) for row in db.execute(sa.select(jobs_table))}
            ended = {job: rows[job] for job in db.scalars(sa.select(jobs_table.c.id).where(IS_OVER))}
            broken = {name: db.execute(sa.text(sql)).all() for name, sql in BROKEN.items()}
        assert not any(broken.values()), broken
        assert {job: ended.get(job) for job in self.ends} == self.ends, "the end of a job is its end"
        self.ends = ended


@pytest.fixture
def actors(deps: ControlDeps, app: App, redis: Redis) -> Actors:
    price = Price(input_usd_per_mtok=Decimal("0.5"), output_usd_per_mtok=Decimal(2), source="test", version="v1")
    pools = {"chat": deps.settings.pools["chat"].model_copy(update={"price": price})}
    settings = deps.settings.model_copy(update={"pools": pools, "max_attempts": MAX_ATTEMPTS})
    return Actors(replace(deps, settings=settings), app, redis)


def test_jobs_equal_their_model_whatever_happens(actors: Actors) -> None:
    run_state_machine_as_test(
        lambda: Lives(actors),
        settings=effort(
            max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


#: What may happen to a running job in the same moment, on either side. The second argument is its claim.
ACTS: dict[str, Callable[[Any, Any], Any]] = {
    "succeed": lambda side, right: side.finish(right, JobState.SUCCEEDED, an_end("succeeded", "api", 1)),
    "fail": lambda side, right: side.finish(right, JobState.FAILED, an_end("failed", "waste", 2)),
    "retry": lambda side, right: side.retry(right, an_end("failed", "waste", 3)),
    "hand back": lambda side, right: side.hand_back(right, an_end("failed", "waste", 4), None),
    "reserve": lambda side, right: side.reserve(right),
    "cancel": lambda side, right: side.cancel(key_of(right)),
    "rescue": lambda side, right: side.rescue(),
    "disown": lambda side, right: side.disown(right),
}


def an_end(outcome: Any, kind: Any, usd: int) -> AttemptEnd:
    return AttemptEnd(outcome, 0.1, Cost(Decimal(usd) / 1000, "v1"), kind, Usage(8, 1))


def key_of(right: Claim | Right) -> UUID:
    return right.job_id if isinstance(right, Claim) else right.job


# A claim's money is asked for once, by the one thread that runs the attempt.
PAIRS = [pair for pair in combinations_with_replacement(ACTS, 2) if pair != ("reserve", "reserve")]


@pytest.mark.parametrize("acts", PAIRS, ids=" and ".join)
def test_of_two_at_once_the_outcome_is_that_of_one_after_the_other(actors: Actors, acts: tuple[str, str]) -> None:
    # A sweep leaves alone what somebody else is at just then: it comes again.
    alone = [(1 - index,) for index in range(2) if acts[index] == "rescue"]
    start = Barrier(2)
    with ThreadPoolExecutor(2) as threads:
        for _ in range(ROUNDS):
            actors.forget()
            model, claim = running_job(actors, has_money="reserve" not in acts)
            run = partial(act_at_once, actors, claim, start)
            got = list(threads.map(run, acts)), seen(actors.store)
            assert got in [serial(model, Right.of(claim), acts, order) for order in ((0, 1), (1, 0), *alone)]


def act_at_once(actors: Actors, claim: Claim, start: Barrier, name: str) -> Any:
    start.wait(10)
    return ACTS[name](actors, claim)


def running_job(actors: Actors, *, has_money: bool) -> tuple[Model, Claim]:
    """A paid job, whose worker has fallen silent."""
    model, worker, job = Model(), actors.start_worker(), actors.submit(is_paid=True, has_hook=True)
    model.lives[job], model.alive = Life(is_paid=True, has_hook=True), {worker}
    claim = actors.claim(job, 1, worker)
    assert claim
    assert model.claim(job, 1, worker) == Right.of(claim)
    if has_money:
        assert actors.reserve(claim)
        assert model.reserve(Right.of(claim))
    actors.end_lease(worker)
    model.end_lease(worker)
    return model, claim


def serial(before: Model, right: Right, acts: Sequence[str], order: Sequence[int]) -> tuple[list[Any], dict[str, Any]]:
    """What each would have been told, and what would be seen, had they come in this order."""
    model, told = deepcopy(before), [0, 0]
    for index in order:
        told[index] = ACTS[acts[index]](model, right)
    return told, foreseen(model)
