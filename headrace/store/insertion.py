"""Accepting jobs: concurrent submits share one INSERT and one commit.

A commit's fsync is what a durable accept costs; shared by a few requests it costs each of them almost nothing.
"""

import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError

from headrace.errors import IdempotencyKeyReused
from headrace.jobs import JobSpec, JobState, Route
from headrace.store.session import Store
from headrace.tables import idempotency_keys, job_texts, jobs

#: How long an Idempotency-Key is remembered.
IDEMPOTENCY_TTL = timedelta(hours=24)
#: Rows in one INSERT. At 64 a commit is long amortised; more only makes everyone wait for the longest.
BATCH_ROWS = 256
#: Expired keys deleted in one transaction.
FORGET_ROWS = 10_000


@dataclass(frozen=True, slots=True)
class Placement:
    """Where admission put a job: the queue, which way it leads, and why."""

    queue: str
    route: Route
    reason: str


@dataclass(frozen=True, slots=True)
class Inserted:
    """The outcome: the job that now stands for the request.

    Attributes:
        job_id: another job's when the Idempotency-Key was used before with the same body.
        start_by: None for such a replay.
    """

    job_id: UUID
    start_by: datetime | None

    @property
    def is_replay(self) -> bool:
        """True when no new job was made."""
        return self.start_by is None


@dataclass(slots=True)
class _Row:
    spec: JobSpec
    placement: Placement
    outcome: Future[Inserted]


class JobInsertion:
    """Inserts jobs for all threads of one process.

    The first caller commits for everyone who arrived while the commit before was under way.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._turn = threading.Lock()
        self._pending: list[_Row] = []
        self._pending_lock = threading.Lock()

    def insert(self, spec: JobSpec, placement: Placement) -> Inserted:
        """Insert one job as `queued`; returns once it is durable.

        Raises:
            IdempotencyKeyReused: the key came before with another body.
            StoreUnavailable.
        """
        row = _Row(spec, placement, Future())
        with self._pending_lock:
            self._pending.append(row)
        with self._turn:
            # More than one batch may be ahead of it, and it may have its turn before those who brought them.
            while not row.outcome.done():
                self._insert_pending()
        return row.outcome.result()

    def _insert_pending(self) -> None:
        with self._pending_lock:
            batch, self._pending = self._pending[:BATCH_ROWS], self._pending[BATCH_ROWS:]
        try:
            self._insert_together(batch)
        except DBAPIError:
            # One bad row spoils the whole statement, so each is tried, and reported, alone.
            for row in batch:
                self._insert_alone(row)
        except BaseException as error:
            for row in batch:
                row.outcome.set_exception(error)

    def _insert_alone(self, row: _Row) -> None:
        try:
            self._insert_together([row])
        except BaseException as error:
            row.outcome.set_exception(error)

    def _insert_together(self, batch: Sequence[_Row]) -> None:
        with self._store.begin() as db:
            replays = _take_idempotency_keys(db, [row.spec for row in batch])
            fresh = [row for row in batch if row.spec.id not in replays]
            start_by = _insert_rows(db, fresh) if fresh else {}
        for row in batch:
            _settle(row, replays, start_by)


def _settle(row: _Row, replays: dict[UUID, tuple[UUID, bytes]], start_by: dict[UUID, datetime]) -> None:
    """Tell one caller how its row fared, after the commit."""
    if row.spec.id not in replays:
        row.outcome.set_result(Inserted(row.spec.id, start_by[row.spec.id]))
        return
    job_id, request_hash = replays[row.spec.id]
    if row.spec.idempotency and row.spec.idempotency.request_hash == request_hash:
        row.outcome.set_result(Inserted(job_id, None))
    else:
        row.outcome.set_exception(key_reused())


def key_reused() -> IdempotencyKeyReused:
    """The error of a key that came with two bodies."""
    return IdempotencyKeyReused("This Idempotency-Key was used with another request body.", param="Idempotency-Key")


def find_replay(db: Connection, app_id: UUID, key: str) -> tuple[UUID, bytes] | None:
    """The job and body hash that a live Idempotency-Key stands for."""
    row = db.execute(
        sa.select(idempotency_keys.c.job_id, idempotency_keys.c.request_hash).where(
            idempotency_keys.c.app_id == app_id,
            idempotency_keys.c.key == key,
            idempotency_keys.c.expires_at > sa.func.now(),
        )
    ).first()
    return (row.job_id, row.request_hash) if row else None


def forget_expired_keys(db: Connection) -> int:
    """Delete Idempotency-Keys that no replay can meet any more, `FORGET_ROWS` at most; returns how many."""
    expired = sa.select(idempotency_keys.c.app_id, idempotency_keys.c.key)
    expired = expired.where(idempotency_keys.c.expires_at <= sa.func.now()).limit(FORGET_ROWS)
    key = sa.tuple_(idempotency_keys.c.app_id, idempotency_keys.c.key)
    deleted = sa.delete(idempotency_keys).where(key.in_(expired.with_for_update(skip_locked=True)))
    return len(db.execute(deleted.returning(idempotency_keys.c.key)).all())


def _take_idempotency_keys(db: Connection, specs: Sequence[JobSpec]) -> dict[UUID, tuple[UUID, bytes]]:
    """Claim the keys; returns, by the id of each spec that came second, the job and body hash that came first."""
    keyed = [(spec, spec.idempotency) for spec in specs if spec.idempotency]
    if not keyed:
        return {}
    # Sorted, so that two processes that claim the same keys wait for each other in one order and cannot deadlock.
    keyed.sort(key=lambda pair: (pair[0].app_id, pair[1].key))
    replays = {}
    for spec, idempotency in keyed:
        values = {
            "app_id": spec.app_id,
            "key": idempotency.key,
            "request_hash": idempotency.request_hash,
            "job_id": spec.id,
            "expires_at": sa.func.now() + IDEMPOTENCY_TTL,
        }
        statement = insert(idempotency_keys).values(values)
        statement = statement.on_conflict_do_update(
            index_elements=["app_id", "key"],
            set_={name: statement.excluded[name] for name in ("request_hash", "job_id", "expires_at")},
            where=idempotency_keys.c.expires_at <= sa.func.now(),
        )
        if db.execute(statement.returning(idempotency_keys.c.key)).first() is None:
            found = find_replay(db, spec.app_id, idempotency.key)
            if found is not None:
                replays[spec.id] = found
    return replays


def _insert_rows(db: Connection, rows: Sequence[_Row]) -> dict[UUID, datetime]:
    """One INSERT for the hot rows, one for the texts. Returns each job's `start_by`, by the database's clock."""
    returned = db.execute(
        sa.insert(jobs)
        .values(queued_at=sa.func.now(), start_by=sa.func.now() + sa.bindparam("max_wait", type_=sa.Interval))
        .returning(jobs.c.id, jobs.c.start_by),
        [_hot_row(row) for row in rows],
    ).all()
    db.execute(sa.insert(job_texts), [_text_row(row.spec) for row in rows])
    return {row.id: row.start_by for row in returned}


def _hot_row(row: _Row) -> dict[str, object]:
    spec = row.spec
    return {
        "id": spec.id,
        "app_id": spec.app_id,
        "state": JobState.QUEUED,
        "lane": spec.lane,
        "pool": spec.pool,
        "queue": row.placement.queue,
        "route": row.placement.route,
        "route_reason": row.placement.reason,
        "overflow": spec.overflow,
        "model_requested": spec.model,
        "end_user": spec.end_user,
        "metadata": dict(spec.metadata),
        "webhook_url": spec.webhook_url,
        "background": spec.background,
        "stream": spec.stream,
        "max_cost_usd": spec.max_cost_usd,
        "prompt_tokens": spec.prompt_tokens,
        "max_tokens": spec.sampling.max_tokens,
        "max_wait": timedelta(seconds=spec.max_wait_s),
        "finish_by": spec.deadline,
    }


def _text_row(spec: JobSpec) -> dict[str, object]:
    sampling = {name: value for name, value in asdict(spec.sampling).items() if value not in (None, ())}
    return {"job_id": spec.id, "messages": [asdict(message) for message in spec.messages], "sampling": sampling}
