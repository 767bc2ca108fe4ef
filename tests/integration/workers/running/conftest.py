"""A worker without Celery, with the engine, the notices and the store of a test."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import NamedTuple
from uuid import UUID

import pytest
from redis import Redis

from headrace.broker.streams import Streams
from headrace.config import Settings
from headrace.domain.attempts import Outcome
from headrace.domain.fleet import WorkerInfo
from headrace.domain.ids import new_id
from headrace.domain.queues import Route
from headrace.policies.pricing import Tariff
from headrace.policies.retries import RetryRules
from headrace.store import Store
from headrace.store.fleet import workers
from workers.engines.base import Engine
from workers.running.bill import Bill
from workers.running.execute import Execute
from workers.running.generating import Generating
from workers.running.notices import Notices
from workers.running.publisher import Publisher
from workers.running.recorder import Recorder
from workers.running.worker_state import WorkerState
from workers.taking.kv_budget import KvBudget


class Bare(NamedTuple):
    """The use case, and the state that its lease would show."""

    execute: Execute
    state: WorkerState


#: Makes a ready worker of this engine, with these notices, whose attempts this store records.
Make = Callable[[Engine, Notices, Store], Bare]


def run_job(execute: Execute, job_id: UUID, enqueue_no: int) -> Outcome:
    """Run the job of this message; returns once its outcome is on disk."""
    return execute.run(job_id, enqueue_no).result(20)


@pytest.fixture
def bare_worker(store: Store, settings: Settings, redis: Redis) -> Iterator[Make]:
    with ExitStack() as running:

        def make(engine: Engine, notices: Notices, recorder: Store) -> Bare:
            info = WorkerInfo(new_id(), "gpu@test", "host", "chat", engine.name, "m", 4)
            with store.begin() as db:
                workers.register(db, info, settings.lease_s)
            state, publisher = WorkerState(info.id), Publisher(Streams(redis))
            execute = Execute(
                state,
                Generating(engine, KvBudget(engine, "expected", 0.0, freed=lambda: None), publisher),
                Recorder(recorder, state.id, engine.name, notices, publisher),
                Bill(Tariff.of(settings), Route.POOL, "host"),
                RetryRules(2),
            )
            publisher.begin()
            running.callback(publisher.end)
            running.callback(execute.recorder.close)
            state.ready.set()
            return Bare(execute, state)

        yield make
