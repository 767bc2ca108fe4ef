"""Records what one version says to Postgres in the life of some jobs, as SQL that another version's schema is tried on.

In a checkout of that release, with the number of its last migration as the file's name, in place of the one before:

    .venv/bin/python tests/migrations/record.py > 0100.sql

Every statement is the version's own, from its own use cases, with its parameters written in.
"""

import re
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from alembic import command
from alembic.config import Config

from headrace import connections
from headrace.broker.admission import Admission
from headrace.broker.messages import ExecuteMessage, make_celery
from headrace.broker.rates import Pace
from headrace.config import PROJECT_ROOT, BudgetSettings, Settings
from headrace.connections.redis import redis_client
from headrace.domain.apps import App
from headrace.domain.attempts import AttemptEnd, Claim, Usage
from headrace.domain.deliveries import Terms
from headrace.domain.fleet import WorkerInfo, WorkerReport
from headrace.domain.ids import time_of
from headrace.domain.jobs import Idempotency, JobSpec
from headrace.domain.limits import Cost, SpendingLimits
from headrace.domain.prompts import Message, Sampling
from headrace.domain.queues import Candidate, Lane, Overflow
from headrace.domain.states import JobState
from headrace.stack.ports import free_port
from headrace.stack.postgres import Postgres
from headrace.stack.valkey import Valkey
from headrace.store import Store, apps, attempts, clock, deliveries, jobs, keys, months
from headrace.store.attempts import claim_of
from headrace.store.cache import exact_cache
from headrace.store.cache.exact_cache import Follower, Hit, Question, Settled
from headrace.store.fleet import workers
from headrace.store.jobs import queued
from headrace.store.jobs.insertion import insert_batch
from plugins.batches import store as batches
from plugins.batches.domain import BatchState, LineState, NewLine, ProviderState, noted
from plugins.batches.store import line_texts, provider_batches
from scheduler import sweep
from scheduler.autoscale import autoscale
from scheduler.deps import ControlDeps
from scheduler.money import watch_budgets
from scheduler.observe import observe
from scheduler.rescue import Patience, rescue

WORKER, SECOND = UUID(int=0xA1), UUID(int=0xA2)
PLAIN, HOOKED, LOST, LEADER, FOLLOWER, ANSWERED = (
    UUID(int=0x01A21000_0000_7000_8000_000000000000 + number) for number in range(1, 7)
)
#: Of the last three, whose prompts are alike.
CACHE_KEY = b"k" * 32
SEPARATOR = "\n-- ;\n"
TERMS = Terms(most=1, per_app=1, per_receiver=1, max_tries=9, lease_s=60)


class Recorder:
    """Writes down the statements that the driver gets, part by part."""

    def __init__(self, environment: pytest.MonkeyPatch) -> None:
        self.parts: list[tuple[str, list[str]]] = []
        execute, executemany = psycopg.Cursor.execute, psycopg.Cursor.executemany

        def noted(cursor: Any, query: Any, given: Any = None, **how: Any) -> Any:
            self._note(cursor, query, given)
            return execute(cursor, query, given, **how)

        def noted_many(cursor: Any, query: Any, given: Any, **how: Any) -> Any:
            for each in given:
                self._note(cursor, query, each)
            return executemany(cursor, query, given, **how)

        environment.setattr(psycopg.Cursor, "execute", noted)
        environment.setattr(psycopg.Cursor, "executemany", noted_many)

    def part(self, name: str) -> None:
        self.parts.append((name, []))

    def _note(self, cursor: Any, query: Any, given: Any) -> None:
        statement = psycopg.ClientCursor(cursor.connection).mogrify(query, given)
        # What makes a connection, before the first part, is no statement of a use case. Each one is tried by itself,
        # outside of a transaction.
        if self.parts and not statement.startswith("SAVEPOINT"):
            self.parts[-1][1].append(statement)

    def text(self) -> str:
        text = "\n".join(
            f"-- part: {name}\n{''.join(statement.strip() + SEPARATOR for statement in said)}"
            for name, said in self.parts
        )
        return re.sub(r"whsec_[\w+/=]+", "whsec_recorded", text)


def spec(app: App, job_id: UUID, **changes: object) -> JobSpec:
    made = JobSpec(
        id=job_id,
        app_id=app.id,
        model="smollm2-135m",
        pool="chat",
        lane=Lane.NORMAL,
        messages=(Message("user", "What is a headrace?"),),
        sampling=Sampling(max_tokens=16),
        prompt_tokens=8,
        max_wait_s=30.0,
    )
    return replace(made, **changes)


def info(worker_id: UUID) -> WorkerInfo:
    return WorkerInfo(worker_id, "gpu@old", "host", "chat", "simulator", "m", 4, 2048, 65_536, 16)


def finish(store: Store, job_id: UUID, worker_id: UUID, enqueue_no: int = 1) -> None:
    with store.autocommit() as db:
        [row] = attempts.claim_all(db, {job_id: enqueue_no}, worker_id, "simulator").values()
    claim = claim_of(row)
    end = AttemptEnd(
        *("succeeded", 0.5, Cost(Decimal("0.000001"), "old-1"), "compute", Usage(8, 3), "A channel.", "stop", "m"),
        host_id="host",
    )
    with store.begin() as db:
        assert attempts.finish_all(db, JobState.SUCCEEDED, [(claim, end)])
    if claim.has_webhook:
        with store.begin() as db:
            [delivery] = deliveries.pull(db, TERMS).deliveries
            deliveries.record_success(db, delivery, 204)


def live(deps: ControlDeps, recorder: Recorder) -> None:
    store = deps.store
    recorder.part("app")
    with store.begin() as db:
        app = apps.ensure(db, "old")
        key = keys.make(db, app.id, "pepper")
        keys.authenticate(db, key, "pepper")
    place = Candidate("chat.normal", 1, 1, None, "own pool")
    for name, job_id, changes in (
        ("insert plain", PLAIN, {}),
        ("insert hooked", HOOKED, {"webhook_url": "https://r.example", "idempotency": Idempotency("k", b"hash")}),
        ("insert lost", LOST, {"stream": True, "end_user": "u", "metadata": {"a": "b"}, "max_cost_usd": Decimal(1)}),
    ):
        recorder.part(name)
        insert_batch(store, [(spec(app, job_id, **changes), place)])
    recorder.part("worker")
    with store.begin() as db:
        workers.register(db, info(WORKER), 3600)
        workers.register(db, info(SECOND), 3600)
        workers.renew(db, WORKER, 3600, WorkerReport(0, ready=True))
    recorder.part("finish plain")
    finish(store, PLAIN, WORKER)
    assert queued.over(store, [(PLAIN, 1)]) == [(PLAIN, 1)]
    recorder.part("finish hooked")
    finish(store, HOOKED, WORKER)
    recorder.part("lose")
    with store.autocommit() as db:
        attempts.claim_all(db, {LOST: 1}, SECOND, "simulator")
    with store.begin() as db:
        workers.retire(db, SECOND)
    assert rescue(deps, Patience(0.0)) == 1
    with store.begin() as db:
        assert jobs.enqueue_due(db)
    recorder.part("finish lost")
    finish(store, LOST, WORKER, 2)
    share(store, app, recorder)
    bulk(store, app, recorder)
    at_provider(store, app, recorder)
    recorder.part("look")
    with store.begin() as db:
        for job_id in (PLAIN, HOOKED, LOST, LEADER, FOLLOWER, ANSWERED):
            assert jobs.find(db, app.id, job_id).state is JobState.SUCCEEDED
    for run in (sweep.publish_due, sweep.expire, sweep.forget_keys, observe, autoscale, watch_budgets):
        recorder.part(f"sweep {run.__name__}")
        run(deps)


def share(store: Store, app: App, recorder: Recorder) -> None:
    """The paid API fails a job, which is retried. Its answer serves a job that follows it, and one that comes later."""
    recorder.part("insert leader")
    paid = Candidate("overflow.normal", 1, 1, None, "the pool is full")
    insert_batch(store, [(spec(app, LEADER, cache_key=CACHE_KEY, is_cache_miss=True), paid)])
    recorder.part("follow")
    follower = Follower(spec(app, FOLLOWER, cache_key=CACHE_KEY), LEADER, "chat.normal")
    assert FOLLOWER in exact_cache.follow(store, [follower])
    with store.begin() as db:
        assert jobs.find(db, app.id, FOLLOWER).state is JobState.WAITING
    recorder.part("retry")
    [row] = attempts.claim_all(store, {LEADER: 1}, WORKER, "openai").values()
    with store.begin() as db:
        asked = [(claim_of(row), Decimal("0.01"))]
        [claim] = attempts.reserve_all(db, asked, SpendingLimits(Decimal(5), None)).values()
        assert isinstance(claim, Claim)
    failed = AttemptEnd("failed", 0.5, Cost(Decimal(0), "old-1"), "waste", error_code="engine_error")
    with store.begin() as db:
        assert attempts.retry(db, claim, failed, 0.0) is JobState.WAITING
        assert jobs.enqueue_due(db)
    recorder.part("finish leader")
    finish(store, LEADER, WORKER, 2)
    with store.begin() as db:
        assert exact_cache.settle_followers(db, exact_cache.of_ended_leaders(db)) == [Settled(FOLLOWER, True)]
    recorder.part("answer")
    question = Question(spec(app, ANSWERED, cache_key=CACHE_KEY), 3600.0, time_of(LEADER))
    assert ANSWERED in exact_cache.serve(store, [Hit(question, LEADER, "chat.normal")])


def bulk(store: Store, app: App, recorder: Recorder) -> None:
    """A batch of three lines: one is answered, one refused, and one cancelled. What COPY writes is not recorded."""
    recorder.part("batch")
    given = {"endpoint": "/v1/chat/completions", "input_file_id": SECOND, "completion_window": "24h"}
    with store.begin() as db:
        made = batches.create(db, app.id, window_s=86_400, most_open=50, overflow=Overflow.NEVER, **given)
    for step in (
        lambda db: batches.lease(db, WORKER, 10),
        lambda db: batches.clear_lines(db, made.id, WORKER) == 0,
        lambda db: batches.put_lines(db, made.id, WORKER, [NewLine(n, str(n), "", "{}") for n in (1, 2, 3)]),
        lambda db: batches.begin(db, made.id, WORKER, 3, None),
    ):
        with store.begin() as db:
            assert step(db)
    recorder.part("lines")
    with store.begin() as db:
        first, second = batches.take_lines(db, made.id, 2)
    assert first.job_id is not None
    insert_batch(store, [(spec(app, first.job_id), Candidate("chat.batch", 1, 1, None, "own pool"))])
    finish(store, first.job_id, WORKER)
    with store.begin() as db:
        assert batches.refuse(db, second, 400, "{}")
        batches.give_back(db, made.id, [3])
        assert batches.give_back_lost(db, made.id) == 0
        assert batches.with_ended_jobs(db, [made.id]) == {made.id}
        assert batches.settle(db, made.id, given["endpoint"], is_cancelling=False) == 1
    recorder.part("end of the batch")
    with store.begin() as db:
        batches.cancel(db, app.id, made.id)
        batches.drop_unread(db, made.id)
        assert batches.end_waiting(db, made.id, LineState.CANCELLED) == 1
        assert batches.submitted_jobs(db, made.id) == []
        assert batches.with_all_ended(db, [made.id]) == {made.id}
        batches.begin_end(db, made.id)
        ended = batches.find(db, app.id, made.id)
        assert len(line_texts.ended(db, ended, 0, 10, has_tools=False)) == 3
        assert not batches.has_expired_lines(db, made.id)
        assert batches.end(db, ended, BatchState.CANCELLED, completed=1, failed=2)
        assert batches.hide_lines(db, 30) == 0
        assert batches.with_old_lines(db, 30, [WORKER]) is None
        assert batches.delete_lines(db, WORKER) == 0


def at_provider(store: Store, app: App, recorder: Recorder) -> None:
    """A batch of two lines that go to a provider's batch: one is answered, and one comes back. It bills more, too."""
    given = {"endpoint": "/v1/chat/completions", "input_file_id": SECOND, "completion_window": "24h"}
    with store.begin() as db:
        made = batches.create(db, app.id, window_s=86_400, most_open=50, overflow=Overflow.ALLOW, **given)
        batches.lease(db, WORKER, 10)
        batches.put_lines(db, made.id, WORKER, [NewLine(n, str(n), "", "{}") for n in (1, 2)])
        batches.begin(db, made.id, WORKER, 2, None)
    recorder.part("lines for the provider")
    with store.begin() as db:
        taken = provider_batches.take_lines(db, made.id, "smollm2-135m", 2)
        assert provider_batches.lines_at_provider(db, [made.id]) == {made.id: 2}
        assert provider_batches.was_begun_within(db, made.id, timedelta(minutes=1))
    later, place = datetime.now(UTC) + timedelta(hours=1), Candidate("chat.batch", 1, 1, None, "own pool")
    for line in taken:
        assert line.job_id is not None
        how = {"lane": Lane.BATCH, "not_before": later, "overflow": Overflow.ALLOW}
        insert_batch(store, [(spec(app, line.job_id, notes=noted(made.id), **how), place)])
    recorder.part("the provider's batch")
    with store.begin() as db:
        provider_batches.close(db, made.id)
        [batch] = provider_batches.lease(db, WORKER, 10)
        assert len(provider_batches.claim(db, batch, "the provider's batch tier")) == 2
        both = provider_batches.running(db, batch, None)
        limits = BudgetSettings(day_usd=Decimal(5))
        assert provider_batches.reserve(db, [(claim, Decimal("0.01")) for claim in both], limits) == {}
        assert provider_batches.count_running(db, batch) == 2
        assert provider_batches.move(db, batch, WORKER, ProviderState.SENT, provider_id="batch_1")
        batch = provider_batches.find(db, batch.id)
    end = AttemptEnd(
        "succeeded", 0.0, Cost(Decimal("0.001"), "v1/batch"), "api", Usage(8, 3), "A channel.", "stop", "m"
    )
    back = replace(end, outcome="failed", cost=Cost(Decimal(0), "v1"), kind="waste", usage=Usage())
    with store.begin() as db:
        first, second = provider_batches.claims(db, batch, [claim.job_id for claim in both])
        assert attempts.finish_all(db, JobState.SUCCEEDED, [(first, end)])
        provider_batches.give_back(db, batch, [(second, back)], ())
        assert provider_batches.booked(db, batch) == (1, Usage(8, 3))
        provider_batches.book_unreturned(db, batch, "m", Usage(1, 1), Cost(Decimal("0.0001"), "v1/batch"))
        assert provider_batches.under_way(db).counts[ProviderState.SENT] == 1
        provider_batches.release(db, WORKER)


def main() -> None:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="headrace-record-")))
        postgres, valkey = Postgres(folder / "postgres", free_port()), Valkey(folder / "valkey", free_port())
        stack.enter_context(postgres.running())
        stack.enter_context(valkey.running())
        settings = Settings.load(database_url=postgres.url, redis_url=valkey.url, engine="simulator")
        environment = stack.enter_context(pytest.MonkeyPatch.context())
        environment.setenv("DATABASE_URL", postgres.url)
        command.upgrade(Config(toml_file=PROJECT_ROOT / "pyproject.toml"), "head")
        redis, celery = redis_client(settings), make_celery("record", settings)
        engine = connections.postgres(settings)
        admission = Admission(redis, ExecuteMessage(celery), reservation_ttl_s=30)
        deps = ControlDeps(settings, Store(engine), admission, Pace(redis))
        with deps.store.begin() as db:
            months.make(db, clock.now(db), time_of(PLAIN))
        recorder = Recorder(environment)
        live(deps, recorder)
        print(recorder.text(), end="")
        engine.dispose()


if __name__ == "__main__":
    main()
