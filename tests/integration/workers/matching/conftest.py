"""A matcher over real servers, and jobs in their queues that it looks up."""

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from redis import Redis

from headrace.broker.admission import Admission
from headrace.broker.reuse import Lookups
from headrace.config import Settings
from headrace.domain.attempts import AttemptEnd, Claim, Usage
from headrace.domain.fleet import WorkerInfo
from headrace.domain.ids import new_id
from headrace.domain.jobs import Inserted, JobSpec
from headrace.domain.limits import Cost
from headrace.domain.prompts import Message, Sampling
from headrace.domain.queues import Ticket
from headrace.domain.states import JobState
from headrace.store import Store, jobs
from headrace.store.fleet import workers
from tests import one_attempt
from tests.integration.matching import ANSWER, ASKED, WordEngine, engine_of, with_semantic_cache
from workers.matching import Matcher


@pytest.fixture
def words() -> WordEngine:
    return WordEngine()


@pytest.fixture
def lookups(redis: Redis) -> Lookups:
    """Open: a worker has asked for jobs."""
    made = Lookups(redis, "embed")
    made.take(1)
    return made


Make = Callable[..., Matcher]


@pytest.fixture
def make(settings: Settings, store: Store, words: WordEngine, lookups: Lookups, admission: Admission) -> Make:
    def build(roll: float = 0.5, **changes: Any) -> Matcher:
        on = with_semantic_cache(settings, **changes)
        return Matcher(on, store, engine_of(words), lookups, admission, lambda: roll)

    return build


@pytest.fixture
def matcher(make: Make) -> Matcher:
    return make()


@pytest.fixture
def ask(
    store: Store,
    admission: Admission,
    make_spec: Callable[..., JobSpec],
    insert_job: Callable[[JobSpec], Inserted],
) -> Callable[..., Ticket]:
    """Queues a job with its message, as the door does it."""

    def queue(text: str = ASKED, before: tuple[Message, ...] = (), **changes: Any) -> Ticket:
        messages = (*before, Message("user", text))
        values = {"messages": messages, "sampling": Sampling(max_tokens=16, temperature=0.0), **changes}
        spec = make_spec(**{"cache_key": f"key of {text}".encode(), "is_cache_miss": True, **values})
        insert_job(spec)
        with store.begin() as db:
            ticket = jobs.find(db, spec.app_id, spec.id).ticket
        admission.commit([ticket], {spec.id: "embed"})
        return ticket

    return queue


@pytest.fixture
def claim(store: Store) -> Callable[[Ticket], Claim | None]:
    """What a worker of the job's pool gets for its message."""

    def take(ticket: Ticket) -> Claim | None:
        worker = WorkerInfo(new_id(), "gpu@test", "host-1", "chat", "simulator", "served", 8, 2048, 65_536, 16)
        with store.begin() as db:
            workers.register(db, worker, 30)
            return one_attempt.claim(db, ticket.job_id, ticket.enqueue_no, worker.id, "simulator")

    return take


@pytest.fixture
def answer(store: Store, admission: Admission, claim: Callable[[Ticket], Claim | None]) -> Callable[..., None]:
    """Runs a queued job to its end."""

    def end(ticket: Ticket, text: str = ANSWER, finish_reason: str = "stop") -> None:
        held = claim(ticket)
        assert held is not None
        cost = Cost(Decimal("0.5"), "v1")
        done = AttemptEnd("succeeded", 0.5, cost, "compute", Usage(9, 7, 2), text, finish_reason, "served")
        with store.begin() as db:
            assert one_attempt.finish(db, held, JobState.SUCCEEDED, done)
        admission.leave([(ticket.job_id, ticket.enqueue_no)])

    return end


@pytest.fixture
def trust(query: Callable[..., Any]) -> Callable[..., None]:
    """Lets an entry have passed this number of tries."""

    def learn(entry_id: UUID, tries: int = 60, *, right: bool = True) -> None:
        query(
            "INSERT INTO cache_matches (job_id, app_id, pool, entry_id, similarity, kind, is_right, at)"
            " SELECT gen_random_uuid(), app_id, pool, job_id, 0.85, 'try', :right, now() - interval '1 h'"
            " FROM cache_entries, generate_series(1, :tries) WHERE job_id = :id",
            id=entry_id,
            tries=tries,
            right=right,
        )

    return learn


@pytest.fixture
def entry(
    matcher: Matcher,
    ask: Callable[..., Ticket],
    answer: Callable[..., None],
    trust: Callable[..., None],
) -> Callable[..., Ticket]:
    """Makes an entry of the cache: a job that was looked up and answered. `tries`: those that it has passed."""

    def make(text: str = ASKED, said: str = ANSWER, tries: int = 60, **changes: Any) -> Ticket:
        ticket = ask(text, **changes)
        assert matcher.look_up() == 1
        answer(ticket, said)
        trust(ticket.job_id, tries)
        return ticket

    return make


@pytest.fixture
def grow_old(query: Callable[..., Any]) -> Callable[[UUID, timedelta], None]:
    """Lets a job have ended so long ago."""

    def move(job_id: UUID, by: timedelta) -> None:
        query("UPDATE jobs SET ended_at = ended_at - :by WHERE id = :id", by=by, id=job_id)

    return move
