"""Jobs whose engines begin before their claims are on disk: nothing leaves the worker before, or at all if it fails."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from redis import Redis

from headrace.broker.streams import Streams
from headrace.config import Settings
from headrace.connections import postgres
from headrace.domain.attempts import Outcome, Usage
from headrace.domain.queues import KEY_PREFIX, Ticket
from headrace.domain.states import JobState
from headrace.errors import EngineFault, StoreUnavailable
from headrace.store import Store, jobs
from headrace.tables import attempts, ledger
from headrace.tables import jobs as jobs_table
from tests.integration.workers.conftest import Make, job
from workers.engines.base import Delta, EngineLimits, Generation, GenerationRequest, OnDelta, Progress
from workers.running.execute import Execute
from workers.running.lease import Lease, LeaseTimes
from workers.running.publisher import Notices

DEADLINE_S = 20
ANSWER = "An answer."


@dataclass
class QuickEngine:
    """Answers at once, or says its answer and waits for its abort.

    Attributes:
        said: set once it has said its answer.
        ignores: aborts that it does not hear: those of a request that it does not have yet.
    """

    name: str = "quick"
    continues: bool = True
    waits_for_abort: bool = False
    error: EngineFault | None = None
    ignores: int = 0
    requests: list[str] = field(default_factory=list)
    said: threading.Event = field(default_factory=threading.Event)
    aborted: threading.Event = field(default_factory=threading.Event)

    def start(self) -> EngineLimits:
        return EngineLimits(2048, 4)

    def generate(self, request: GenerationRequest, on_delta: OnDelta | None = None) -> Generation:
        self.requests.append(request.request_id)
        if on_delta is not None:
            on_delta(Delta(ANSWER))
        self.said.set()
        if self.error is not None:
            raise self.error
        if self.waits_for_abort:
            assert self.aborted.wait(DEADLINE_S)
        return Generation(ANSWER, Usage(8, 3), "abort" if self.waits_for_abort else "stop", "quick-model")

    def abort(self, request_id: str) -> None:
        self.ignores -= 1
        if self.ignores < 0:
            self.aborted.set()

    def progress(self) -> dict[str, Progress]:
        return {}

    def check(self) -> None: ...

    def stop(self) -> None: ...


class SlowDisk(Store):
    """Writes to its disk when the test lets it, or crashes and loses what was not written, or loses the reply.

    Attributes:
        writes: set while it writes.
        loses: what happens at the next write.
    """

    def __init__(self, engine: sa.Engine) -> None:
        super().__init__(engine)
        self.writes = threading.Event()
        self.writes.set()
        self.loses: str | None = None

    def wait_for_disk(self) -> None:
        assert self.writes.wait(DEADLINE_S)
        loses, self.loses = self.loses, None
        if loses == "claims":
            self._forget_claims()
        super().wait_for_disk()
        if loses is not None:
            raise StoreUnavailable("Postgres was gone.")

    def _forget_claims(self) -> None:
        """Leave the jobs as Postgres finds them after a crash before their claims were on disk."""
        with self.begin() as db:
            db.execute(sa.delete(attempts))
            db.execute(sa.update(jobs_table).values(state=JobState.QUEUED, attempt=0, worker_id=None, started_at=None))


class Heard(Notices):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.announced, self.places = list[UUID](), list[tuple[UUID, int]]()

    def left(self, job_id: UUID, enqueue_no: int) -> None:
        self.places.append((job_id, enqueue_no))

    def ended(self, job_id: UUID, *, has_webhook: bool) -> None:
        self.announced.append(job_id)


@dataclass
class Bench:
    """A worker without Celery, whose claims go through `slow`."""

    execute: Execute
    lease: Lease
    engine: QuickEngine
    heard: Heard
    slow: SlowDisk
    threads: list[threading.Thread] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)

    def run(self, ticket: Ticket) -> threading.Thread:
        """Run the job as after a take, in a thread of its own."""

        def run() -> None:
            self.outcomes.append(self.execute.run(ticket.job_id, ticket.enqueue_no).result(DEADLINE_S))

        self.execute.expect({ticket.job_id: ticket.enqueue_no})
        thread = threading.Thread(target=run)
        self.threads.append(thread)
        thread.start()
        return thread

    def end(self) -> None:
        """Wait until every job has ended."""
        for thread in self.threads:
            thread.join(DEADLINE_S)
            assert not thread.is_alive()


@pytest.fixture
def bench(bare_worker: Make, store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr("workers.running.execute.NOT_READY_HOLD_S", 0.01)
    engine, heard = QuickEngine(), Heard()
    slow = SlowDisk(postgres(settings))
    execute = bare_worker(engine, heard, slow)
    lease = Lease(execute.state, store, engine, LeaseTimes(settings.lease_s, 0.02), lambda: None)
    yield Bench(execute, lease, engine, heard, slow)
    slow.writes.set()
    engine.aborted.set()
    execute.recorder.close()
    slow.close()


def bills(store: Store) -> list[str]:
    with store.begin() as db:
        return list(db.scalars(sa.select(ledger.c.kind)))


def heard_text(redis: Redis, ticket: Ticket) -> str:
    return "".join(event.text for event in Streams(redis).read(ticket.job_id) if event.kind == "delta")


def has_stream(redis: Redis, ticket: Ticket) -> bool:
    return bool(redis.exists(f"{KEY_PREFIX}stream:{ticket.job_id.hex}"))


def assert_nothing_left(bench: Bench, store: Store, redis: Redis, ticket: Ticket, attempt: int) -> None:
    found: Any = (bench.heard.places, bench.heard.announced, has_stream(redis, ticket), bills(store))
    assert found == ([], [], False, [])
    assert job(store, ticket).attempt == attempt
    assert job(store, ticket).state is (JobState.RUNNING if attempt else JobState.QUEUED)


@pytest.mark.parametrize("error", [None, EngineFault("broken")])
def test_engine_begins_before_the_claim_is_on_disk_and_nothing_leaves_the_worker_before_it(
    bench: Bench, store: Store, redis: Redis, queued: Callable[..., Ticket], error: EngineFault | None
) -> None:
    ticket, bench.engine.error = queued(stream=True), error
    bench.slow.writes.clear()
    thread = bench.run(ticket)
    assert bench.engine.said.wait(DEADLINE_S)
    thread.join(0.2)
    assert thread.is_alive(), "the end waits for the disk, too"
    assert_nothing_left(bench, store, redis, ticket, attempt=1)

    bench.slow.writes.set()
    bench.end()

    assert bench.heard.places == [(ticket.job_id, 1)]
    assert heard_text(redis, ticket) == ANSWER
    assert len(bills(store)) == 1
    assert job(store, ticket).state is (JobState.WAITING if error else JobState.SUCCEEDED)


@pytest.mark.parametrize("ignores", [0, 1])
def test_a_job_whose_claim_is_lost_is_aborted_and_runs_once_more(
    bench: Bench, store: Store, redis: Redis, queued: Callable[..., Ticket], ignores: int
) -> None:
    ticket = queued(stream=True)
    bench.engine.waits_for_abort, bench.engine.ignores = True, ignores
    bench.slow.writes.clear()
    bench.slow.loses = "claims"
    bench.run(ticket)
    assert bench.engine.said.wait(DEADLINE_S)
    bench.slow.writes.set()
    bench.lease.begin()
    bench.end()
    bench.lease.end()

    assert bench.outcomes == [Outcome(JobState.QUEUED, StoreUnavailable.code)]
    assert bench.engine.aborted.is_set()
    assert_nothing_left(bench, store, redis, ticket, attempt=0)

    # The lease of the test's first part is over.
    with store.begin() as db:
        db.execute(sa.text("UPDATE workers SET lease_until = now() + interval '1 minute', stopped_at = NULL"))
    bench.engine.waits_for_abort = False
    bench.run(ticket)
    bench.end()

    done = job(store, ticket)
    assert (done.state, done.answer, done.attempt) == (JobState.SUCCEEDED, ANSWER, 1)
    assert (heard_text(redis, ticket), bills(store)) == (ANSWER, ["compute"])
    assert (bench.heard.places, bench.heard.announced) == ([(ticket.job_id, 1)], [ticket.job_id])


def test_a_job_whose_claim_is_on_disk_unknown_to_its_worker_is_given_up(
    bench: Bench, store: Store, redis: Redis, queued: Callable[..., Ticket]
) -> None:
    ticket, bench.slow.loses = queued(stream=True), "reply"
    bench.run(ticket)
    bench.end()
    assert (job(store, ticket).state, bench.heard.places, bills(store)) == (JobState.RUNNING, [], [])
    assert not has_stream(redis, ticket)

    bench.lease.begin()
    orphans: list[UUID] = []
    end = threading.Event()
    for _ in range(1000):
        with store.begin() as db:
            orphans = [row.id for row in jobs.orphans(db)]
        if orphans or end.wait(0.02):
            break
    bench.lease.end()
    assert orphans == [ticket.job_id], "rescue takes it back"
