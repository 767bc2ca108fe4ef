"""A semantic cache over real servers, whose questions a given engine embeds; the answers are the test's."""

from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from headrace import connections
from headrace.broker.admission import Admission
from headrace.broker.messages import ExecuteMessage, make_celery
from headrace.broker.rates import Pace
from headrace.broker.reuse import Lookups
from headrace.config import PROJECT_ROOT, Settings
from headrace.connections.redis import redis_client
from headrace.domain.attempts import AttemptEnd, Usage
from headrace.domain.fleet import WorkerInfo
from headrace.domain.ids import new_id
from headrace.domain.jobs import JobSpec
from headrace.domain.limits import Cost
from headrace.domain.prompts import Message, Sampling
from headrace.domain.queues import Candidate, Lane, Ticket
from headrace.domain.states import JobState
from headrace.store import Store, apps, jobs
from headrace.store.fleet import workers
from headrace.store.jobs.insertion import insert_batch
from headrace.tables import cache_matches
from headrace.tables import jobs as jobs_table
from scheduler.deps import ControlDeps
from scheduler.learn import judge_matches
from tests import one_attempt
from tests.integration.matching import with_semantic_cache
from workers.engines.base import Engine
from workers.matching import Matcher


class Meaning:
    """The cache of one app, with the steps of a job's way."""

    def __init__(self, deps: ControlDeps, matcher: Matcher) -> None:
        self._deps, self._matcher = deps, matcher
        with deps.store.begin() as db:
            self._app = apps.ensure(db, "test")

    def ask(self, text: str) -> Ticket:
        """Queue a job, and look it up."""
        messages, sampling = (Message("user", text),), Sampling(max_tokens=16, temperature=0.0)
        where = new_id(), self._app.id, "test-model", "chat", Lane.NORMAL
        spec = JobSpec(*where, messages, sampling, prompt_tokens=8, max_wait_s=60.0, cache_key=text.encode())
        insert_batch(self._deps.store, [(spec, Candidate("chat.normal", 1, 1, None, "test"))])
        with self._deps.store.begin() as db:
            ticket = jobs.find(db, self._app.id, spec.id).ticket
        self._deps.admission.commit([ticket], {spec.id: "embed"})
        assert self._matcher.look_up() == 1
        return ticket

    def answer(self, ticket: Ticket, text: str) -> None:
        """Run the job to its end, and compare its answer with that of the entry that it tested."""
        worker = WorkerInfo(new_id(), "gpu@test", "host-1", "chat", "simulator", "served", 8, 2048, 65_536, 16)
        done = AttemptEnd(
            "succeeded", 0.5, Cost(Decimal("0.5"), "v1"), "compute", Usage(9, 7, 2), text, "stop", "served"
        )
        with self._deps.store.begin() as db:
            workers.register(db, worker, 30)
            claim = one_attempt.claim(db, ticket.job_id, ticket.enqueue_no, worker.id, "simulator")
            assert claim is not None
            assert one_attempt.finish(db, claim, JobState.SUCCEEDED, done)
        judge_matches(self._deps)

    def found(self, ticket: Ticket) -> tuple[JobState, str | None]:
        """The job's state, and what became of it in the cache; None if the guard let no entry pass."""
        with self._deps.store.begin() as db:
            state = db.scalar(sa.select(jobs_table.c.state).where(jobs_table.c.id == ticket.job_id))
            kind = db.scalar(sa.select(cache_matches.c.kind).where(cache_matches.c.job_id == ticket.job_id))
        return JobState(str(state)), kind


@contextmanager
def meaning(engine: Engine, database_url: str, redis_url: str) -> Iterator[Meaning]:
    """A cache without entries."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE_URL", database_url)
        command.upgrade(Config(toml_file=PROJECT_ROOT / "pyproject.toml"), "head")
    settings = Settings.load(database_url=database_url, redis_url=redis_url, engine="simulator", pepper="of-the-tests")
    settings = with_semantic_cache(settings)
    store, redis = Store(connections.postgres(settings)), redis_client(settings)
    redis.flushall()
    with make_celery("test", settings) as celery:
        admission = Admission(redis, ExecuteMessage(celery), reservation_ttl_s=30)
        lookups = Lookups(redis, "embed")
        lookups.take(1)
        # No job is chosen for a recheck.
        matcher = Matcher(settings, store, engine, lookups, admission, lambda: 0.99)
        yield Meaning(ControlDeps(settings, store, admission, Pace(redis)), matcher)
    redis.close()
    store.close()
