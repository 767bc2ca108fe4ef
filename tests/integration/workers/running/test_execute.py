"""One attempt, from claim to bill, with an engine that does as the test says, on a real Postgres."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from decimal import Decimal
from uuid import UUID

import pytest
import sqlalchemy as sa

from headrace import connections
from headrace.config import Settings
from headrace.domain.attempts import Usage
from headrace.domain.fleet import WorkerReport
from headrace.domain.ids import new_id
from headrace.domain.prompts import Message, Sampling, prompt_digest
from headrace.domain.queues import Ticket
from headrace.domain.states import SUSPECT, JobState
from headrace.errors import ConfigError, EngineCrash, EngineFault, EngineUnavailable, PromptRejected
from headrace.store import Store, jobs
from headrace.store.fleet import workers
from headrace.store.jobs.overview import history, timeline
from headrace.tables import attempts, deliveries, ledger, poison_prompts
from headrace.tables import jobs as jobs_table
from tests import one_attempt
from tests.chaos.proxy import Mode, Proxy
from tests.integration.workers.conftest import Make, job, run_job
from workers.confining import Confining
from workers.engines.base import EngineLimits, FinishReason, Generation, GenerationRequest, OnDelta, Progress
from workers.matching import LookupHold
from workers.running.execute import ELSEWHERE, Execute
from workers.running.lease import Lease, LeaseTimes
from workers.running.publisher import Notices
from workers.running.worker_state import MOST_CRASHES


@dataclass
class ScriptedEngine:
    """Answers, fails, or waits for its abort, as told; dead until started again once it is told so."""

    name: str = "scripted"
    continues: bool = False
    error: Exception | None = None
    waits_for_abort: bool = False
    dead: bool = False
    preemptions: int = 0
    lets_go: bool = True
    requests: set[str] = field(default_factory=set)
    salts: list[str | None] = field(default_factory=list)
    started: threading.Event = field(default_factory=threading.Event)
    aborted: threading.Event = field(default_factory=threading.Event)

    def start(self) -> EngineLimits:
        self.dead = False
        return EngineLimits(2048, 4)

    def generate(self, request: GenerationRequest, on_delta: OnDelta | None = None) -> Generation:
        self.requests.add(request.request_id)
        self.salts.append(request.cache_salt)
        self.started.set()
        if self.error is not None:
            raise self.error
        reason: FinishReason = "stop"
        if self.waits_for_abort:
            assert self.aborted.wait(20)
            reason = "abort"
        self.requests.discard(request.request_id)
        return Generation("An answer.", Usage(8, 3), reason, request.adapter or "scripted-model", 0.1, self.preemptions)

    def abort(self, request_id: str) -> None:
        if self.lets_go:
            self.aborted.set()

    def progress(self) -> dict[str, Progress]:
        return dict.fromkeys(self.requests, Progress(3))

    def check(self) -> None:
        if self.dead:
            raise EngineUnavailable

    def stop(self) -> None: ...


class Heard(Notices):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.announced, self.rung_for, self.places = list[UUID](), list[UUID](), list[tuple[UUID, int]]()

    def claimed(self, job_id: UUID, enqueue_no: int) -> None:
        self.places.append((job_id, enqueue_no))

    def ended(self, job_id: UUID, *, has_webhook: bool) -> None:
        self.announced.append(job_id)
        if has_webhook:
            self.rung_for.append(job_id)


@dataclass
class Bench:
    """A worker without Celery."""

    execute: Execute
    lease: Lease
    engine: ScriptedEngine
    heard: Heard
    gave_up: threading.Event
    called_back: threading.Event


@pytest.fixture
def bench(bare_worker: Make, store: Store, settings: Settings) -> Bench:
    engine, heard = ScriptedEngine(), Heard()
    execute = bare_worker(engine, heard)
    gave_up, called_back = threading.Event(), threading.Event()
    lease = Lease(
        execute.state, store, engine, LeaseTimes(settings.lease_s, 0.02), gave_up.set, called_back=called_back.set
    )
    return Bench(execute, lease, engine, heard, gave_up, called_back)


def entries(store: Store) -> list[tuple[str, Decimal]]:
    with store.begin() as db:
        return [tuple(row) for row in db.execute(sa.select(ledger.c.kind, ledger.c.usd).order_by(ledger.c.id))]


#: 8 prompt and 3 output tokens at the committed price of own hosts.
USD = Decimal("0.000001")


def test_answer_is_stored_billed_and_announced(bench: Bench, store: Store, queued: Callable[..., Ticket]) -> None:
    ticket = queued(webhook_url="https://receiver.example")

    bench.execute.run(ticket.job_id, ticket.enqueue_no)

    done = job(store, ticket)
    assert (done.state, done.answer, done.usd) == (JobState.SUCCEEDED, "An answer.", USD)
    assert (done.engine, done.model_served, done.finish_reason) == ("scripted", "scripted-model", "stop")
    assert entries(store) == [("compute", USD)]
    assert bench.heard.announced == bench.heard.rung_for == [ticket.job_id]
    with store.begin() as db:
        assert list(db.scalars(sa.select(deliveries.c.job_id))) == [ticket.job_id]


def test_each_attempt_has_the_prefix_cache_of_its_app_alone(
    bench: Bench, store: Store, queued: Callable[..., Ticket]
) -> None:
    ticket, bench.engine.error = queued(), EngineFault("A fault.")
    bench.execute.run(ticket.job_id, ticket.enqueue_no)
    bench.engine.error = None
    with store.begin() as db:
        db.execute(sa.update(jobs_table).values(not_before=sa.func.now()))
        [again] = jobs.enqueue_due(db)
    bench.execute.run(again.job_id, again.enqueue_no)

    assert job(store, ticket).state is JobState.SUCCEEDED
    assert bench.engine.salts == 2 * [ticket.app_id.hex]


def test_apps_of_a_pool_that_shares_its_prefix_cache_have_no_salt(bench: Bench, queued: Callable[..., Ticket]) -> None:
    ticket, bench.execute.shares_prefixes = queued(), True
    bench.execute.run(ticket.job_id, ticket.enqueue_no)
    assert bench.engine.salts == [None]


def test_a_job_is_held_before_its_claim_and_may_end_meanwhile(
    bench: Bench, store: Store, queued: Callable[..., Ticket]
) -> None:
    ticket = queued()

    class Hold(LookupHold):
        def wait(self, job_id: UUID) -> None:
            assert job(store, ticket).state is JobState.QUEUED
            with store.begin() as db:
                jobs.cancel(db, None, job_id)

    bench.execute.lookup_hold = Hold()
    assert bench.execute.run(ticket.job_id, ticket.enqueue_no) == ELSEWHERE
    assert (bench.engine.requests, entries(store)) == (set(), [])


def test_preemptions_are_in_the_attempt_s_row(bench: Bench, store: Store, queued: Callable[..., Ticket]) -> None:
    ticket, bench.engine.preemptions = queued(), 3

    bench.execute.run(ticket.job_id, ticket.enqueue_no)

    with store.begin() as db:
        assert db.scalar(sa.select(attempts.c.preemptions)) == 3


def test_the_adapter_that_a_job_asked_for_answers_it(bench: Bench, store: Store, queued: Callable[..., Ticket]) -> None:
    ticket = queued(model="sql", adapter="sql")

    bench.execute.run(ticket.job_id, ticket.enqueue_no)

    assert (job(store, ticket).model_served, job(store, ticket).usd) == ("sql", USD)


def test_second_message_for_a_job_has_no_effect(bench: Bench, store: Store, queued: Callable[..., Ticket]) -> None:
    ticket = queued()

    for _ in range(3):
        bench.execute.run(ticket.job_id, ticket.enqueue_no)

    assert len(entries(store)) == 1
    assert bench.heard.announced == [ticket.job_id]


def test_place_in_the_queue_is_given_back_as_soon_as_the_job_is_claimed(
    bench: Bench, queued: Callable[..., Ticket]
) -> None:
    ticket, bench.engine.waits_for_abort = queued(), True
    thread = threading.Thread(target=run_job, args=(bench.execute, ticket.job_id, 1))
    thread.start()
    assert bench.engine.started.wait(10)
    assert bench.heard.places == [(ticket.job_id, 1)]

    bench.engine.aborted.set()
    thread.join(10)
    assert bench.heard.places == [(ticket.job_id, 1)], "and once"


def test_place_is_given_back_at_each_claim_and_at_no_other_time(
    bench: Bench, store: Store, queued: Callable[..., Ticket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.running.execute.NOT_READY_HOLD_S", 0)
    ticket, bench.engine.error = queued(), EngineFault("broken")
    bench.execute.run(ticket.job_id, 7)
    bench.execute.state.ready.clear()
    bench.execute.run(ticket.job_id, 1)
    assert bench.heard.places == []

    bench.execute.state.ready.set()
    for _ in range(2):
        bench.execute.run(ticket.job_id, 1)
    with store.begin() as db:
        db.execute(sa.text("UPDATE jobs SET not_before = now()"))
        (again,) = jobs.enqueue_due(db)
    bench.execute.run(again.job_id, again.enqueue_no)

    assert bench.heard.places == [(ticket.job_id, 1), (ticket.job_id, 2)]


def test_fault_is_tried_again_and_fails_the_job_at_last(
    bench: Bench, store: Store, queued: Callable[..., Ticket]
) -> None:
    ticket, bench.engine.error = queued(), EngineFault("broken")

    bench.execute.run(ticket.job_id, 1)
    assert job(store, ticket).state is JobState.WAITING
    with store.begin() as db:
        db.execute(sa.text("UPDATE jobs SET not_before = now()"))
        (again,) = jobs.enqueue_due(db)
    bench.execute.run(again.job_id, again.enqueue_no)

    failed = job(store, ticket)
    assert (failed.state, failed.error_code, failed.attempt, failed.usd) == (JobState.FAILED, "engine_fault", 2, 0)
    assert [kind for kind, _ in entries(store)] == ["waste", "waste"]


def test_prompt_the_engine_rejects_fails_at_once(bench: Bench, store: Store, queued: Callable[..., Ticket]) -> None:
    ticket, bench.engine.error = queued(), PromptRejected("too long")

    bench.execute.run(ticket.job_id, 1)

    failed = job(store, ticket)
    assert (failed.state, failed.attempt, failed.error_message) == (JobState.FAILED, 1, "too long")


def test_cancel_stops_a_running_job_which_pays_for_what_it_produced(
    bench: Bench, store: Store, queued: Callable[..., Ticket]
) -> None:
    ticket, bench.engine.waits_for_abort = queued(), True
    bench.lease.begin()
    thread = threading.Thread(target=run_job, args=(bench.execute, ticket.job_id, 1))
    thread.start()
    assert bench.engine.started.wait(10)

    with store.begin() as db:
        jobs.cancel(db, ticket.app_id, ticket.job_id)
    thread.join(10)
    bench.lease.end()

    cancelled = job(store, ticket)
    assert (cancelled.state, cancelled.usd, cancelled.output_tokens) == (JobState.CANCELLED, USD, 3)
    assert cancelled.error_code is None  # It was asked for: the same as of a job that was cancelled in its queue.


def test_job_past_its_deadline_is_stopped_and_fails(bench: Bench, store: Store, queued: Callable[..., Ticket]) -> None:
    ticket, bench.engine.waits_for_abort = queued(), True
    bench.lease.begin()
    thread = threading.Thread(target=run_job, args=(bench.execute, ticket.job_id, 1))
    thread.start()
    assert bench.engine.started.wait(10)

    with store.begin() as db:
        db.execute(sa.text("UPDATE jobs SET finish_by = now()"))
    thread.join(10)
    bench.lease.end()

    failed = job(store, ticket)
    assert (failed.state, failed.error_code, failed.usd) == (JobState.FAILED, "deadline_exceeded", USD)


def test_drained_job_goes_back_with_no_attempt_counted(
    bench: Bench, store: Store, queued: Callable[..., Ticket]
) -> None:
    ticket, bench.engine.waits_for_abort = queued(), True
    thread = threading.Thread(target=run_job, args=(bench.execute, ticket.job_id, 1))
    thread.start()
    assert bench.engine.started.wait(10)

    bench.lease.stop_all("draining")
    thread.join(10)

    back = job(store, ticket)
    assert (back.state, back.attempt, back.usd) == (JobState.WAITING, 0, 0)
    # What it produced was burnt, and is not charged to the app.
    assert entries(store) == [("waste", USD)]


def test_dead_engine_takes_no_work_until_it_was_started_again(
    bench: Bench, store: Store, queued: Callable[..., Ticket]
) -> None:
    ticket, bench.engine.dead = queued(), True
    bench.execute.state.ready.clear()
    bench.execute.run(ticket.job_id, 1)
    assert job(store, ticket).state is JobState.QUEUED

    bench.lease.begin()
    assert bench.execute.state.ready.wait(10)
    bench.execute.run(ticket.job_id, 1)
    bench.lease.end()

    assert job(store, ticket).state is JobState.SUCCEEDED


def test_a_job_that_was_claimed_before_the_engine_died_is_handed_back_uncounted(
    bench: Bench, store: Store, queued: Callable[..., Ticket]
) -> None:
    ticket, bench.engine.error = queued(), EngineUnavailable("It is dead.")

    outcome = bench.execute.run(ticket.job_id, ticket.enqueue_no)

    assert outcome == (JobState.WAITING, EngineUnavailable.code)
    done = job(store, ticket)
    assert (done.state, done.attempt, entries(store)) == (JobState.WAITING, 0, [])


def test_no_second_job_is_given_to_an_engine_that_is_found_dead(
    bench: Bench, store: Store, queued: Callable[..., Ticket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.running.execute.NOT_READY_HOLD_S", 0)
    first, second, bench.engine.error = queued(), queued(), EngineUnavailable("dead")

    bench.execute.run(first.job_id, 1)
    bench.execute.run(second.job_id, 1)

    back, untouched = job(store, first), job(store, second)
    assert (back.state, back.attempt, back.suspicion) == (JobState.WAITING, 0, 0), "the engine never saw it"
    assert (untouched.state, untouched.attempt) == (JobState.QUEUED, 0)
    assert entries(store) == []


@pytest.mark.parametrize(("made_tokens", "suspicion"), [(0, SUSPECT), (7, 1)])
def test_a_job_comes_back_from_a_dead_engine_uncounted_but_under_suspicion(
    bench: Bench, store: Store, queued: Callable[..., Ticket], made_tokens: int, suspicion: int
) -> None:
    ticket, bench.engine.error = queued(), EngineCrash("dead", made_tokens=made_tokens)
    bench.execute.run(ticket.job_id, 1)
    back = job(store, ticket)
    assert (back.state, back.attempt, back.suspicion) == (JobState.WAITING, 0, suspicion)
    assert back.ticket.alone == (suspicion >= SUSPECT)
    assert [kind for kind, _ in entries(store)] == ["waste"]
    assert not bench.execute.state.ready.is_set()
    with store.begin() as db:
        assert db.scalar(sa.select(ledger.c.output_tokens)) == made_tokens


def test_each_attempt_whose_engine_died_keeps_its_row_and_its_charge_beside_the_one_that_counts(
    bench: Bench, store: Store, queued: Callable[..., Ticket]
) -> None:
    ticket, bench.engine.error = queued(), EngineCrash("dead", made_tokens=7)
    bench.execute.run(ticket.job_id, 1)
    run_again(bench, store, ticket)
    bench.engine.error = None
    run_again(bench, store, ticket)

    assert (job(store, ticket).state, job(store, ticket).attempt) == (JobState.SUCCEEDED, 1)
    with store.begin() as db:
        found = history(db, ticket.job_id)
    assert [(each.number, each.outcome, each.error_code) for each in found.attempts] == [
        (0, "failed", "engine_crash"),
        (-1, "failed", "engine_crash"),
        (1, "succeeded", None),
    ]
    assert all(each.started_at < each.ended_at for each in found.attempts)
    assert [(each.kind, each.attempt) for each in found.charges] == [("waste", 0), ("waste", -1), ("compute", 1)]
    started = [event.facts["attempt"] for event in timeline(found) if event.name == "attempt_started"]
    assert started == ["uncounted", "uncounted", 1]


def run_again(bench: Bench, store: Store, ticket: Ticket) -> None:
    """Have a job that came back published and run."""
    bench.execute.state.ready.set()
    with store.begin() as db:
        [due] = jobs.enqueue_due(db)
    assert due.job_id == ticket.job_id
    bench.execute.run(due.job_id, due.enqueue_no)


def test_a_job_that_was_under_way_when_two_engines_died_is_a_suspect(
    bench: Bench, store: Store, queued: Callable[..., Ticket]
) -> None:
    ticket, bench.engine.error = queued(), EngineCrash("dead", made_tokens=7)
    bench.execute.run(ticket.job_id, 1)
    run_again(bench, store, ticket)
    assert job(store, ticket).ticket.alone


def test_a_job_under_which_an_engine_dies_alone_fails_and_the_worker_is_not_blamed(
    bench: Bench, store: Store, queued: Callable[..., Ticket]
) -> None:
    ticket, bench.engine.error = queued(webhook_url="https://receiver.example"), EngineCrash("dead", made_tokens=0)
    bench.execute.run(ticket.job_id, 1)
    run_again(bench, store, ticket)
    failed = job(store, ticket)
    assert (failed.state, failed.error_code, failed.usd) == (JobState.FAILED, "engine_crash", 0)
    assert {kind for kind, _ in entries(store)} == {"waste"}
    assert bench.heard.rung_for == [ticket.job_id]
    crashes = [bench.execute.state.crashes.note() for _ in range(4)]
    assert crashes == [False, False, False, True], "one of them is explained"


def test_a_suspect_whose_engine_lives_succeeds(bench: Bench, store: Store, queued: Callable[..., Ticket]) -> None:
    ticket, bench.engine.error = queued(), EngineCrash("dead", made_tokens=0)
    bench.execute.run(ticket.job_id, 1)
    bench.engine.error = None
    run_again(bench, store, ticket)
    done = job(store, ticket)
    assert (done.state, done.attempt) == (JobState.SUCCEEDED, 1)


def test_a_worker_whose_engine_dies_again_and_again_takes_itself_out_and_says_why(
    bench: Bench, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts: list[int] = []

    def start(engine: ScriptedEngine) -> EngineLimits:
        starts.append(1)
        return EngineLimits(2048, 4)

    checks = itertools.cycle([EngineUnavailable("dead"), None])

    def check(engine: ScriptedEngine) -> None:
        if error := next(checks):
            raise error

    monkeypatch.setattr(ScriptedEngine, "start", start)
    monkeypatch.setattr(ScriptedEngine, "check", check)
    bench.lease.begin()
    assert bench.gave_up.wait(10)
    assert not bench.execute.state.ready.is_set()
    bench.lease.end()
    assert len(starts) == MOST_CRASHES - 1
    with store.begin() as db:
        row = db.execute(sa.text("SELECT stop_reason, stopped_at, ready FROM workers")).one()
    assert "died 3 times in 10 minutes" in row.stop_reason
    assert (row.stopped_at is None, row.ready) == (False, False)


def die(bench: Bench, monkeypatch: pytest.MonkeyPatch, *starts: Exception | None) -> None:
    """The engine dies. Args: starts: how each later start fails; None: it succeeds."""
    left = iter(starts)

    def start(engine: ScriptedEngine) -> EngineLimits:
        if error := next(left):
            raise error
        engine.dead = False
        return EngineLimits(2048, 4)

    monkeypatch.setattr(ScriptedEngine, "start", start)
    bench.engine.dead = True
    bench.execute.state.ready.clear()


def test_an_engine_that_does_not_come_up_has_died_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    die(bench, monkeypatch, *[EngineUnavailable("out of memory")] * 2 * MOST_CRASHES, None)
    bench.lease.begin()
    assert bench.execute.state.ready.wait(10)
    bench.lease.end()
    assert not bench.gave_up.is_set()


def test_engine_that_is_well_after_all_takes_work_again_unless_it_drains(bench: Bench) -> None:
    bench.execute.state.ready.clear()
    bench.lease.begin()
    assert bench.execute.state.ready.wait(10)

    bench.lease.drain()
    bench.lease.end()

    assert not bench.execute.state.ready.is_set()


@pytest.fixture
def draining(bench: Bench, store: Store) -> Iterator[Bench]:
    """A worker that renews its lease and has heard that its host drains."""
    with store.begin() as db:
        db.execute(
            sa.text("INSERT INTO hosts (id, pool, requested_at, drain_at) VALUES ('host', 'chat', now(), now())")
        )
    bench.lease.begin()
    assert bench.execute.state.host_drains.wait(10)
    yield bench
    bench.lease.end()


def test_an_engine_that_starts_again_does_not_open_a_worker_whose_host_drains(draining: Bench) -> None:
    assert not draining.execute.takes()
    draining.engine.dead = True
    draining.execute.state.ready.clear()
    assert draining.execute.state.ready.wait(10), "the engine is up again"
    assert not draining.execute.takes()


def test_a_worker_whose_host_is_called_back_takes_jobs_again(draining: Bench, store: Store) -> None:
    assert not draining.called_back.is_set()
    with store.begin() as db:
        db.execute(sa.text("UPDATE hosts SET drain_at = NULL"))
    assert draining.called_back.wait(10), "its taker is told to look"
    assert draining.execute.takes()


def test_a_job_that_was_taken_before_the_host_drained_still_runs(
    draining: Bench, store: Store, queued: Callable[..., Ticket]
) -> None:
    ticket = queued()
    draining.execute.run(ticket.job_id, ticket.enqueue_no)
    assert job(store, ticket).state is JobState.SUCCEEDED


def test_message_waits_for_an_engine_that_is_about_to_be_ready(
    bench: Bench, store: Store, queued: Callable[..., Ticket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.running.execute.NOT_READY_HOLD_S", 10)
    ticket = queued()
    bench.execute.state.ready.clear()
    thread = threading.Thread(target=run_job, args=(bench.execute, ticket.job_id, 1))
    thread.start()

    bench.execute.state.ready.set()
    thread.join(10)

    assert job(store, ticket).state is JobState.SUCCEEDED


def test_message_is_held_while_postgres_is_away_so_that_the_queue_is_not_emptied_for_nothing(
    bench: Bench, store: Store, settings: Settings, queued: Callable[..., Ticket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.running.execute.NOT_READY_HOLD_S", 0.3)
    ticket, port = queued(), sa.make_url(settings.database_url).port
    assert port is not None
    with Proxy(port) as proxy:
        away = settings.model_copy(update={"database_url": settings.database_url.replace(str(port), str(proxy.port))})
        own = Store(connections.postgres(away))
        execute = replace(bench.execute, store=own)
        proxy.turn(Mode.REFUSE)
        began = time.monotonic()
        execute.run(ticket.job_id, 1)
        assert time.monotonic() - began >= 0.3
        assert job(store, ticket).state is JobState.QUEUED

        proxy.turn(Mode.OK)
        execute.run(ticket.job_id, 1)
        own.close()
    assert job(store, ticket).state is JobState.SUCCEEDED


#: Each entry into the ledger meets what Postgres answers when its disk has no room. A sequence counts them: it is not
#: rolled back.
NO_ROOM = """
    CREATE SEQUENCE tries;
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN PERFORM nextval('tries'); RAISE EXCEPTION 'No space left on device' USING ERRCODE = 'disk_full'; END $$;
    CREATE TRIGGER full_disk BEFORE INSERT ON ledger FOR EACH ROW EXECUTE FUNCTION refuse()
"""


def test_answer_is_kept_until_a_full_postgres_has_room(
    bench: Bench, store: Store, queued: Callable[..., Ticket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.running.execute.REWRITE_AFTER_S", 0.02)
    with store.begin() as db:
        db.execute(sa.text(NO_ROOM))
    ticket = queued()
    thread = threading.Thread(target=run_job, args=(bench.execute, ticket.job_id, 1))
    thread.start()
    until, tries = time.monotonic() + 10, 0
    while tries < 2 and time.monotonic() < until:
        with store.begin() as db:
            tries = db.scalar(sa.text("SELECT last_value FROM tries WHERE is_called")) or 0
    with store.begin() as db:
        db.execute(sa.text("DROP FUNCTION refuse CASCADE; DROP SEQUENCE tries"))
    thread.join(10)

    assert tries >= 2
    assert job(store, ticket).state is JobState.SUCCEEDED
    assert len(entries(store)) == 1


@pytest.mark.parametrize("webhook_url", [None, "https://receiver.example"])
def test_answer_is_kept_until_a_read_only_postgres_takes_writes_again(
    bench: Bench,
    store: Store,
    queued: Callable[..., Ticket],
    read_only: Callable[[], AbstractContextManager[None]],
    monkeypatch: pytest.MonkeyPatch,
    webhook_url: str | None,
) -> None:
    ticket, refused, answer = queued(webhook_url=webhook_url), threading.Semaphore(0), bench.engine.generate

    def rest(_seconds: float) -> None:
        refused.release()
        threading.Event().wait(0.02)

    monkeypatch.setattr(bench.execute._is_closing, "wait", rest)
    with ExitStack() as turned:

        def generate(request: GenerationRequest, on_delta: OnDelta | None = None) -> Generation:
            turned.enter_context(read_only())
            return answer(request, on_delta)

        monkeypatch.setattr(bench.engine, "generate", generate)
        thread = threading.Thread(target=run_job, args=(bench.execute, ticket.job_id, 1))
        thread.start()
        assert all(refused.acquire(timeout=20) for _ in range(2))
    thread.join(20)

    assert job(store, ticket).state is JobState.SUCCEEDED
    assert entries(store) == [("compute", USD)]


def test_lease_that_ended_gives_its_jobs_up(bench: Bench, store: Store, queued: Callable[..., Ticket]) -> None:
    ticket, bench.engine.waits_for_abort = queued(), True
    bench.lease.begin()
    thread = threading.Thread(target=run_job, args=(bench.execute, ticket.job_id, 1))
    thread.start()
    assert bench.engine.started.wait(10)

    bench.lease.end()

    with store.begin() as db:
        assert [row.id for row in jobs.orphans(db)] == [ticket.job_id]
    bench.engine.aborted.set()
    thread.join(10)


def test_attempt_that_nobody_runs_is_given_up_by_its_living_worker(
    bench: Bench, store: Store, queued: Callable[..., Ticket]
) -> None:
    ticket = queued()
    with store.begin() as db:  # A claim whose reply was lost.
        one_attempt.claim(db, ticket.job_id, ticket.enqueue_no, bench.execute.state.id, "scripted")

    bench.lease.begin()
    orphans: list[UUID] = []
    until = time.monotonic() + 20
    while not orphans and time.monotonic() < until:
        with store.begin() as db:
            orphans = [row.id for row in jobs.orphans(db)]
    bench.lease.end()

    assert orphans == [ticket.job_id]


def test_attempt_that_was_taken_from_a_living_worker_is_stopped(
    bench: Bench, store: Store, queued: Callable[..., Ticket]
) -> None:
    ticket, bench.engine.waits_for_abort = queued(), True
    thread = threading.Thread(target=run_job, args=(bench.execute, ticket.job_id, 1))
    thread.start()
    assert bench.engine.started.wait(10)
    with store.begin() as db:
        db.execute(sa.text("UPDATE jobs SET state = 'waiting', worker_id = NULL, not_before = now()"))

    bench.lease.begin()
    assert bench.engine.aborted.wait(10)
    thread.join(10)
    bench.lease.end()

    assert entries(store) == []


def test_engine_minder_goes_on_after_a_start_that_cannot_succeed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    die(bench, monkeypatch, ConfigError("no such folder"), RuntimeError("a bug"), None)
    bench.lease.begin()
    assert bench.execute.state.ready.wait(10)
    bench.lease.end()


def test_an_engine_request_that_never_ends_gives_its_slot_and_cache_back(
    bench: Bench, store: Store, queued: Callable[..., Ticket]
) -> None:
    ticket = queued(webhook_url="https://receiver.example")
    bench.engine.waits_for_abort = True
    bench.execute.kv_budget.open(EngineLimits(2048, 4, kv_tokens=2048, kv_block_tokens=16), [])
    assert bench.execute.kv_budget.hold(ticket.job_id, ticket.lane, 8, 2000, False)
    assert not bench.execute.kv_budget.hold(new_id(), ticket.lane, 8, 2000, False)
    bench.lease.times = replace(bench.lease.times, max_run_s=0.2)
    bench.lease.begin()

    bench.execute.run(ticket.job_id, ticket.enqueue_no)

    bench.lease.end()
    done = job(store, ticket)
    assert (done.state, done.error_code) == (JobState.FAILED, "run_timeout")
    assert "max_run_s" in (done.error_message or "")
    assert entries(store) == [("compute", USD)], "it pays for what it produced"
    assert bench.heard.announced == [ticket.job_id]
    assert len(bench.execute.state.attempts) == 0
    assert bench.execute.kv_budget.hold(new_id(), ticket.lane, 8, 2000, False)
    assert not bench.gave_up.is_set()


def test_a_worker_whose_engine_does_not_let_go_of_a_request_takes_itself_out(
    bench: Bench, store: Store, queued: Callable[..., Ticket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.running.lease.ABORT_WITHIN_S", 0.1)
    ticket = queued()
    bench.engine.waits_for_abort, bench.engine.lets_go = True, False
    bench.lease.times = replace(bench.lease.times, max_run_s=0.1)
    bench.lease.begin()
    thread = threading.Thread(target=run_job, args=(bench.execute, ticket.job_id, ticket.enqueue_no))
    thread.start()

    assert bench.gave_up.wait(10)

    bench.lease.end()
    bench.engine.aborted.set()
    thread.join(10)
    assert not bench.execute.state.ready.is_set()
    with store.begin() as db:
        [(why, is_over)] = db.execute(sa.text("SELECT stop_reason, lease_until <= now() FROM workers"))
    assert is_over
    assert why.startswith("The engine has not ended 1 requests")


def test_a_prompt_that_killed_an_engine_alone_is_remembered(
    bench: Bench, store: Store, queued: Callable[..., Ticket]
) -> None:
    sampling = Sampling(max_tokens=16, temperature=0.7, stop=("END",), response_format={"type": "text"})
    ticket = queued(sampling=sampling)
    with store.begin() as db:
        db.execute(sa.update(jobs_table).values(suspicion=SUSPECT))
    bench.engine.error = EngineCrash("dead", made_tokens=0)

    bench.execute.run(ticket.job_id, ticket.enqueue_no)

    failed = job(store, ticket)
    assert failed.error_code == "engine_crash"
    assert "refused for a day" in (failed.error_message or "")
    with store.begin() as db:
        [(digest, job_id)] = db.execute(sa.select(poison_prompts.c.digest, poison_prompts.c.job_id))
    assert job_id == ticket.job_id
    assert bytes(digest) == prompt_digest("test-model", (Message("user", "What is a headrace?"),), sampling), (
        "what the door makes of it"
    )


def confine(bench: Bench, store: Store, queued: Callable[..., Ticket]) -> None:
    """Two prompts of the tests' app have killed engines, and the worker has renewed its lease since."""
    bench.execute.confining = Confining(store, 600)
    for _ in range(2):
        ticket, bench.engine.error = queued(), EngineCrash("dead", made_tokens=0)
        bench.execute.state.ready.set()
        bench.execute.run(ticket.job_id, 1)
        run_again(bench, store, ticket)
        assert job(store, ticket).error_code == "engine_crash"
    bench.engine.error = None
    bench.execute.state.ready.set()
    with store.begin() as db:
        confined = workers.renew(db, bench.execute.state.id, 10, WorkerReport(0, ready=True)).confined
    assert len(confined) == 1
    bench.execute.state.confined.set(confined)


def test_two_poison_prompts_confine_their_app_and_its_next_job_runs_while_another_is_held(
    bench: Bench, store: Store, queued: Callable[..., Ticket]
) -> None:
    confine(bench, store, queued)
    first, second = queued(), queued()
    bench.engine.waits_for_abort = True
    thread = threading.Thread(target=run_job, args=(bench.execute, first.job_id, 1))
    bench.engine.started.clear()
    thread.start()
    assert bench.engine.started.wait(10)
    ran = set(bench.engine.requests)

    bench.execute.run(second.job_id, 1)

    assert bench.engine.requests == ran, "the engine never saw it"
    held = job(store, second)
    assert (held.state, held.attempt) == (JobState.WAITING, 0)
    assert (held.route_reason or "").startswith("confined: ")
    bench.engine.aborted.set()
    thread.join(10)


def test_crashes_under_a_confined_apps_jobs_are_not_blamed_on_the_worker(
    bench: Bench, store: Store, queued: Callable[..., Ticket]
) -> None:
    confine(bench, store, queued)
    ticket, bench.engine.error = queued(), EngineCrash("dead", made_tokens=0)
    bench.execute.run(ticket.job_id, 1)
    run_again(bench, store, ticket)
    assert job(store, ticket).error_code == "engine_crash"
    crashes = [bench.execute.state.crashes.note() for _ in range(7)]
    assert crashes == [False] * 6 + [True], "four of its crashes are explained"
