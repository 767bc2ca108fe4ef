"""A claim does not wait for the disk. Postgres is killed before it is there: the job runs again, and counts once.

This file has a Postgres of its own. It writes its log to the disk for commits that wait, and otherwise every 10 s.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from typing import Literal
from uuid import UUID

import psycopg
import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from redis import Redis

from headrace.broker.admission import Admission
from headrace.broker.messages import list_key, named_in
from headrace.broker.rates import Pace
from headrace.broker.streams import Streams
from headrace.broker.transport import LaneCycle
from headrace.config import PROJECT_ROOT, Settings
from headrace.connections import postgres
from headrace.domain.attempts import Outcome
from headrace.domain.queues import Lane, Ticket, books_key
from headrace.domain.states import JobState
from headrace.errors import StackError, StoreUnavailable
from headrace.stack.ports import free_port
from headrace.stack.postgres import Postgres
from headrace.store import Store
from headrace.store.jobs import queued as queued_jobs
from headrace.tables import attempts, ledger
from scheduler import sweep
from scheduler.deps import ControlDeps
from tests.integration.workers.conftest import Make, job
from tests.integration.workers.running.quick import ANSWER, DEADLINE_S, QuickEngine
from tests.waiting import until
from workers.engines.base import EngineLimits
from workers.running.execute import ELSEWHERE
from workers.running.publisher import Notices
from workers.taking.kv_budget import KvBudget
from workers.taking.taker import KvTaker

QUEUE = "chat.normal"
Stays = Sequence[tuple[UUID, int]]


class Crashing:
    """A Postgres that is killed and started again."""

    def __init__(self, server: Postgres) -> None:
        self.server = server
        self._running = ExitStack()

    def start(self) -> None:
        # Processes of the killed one may take a moment to end.
        until(self._starts, "Postgres starts", DEADLINE_S)

    def _starts(self) -> bool:
        with suppress(StackError):
            self._child = self._running.enter_context(self.server.running())
            return True
        return False

    def stop(self) -> None:
        self._running.close()

    def kill(self, victim: Literal["postmaster", "backend"]) -> None:
        """Kill it, and wait until it serves again."""
        began = self._began()
        if victim == "postmaster":
            self._child.signal(signal.SIGKILL)
            self._child.wait(DEADLINE_S)
            self._running.close()
            self.start()
        else:
            with self.connected() as db, suppress(psycopg.OperationalError):
                os.kill(db.info.backend_pid, signal.SIGKILL)
                db.execute("SELECT")
        until(lambda: self._began() not in (began, ""), "it serves again", DEADLINE_S)

    @contextmanager
    def connected(self) -> Iterator[psycopg.Connection]:
        with psycopg.connect(self.server.url.replace("+psycopg", ""), autocommit=True) as db:
            yield db

    def _began(self) -> str:
        """When its checkpointer began: anew after each crash. Empty while it does not answer."""
        query = "SELECT backend_start FROM pg_stat_activity WHERE backend_type = 'checkpointer'"
        with suppress(psycopg.OperationalError), self.connected() as db:
            return str(db.execute(query).fetchone())
        return ""


@pytest.fixture(scope="module")
def crashing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crashing]:
    made = Crashing(Postgres(tmp_path_factory.mktemp("crashing") / "postgres", free_port()))
    made.start()
    with made.connected() as db:
        for setting in ("wal_writer_delay = '10s'", "autovacuum = off"):
            db.execute(f"ALTER SYSTEM SET {setting}".encode())
        db.execute("SELECT pg_reload_conf()")
    yield made
    made.stop()


@pytest.fixture(scope="module")
def migrated_url(crashing: Crashing) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE_URL", crashing.server.url)
        command.upgrade(Config(toml_file=PROJECT_ROOT / "pyproject.toml"), "head")
    return crashing.server.url


@pytest.fixture
def deps(settings: Settings, store: Store, admission: Admission, redis: Redis) -> ControlDeps:
    hasty = settings.model_copy(update={"publish_grace_s": 0.001})
    return ControlDeps(hasty, store, admission, Pace(redis))


@pytest.fixture
def gate() -> threading.Event:
    """Until it is set, no notice asks Postgres: that would put the claims on the disk."""
    return threading.Event()


@pytest.fixture
def own(settings: Settings) -> Iterator[Store]:
    """The workers' pool."""
    made = Store(postgres(settings))
    yield made
    made.close()


@pytest.fixture
def notices(admission: Admission, own: Store, gate: threading.Event) -> Iterator[Notices]:
    def over(stays: Stays) -> Stays:
        assert gate.wait(DEADLINE_S)
        return queued_jobs.over(own, stays)

    made = Notices(admission, over)
    yield made
    gate.set()
    made.close()


def take(redis: Redis) -> None:
    """Take the next message as a worker does."""

    class Silent:
        def progress(self) -> dict[str, object]:
            return {}

    cycle = LaneCycle(dict.fromkeys(Lane, 1))
    cycle.update([QUEUE])
    taker = KvTaker(redis, "chat")
    budget = KvBudget(Silent(), "expected", 0.0, freed=taker.look)  # type: ignore[arg-type]
    budget.open(EngineLimits(None, max_running=100, kv_tokens=16_000, kv_block_tokens=16))
    taker.open(budget, lambda: True, lambda: 8)
    assert len(taker.take(cycle, 1, 1)) == 1


def listed(redis: Redis) -> list[tuple[UUID, int] | None]:
    return [named_in(message) for message in redis.lrange(list_key(QUEUE), 0, -1)]


def bills(store: Store) -> list[str]:
    with store.begin() as db:
        return list(db.scalars(sa.select(ledger.c.kind)))


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("again", ["the same worker", "another", "another, the first is dead"])
@pytest.mark.parametrize("victim", ["postmaster", "backend"])
def test_a_job_whose_claim_postgres_forgot_runs_once_more_and_is_answered_and_billed_once(
    crashing: Crashing,
    bare_worker: Make,
    notices: Notices,
    gate: threading.Event,
    deps: ControlDeps,
    store: Store,
    own: Store,
    redis: Redis,
    admission: Admission,
    queued: Callable[..., Ticket],
    victim: Literal["postmaster", "backend"],
    again: str,
    stream: bool,
) -> None:
    first, second = QuickEngine(), QuickEngine()
    worker = bare_worker(first, notices, own)
    other = worker if again == "the same worker" else bare_worker(second, notices, own)
    ticket = queued(stream=stream)
    admission.commit([ticket])
    take(redis)
    first.may_end.clear()
    with ThreadPoolExecutor(2) as threads:
        forgotten = threads.submit(worker.run, ticket.job_id, 1)
        assert first.said.wait(DEADLINE_S)
        assert job(store, ticket).state is JobState.RUNNING

        crashing.kill(victim)
        until(lambda: _answers(store) and _answers(own), "the pools have new connections", DEADLINE_S)
        assert job(store, ticket).state is JobState.QUEUED, "the claim was not on the disk"

        if again != "another, the first is dead":
            gate.set()
            until(lambda: not notices._claimed, "the notice has been sent")
        until(lambda: sweep.publish_due(deps) == 1, "the sweep finds it", DEADLINE_S)
        assert listed(redis) == [(ticket.job_id, 2)]
        take(redis)

        repeated = threads.submit(other.run, ticket.job_id, 2)
        until(lambda: len(first.requests + second.requests) == 2, "it is claimed", DEADLINE_S)
        assert worker.run(ticket.job_id, 1) == ELSEWHERE, "the first number is worth nothing any more"
        if other is not worker:
            assert repeated.result(DEADLINE_S) == Outcome(JobState.SUCCEEDED)
        first.may_end.set()
        assert forgotten.result(DEADLINE_S) == ELSEWHERE
        assert repeated.result(DEADLINE_S) == Outcome(JobState.SUCCEEDED)

    done = job(store, ticket)
    assert (done.state, done.answer, done.attempt, done.enqueue_no) == (JobState.SUCCEEDED, ANSWER, 1, 2)
    assert bills(store) == ["compute"]
    with store.begin() as db:
        assert db.execute(sa.select(attempts.c.number, attempts.c.outcome)).all() == [(1, "succeeded")]
    if stream:
        events = Streams(redis).read(ticket.job_id)
        assert "".join(event.text for event in events if event.kind == "delta") == ANSWER
    gate.set()
    until(lambda: admission.loads([QUEUE])[QUEUE].jobs == 0, "it has left its queue", DEADLINE_S)
    until(
        lambda: (sweep.publish_due(deps), redis.zcard(books_key("taken", QUEUE))) == (0, 0), "it is settled", DEADLINE_S
    )


def test_without_the_look_at_the_disk_such_a_job_would_be_lost(
    crashing: Crashing,
    bare_worker: Make,
    deps: ControlDeps,
    store: Store,
    own: Store,
    redis: Redis,
    admission: Admission,
    queued: Callable[..., Ticket],
) -> None:
    engine, hasty = QuickEngine(), Notices(admission, lambda stays: stays)
    worker, ticket = bare_worker(engine, hasty, own), queued()
    admission.commit([ticket])
    take(redis)
    engine.may_end.clear()
    with ThreadPoolExecutor(1) as threads:
        forgotten = threads.submit(worker.run, ticket.job_id, 1)
        until(lambda: admission.loads([QUEUE])[QUEUE].jobs == 0, "it has left its queue", DEADLINE_S)
        crashing.kill("backend")
        until(lambda: _answers(store) and _answers(own), "the pools have new connections", DEADLINE_S)
        engine.may_end.set()
        assert forgotten.result(DEADLINE_S) == ELSEWHERE
    hasty.close()
    deps.admission.check(QUEUE, "", queued_jobs_mark(store))
    assert (sweep.publish_due(deps), listed(redis)) == (0, [])
    assert job(store, ticket).state is JobState.QUEUED


def queued_jobs_mark(store: Store) -> str:
    """A mark that says that every job was looked at."""
    with store.begin() as db:
        return f"{queued_jobs.timeline(db)} infinity {UUID(int=0)}"


def _answers(store: Store) -> bool:
    with suppress(StoreUnavailable), store.begin() as db:
        return bool(db.scalar(sa.text("SELECT true")))
    return False


def test_a_claim_that_is_on_the_disk_survives_a_crash_and_leaves_the_books(
    crashing: Crashing,
    bare_worker: Make,
    notices: Notices,
    gate: threading.Event,
    deps: ControlDeps,
    store: Store,
    own: Store,
    redis: Redis,
    admission: Admission,
    queued: Callable[..., Ticket],
) -> None:
    engine = QuickEngine()
    worker, ticket = bare_worker(engine, notices, own), queued()
    admission.commit([ticket])
    take(redis)
    gate.set()
    engine.may_end.clear()
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(worker.run, ticket.job_id, 1)
        until(lambda: admission.loads([QUEUE])[QUEUE].jobs == 0, "it has left its queue", DEADLINE_S)
        crashing.kill("postmaster")
        until(lambda: _answers(store), "the pool has new connections", DEADLINE_S)
        assert job(store, ticket).state is JobState.RUNNING
        assert sweep.publish_due(deps) == 0
        engine.may_end.set()
        assert running.result(DEADLINE_S) == Outcome(JobState.SUCCEEDED)
    assert bills(store) == ["compute"]
