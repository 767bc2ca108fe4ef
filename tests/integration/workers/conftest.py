"""A worker without Celery, with the engine, the notices and the store of a test."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any
from uuid import UUID

import pytest
from redis import Redis

from headrace.broker.streams import Streams
from headrace.config import Settings
from headrace.domain.attempts import Outcome
from headrace.domain.fleet import WorkerInfo
from headrace.domain.ids import new_id
from headrace.domain.jobs import Job
from headrace.domain.queues import Route, Ticket
from headrace.policies.pricing import Tariff
from headrace.policies.retries import RetryRules
from headrace.store import Store, jobs
from headrace.store.fleet import workers
from workers.confining import Confining
from workers.running.bill import Bill
from workers.running.execute import Execute
from workers.running.publisher import Notices, Publisher
from workers.running.worker_state import WorkerState
from workers.taking.kv_budget import KvBudget

#: Makes a ready worker of this engine, with these notices. By name: what differs from the usual worker.
Make = Callable[..., Execute]


def run_job(execute: Execute, job_id: UUID, enqueue_no: int) -> Outcome:
    """Run the job of this message; returns once its outcome is on disk."""
    return execute.run(job_id, enqueue_no)


def job(store: Store, ticket: Ticket) -> Job:
    with store.begin() as db:
        return jobs.find(db, ticket.app_id, ticket.job_id)


@pytest.fixture
def bare_worker(store: Store, settings: Settings, redis: Redis) -> Iterator[Make]:
    with ExitStack() as running:

        def make(
            engine: Any,
            notices: Notices,
            own: Store = store,
            pool: str = "chat",
            redis: Redis = redis,
            **parts: Any,
        ) -> Execute:
            """Args: own: its Postgres. redis: has the streams. parts: of `Execute`."""
            info = WorkerInfo(new_id(), f"{pool}@test", "host", pool, engine.name, "m", 4)
            with store.begin() as db:
                workers.register(db, info, settings.lease_s)
            publisher = Publisher(Streams(redis))
            usual = {"bill": Bill(Tariff.of(settings), Route.POOL, "host"), "rules": RetryRules(2)}
            execute = Execute(
                state=WorkerState(info.id),
                store=own,
                engine=engine,
                kv_budget=KvBudget(engine, "expected", 0.0, freed=lambda: None),
                publisher=publisher,
                notices=notices,
                **{"confining": Confining(own), **usual, **parts},
            )
            publisher.begin()
            running.callback(publisher.end)
            running.callback(execute.close)
            execute.state.ready.set()
            return execute

        yield make
