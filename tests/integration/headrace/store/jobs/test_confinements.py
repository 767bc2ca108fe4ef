"""Confined apps: at most one job runs, on one worker, whatever happens; other apps notice nothing."""

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal
from threading import Barrier
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from headrace.domain.apps import App
from headrace.domain.attempts import AttemptEnd, Claim, HandBack, Reroute
from headrace.domain.fleet import WorkerReport
from headrace.domain.jobs import JobSpec
from headrace.domain.limits import Cost
from headrace.domain.queues import Lane, Route, Ticket
from headrace.domain.states import JobState
from headrace.policies.retries import CONFINED
from headrace.store import Store, apps, attempts, jobs
from headrace.store.fleet import workers
from headrace.store.jobs import confinements
from headrace.tables import confinements as table
from headrace.tables import jobs as jobs_table
from headrace.tables import poison_strikes
from headrace.tables import workers as workers_table
from tests import one_attempt

LEASE_S = 60.0
CONFINE_S = 600.0
DONE = AttemptEnd("succeeded", 0.1, Cost(Decimal(0), "v1"), "compute")
LOST = AttemptEnd("failed", 0.0, Cost(Decimal(0), "v1"), "waste")

Queued = Callable[..., Ticket]


class World:
    """Workers of the pool `chat`, and what they do with jobs."""

    def __init__(self, store: Store, app: App) -> None:
        self.store, self.app = store, app

    def worker(self) -> UUID:
        with self.store.begin() as db:
            return one_attempt.add_worker(db, max_running=32, lease_s=LEASE_S)

    def claim(self, ticket: Ticket, worker: UUID) -> Claim:
        claim = self.claim_if_queued(ticket, worker)
        assert claim is not None
        return claim

    def claim_if_queued(self, ticket: Ticket, worker: UUID) -> Claim | None:
        with self.store.begin() as db:
            number = jobs.queued_numbers(db, [ticket.job_id]).get(ticket.job_id, 0)
            return one_attempt.claim(db, ticket.job_id, number, worker, "simulator")

    def enter(self, ticket: Ticket, worker: UUID) -> Claim | None:
        """Claim the job, and run it if it may; otherwise it is handed back, to wait for its turn."""
        claim = self.claim(ticket, worker)
        return claim if self.may_run(claim) else None

    def may_run(self, claim: Claim) -> bool:
        with self.store.begin() as db:
            left_s = confinements.enter(db, claim)
        if left_s is None:
            return True
        held = Reroute(f"chat.{claim.lane}", Route.POOL, f"{CONFINED}test", left_s)
        with self.store.begin() as db:
            assert attempts.hand_back(db, claim, LOST, HandBack(reroute=held)) is JobState.WAITING
        return False

    def finish(self, claim: Claim) -> None:
        with self.store.begin() as db:
            assert one_attempt.finish(db, claim, JobState.SUCCEEDED, DONE)

    def strike(self, claim: Claim) -> Any:
        with self.store.begin() as db:
            return confinements.strike(db, claim, CONFINE_S)

    def give_turn(self) -> list[UUID]:
        """Choose, and queue what is due, as `publish_due` does."""
        with self.store.begin() as db:
            chosen = confinements.give_turn(db)
        with self.store.begin() as db:
            jobs.enqueue_due(db)
        return chosen

    def end_lease(self, worker: UUID) -> None:
        self.change(workers_table, workers_table.c.id == worker, lease_until=sa.func.now())

    def change(self, of: sa.Table, *where: Any, **values: Any) -> None:
        with self.store.begin() as db:
            db.execute(sa.update(of).where(*where).values(**values))

    def row(self, ticket: Ticket) -> Any:
        with self.store.begin() as db:
            return db.execute(sa.select(jobs_table).where(jobs_table.c.id == ticket.job_id)).one()

    def confined(self, worker: UUID) -> Any:
        """What the worker's renewal tells it."""
        with self.store.begin() as db:
            return workers.renew(db, worker, LEASE_S, WorkerReport(0, ready=True)).confined


@pytest.fixture
def world(store: Store, app: App) -> World:
    return World(store, app)


@pytest.fixture
def confined(world: World, queued: Queued) -> World:
    """The app `test` has killed two engines of `chat`."""
    worker = world.worker()
    for _ in range(2):
        claim = world.claim(queued(), worker)
        until = world.strike(claim)
        world.finish(claim)
    assert until is not None
    return world


def test_two_strikes_within_an_hour_confine_an_app_in_that_pool_alone(world: World, queued: Queued) -> None:
    worker = world.worker()
    first, second, elsewhere, third = (world.claim(queued(), worker) for _ in range(4))
    assert world.strike(first) is None
    assert world.strike(first) is None, "the same job again"
    assert world.strike(replace(elsewhere, pool="fast")) is None
    world.change(poison_strikes, poison_strikes.c.pool == "chat", at=sa.func.now() - sa.text("interval '61 min'"))
    assert world.strike(second) is None, "the first was more than an hour ago"
    assert world.strike(third) is not None
    assert world.confined(worker) == {world.app.id: None}
    with world.store.begin() as db:
        assert confinements.live(db).keys() == {(world.app.id, "chat")}


def test_two_strikes_at_once_see_each_other(world: World, queued: Queued) -> None:
    worker = world.worker()
    claims = [world.claim(queued(), worker) for _ in range(2)]
    at_once = Barrier(2)

    def strike(claim: Any) -> Any:
        with world.store.begin() as db:
            at_once.wait(10)
            return confinements.strike(db, claim, CONFINE_S)

    with ThreadPoolExecutor(2) as threads:
        assert sorted(until is not None for until in threads.map(strike, claims)) == [False, True]


def test_jobs_of_a_confined_app_run_one_at_a_time_on_one_worker(confined: World, queued: Queued) -> None:
    one, other = confined.worker(), confined.worker()
    first, second, third = queued(), queued(), queued(lane=Lane.HIGH)
    runs = confined.enter(first, one)
    assert runs is not None
    assert confined.enter(second, one) is None
    assert confined.enter(third, other) is None
    held = confined.row(second)
    assert (held.state, held.attempt, held.started_at) == ("waiting", 0, None)
    assert held.route_reason.startswith(CONFINED)
    assert confined.give_turn() == [], "the first runs"
    confined.finish(runs)
    assert confined.give_turn() == [third.job_id], "the higher lane first"
    assert confined.give_turn() == [], "it is on its way"
    assert confined.confined(other) == {confined.app.id: third.job_id}, "the other worker leaves it alone"
    assert confined.confined(one) == {confined.app.id: None}
    assert confined.enter(third, other) is None, "should it be taken all the same"
    assert confined.give_turn() == [third.job_id]
    runs = confined.enter(third, one)
    assert runs is not None
    confined.finish(runs)
    assert confined.give_turn() == [second.job_id]


def test_two_workers_that_ask_at_once_let_one_job_in(confined: World, queued: Queued) -> None:
    for _ in range(5):
        claims = [confined.claim(queued(), confined.worker()) for _ in range(2)]
        at_once = Barrier(2)

        def enter(claim: Any, at_once: Barrier = at_once) -> bool:
            at_once.wait(10)
            return confined.may_run(claim)

        with ThreadPoolExecutor(2) as threads:
            let_in = list(threads.map(enter, claims))
        assert sorted(let_in) == [False, True]
        claim = claims[let_in.index(True)]
        confined.finish(claim)
        confined.end_lease(claim.worker_id)


def test_a_dead_workers_job_keeps_the_turn_until_it_is_rescued_and_then_another_worker_runs_it(
    confined: World, queued: Queued
) -> None:
    dead, other = confined.worker(), confined.worker()
    lost, held = queued(), queued()
    runs = confined.enter(lost, dead)
    assert runs is not None
    assert confined.enter(held, dead) is None
    confined.end_lease(dead)
    assert confined.give_turn() == [], "it may still run"
    with confined.store.begin() as db:
        assert attempts.hand_back(db, runs, LOST) is JobState.WAITING
    assert confined.give_turn() == [], "it is on its way"
    assert confined.confined(other) == {confined.app.id: None}
    assert confined.enter(lost, other) is not None


def test_jobs_that_ran_before_the_confinement_are_waited_for(world: World, queued: Queued) -> None:
    worker = world.worker()
    before = world.claim(queued(), worker)
    for _ in range(2):
        claim = world.claim(queued(), worker)
        world.strike(claim)
        world.finish(claim)
    late = queued()
    assert world.enter(late, worker) is None
    assert world.give_turn() == []
    world.finish(before)
    assert world.give_turn() == [late.job_id]


def test_a_further_strike_pauses_the_app_and_prolongs_its_confinement(confined: World, queued: Queued) -> None:
    worker = confined.worker()
    again, held = queued(), queued()
    runs = confined.enter(again, worker)
    assert runs is not None
    confined.change(table, until=sa.func.now() + sa.text("interval '10 s'"))
    confined.strike(runs)
    confined.finish(runs)
    assert confined.enter(held, worker) is None
    assert confined.give_turn() == []
    with confined.store.begin() as db:
        left, pause = db.execute(sa.select(table.c.until - sa.func.now(), table.c.next_at - sa.func.now())).one()
    assert left.total_seconds() > CONFINE_S - 60
    assert 0 < pause.total_seconds() <= 60
    confined.change(table, next_at=sa.func.now())
    assert confined.give_turn() == [held.job_id]


def test_other_apps_and_the_apps_other_pools_are_not_confined(
    confined: World, queued: Queued, make_spec: Callable[..., JobSpec]
) -> None:
    with confined.store.begin() as db:
        neighbour = apps.ensure(db, "neighbour")
    worker = confined.worker()
    assert confined.enter(queued(), worker) is not None
    assert all(confined.enter(queued(app_id=neighbour.id), worker) is not None for _ in range(3))
    assert confined.enter(queued(pool="fast"), worker) is not None


def test_held_jobs_are_due_when_the_confinement_ends_or_is_lifted(confined: World, queued: Queued) -> None:
    worker = confined.worker()
    assert confined.enter(queued(), worker) is not None
    held = [queued() for _ in range(3)]
    assert [confined.enter(each, worker) for each in held] == [None] * 3
    with confined.store.begin() as db:
        (found,) = confinements.live(db).values()
        left = db.scalar(sa.select(sa.func.min(jobs_table.c.not_before - sa.func.now())))
    assert found.held == 3
    assert 0 < left.total_seconds() <= CONFINE_S
    with confined.store.begin() as db:
        assert confinements.lift(db, confined.app.id) == ["chat"]
        assert len(jobs.enqueue_due(db)) == 3
    assert all(confined.enter(each, worker) is not None for each in held)
    claim = confined.claim(queued(), worker)
    assert confined.strike(claim) is None, "its strikes are forgotten, too"


def test_a_held_job_that_expires_says_so(confined: World, queued: Queued) -> None:
    worker = confined.worker()
    assert confined.enter(queued(), worker) is not None
    held, other = queued(), queued(lane=Lane.LOW)
    assert confined.enter(held, worker) is None
    confined.change(jobs_table, jobs_table.c.id.in_([held.job_id, other.job_id]), start_by=sa.func.now())
    with confined.store.begin() as db:
        jobs.expire(db, [held.job_id, other.job_id])
    assert (confined.row(held).state, confined.row(held).error_code) == ("expired", "app_confined")
    assert "one at a time" in confined.row(held).error_message
    assert (confined.row(other).state, confined.row(other).error_code) == ("expired", "expired")


def test_what_is_long_over_is_forgotten(confined: World) -> None:
    day = sa.text("interval '25 h'")
    with confined.store.begin() as db:
        assert confinements.forget_old(db) == 0
        db.execute(sa.update(table).values(until=sa.func.now() - day))
        db.execute(sa.text("UPDATE poison_strikes SET at = at - interval '25 h'"))
        assert confinements.forget_old(db) == 3


@pytest.mark.parametrize("seed", range(4))
def test_at_most_one_job_runs_in_any_order_of_events(confined: World, queued: Queued, seed: int) -> None:
    """Claims, ends, crashes, sweeps, dead workers and rescues at random: never two, and in the end all have run."""
    chance = random.Random(seed)
    living, running = [confined.worker() for _ in range(3)], list[Claim]()
    open_jobs = [queued(max_wait_s=3600) for _ in range(8)]
    for _ in range(120):
        step = chance.choice(("enter", "enter", "end", "crash", "sweep", "sweep", "die"))
        if step == "enter" and open_jobs:
            ticket, worker = chance.choice(open_jobs), chance.choice(living)
            claim = confined.claim_if_queued(ticket, worker)
            if claim is not None and confined.may_run(claim):
                running.append(claim)
        elif step == "sweep":
            confined.give_turn()
        elif step == "die" and running:
            # Its worker is dead, and `rescue` takes the job back.
            confined.end_lease(running[0].worker_id)
            living = [each for each in living if each != running[0].worker_id] + [confined.worker()]
            _put_back(confined, running.pop())
        elif step == "crash" and running:
            _put_back(confined, running.pop())
        elif step == "end" and running:
            claim = running.pop()
            confined.finish(claim)
            open_jobs = [each for each in open_jobs if each.job_id != claim.job_id]
        assert len(running) <= 1, f"after '{step}'"
    for claim in running:
        confined.finish(claim)
    for _ in open_jobs:
        confined.give_turn()
        let_in = [
            claim
            for ticket in open_jobs
            for worker in living
            if ticket.job_id not in confined.confined(worker).values()
            and (claim := confined.claim_if_queued(ticket, worker)) is not None
            and confined.may_run(claim)
        ]
        assert len(let_in) <= 1
        for claim in let_in:
            confined.finish(claim)
    assert {confined.row(each).state for each in open_jobs} <= {"succeeded"}


def _put_back(world: World, claim: Claim) -> None:
    with world.store.begin() as db:
        assert attempts.hand_back(db, claim, LOST) is JobState.WAITING
