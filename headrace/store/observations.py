"""What was observed and decided: samples of queues and workers, refusals, scaling decisions."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import distinct_on, insert

from headrace.jobs import JobState, Lane, Route, oldest_id
from headrace.tables import decisions, jobs, queue_samples, refusals, worker_samples

#: How far apart the clocks of the machines that make ids may be.
CLOCK_SKEW = timedelta(minutes=5)
#: Old rows of one table that are deleted in one transaction.
FORGET_ROWS = 5_000
#: Answers among which a worker that starts looks for those of its pool.
LENGTHS_ROWS = 20_000


@dataclass(frozen=True, slots=True)
class QueueSample:
    """One queue at one moment; counts are since the sample before. See `headrace.tables.queue_samples`."""

    queue: str
    at: datetime
    depth: int
    oldest_wait_s: float
    arrivals: int
    refused: int
    started: int
    running: int
    slots: int
    hosts: int
    depth_tokens: int = 0
    started_tokens: int = 0


@dataclass(frozen=True, slots=True)
class QueueActivity:
    """What Postgres knows of a queue since a given time."""

    oldest_wait_s: float = 0.0
    arrivals: int = 0
    refused: int = 0
    started: int = 0
    running: int = 0
    started_tokens: int = 0


@dataclass(frozen=True, slots=True)
class WorkerSample:
    """What a worker's engine did since its sample before. See `headrace.tables.worker_samples`."""

    worker_id: UUID
    pool: str
    interval_s: float
    running: float
    waiting: int
    steps: int
    kv_use: float | None
    kv_reserved: float | None
    prompt_tokens: int
    output_tokens: int
    preemptions: int
    first_token_s: float | None


def activity(db: Connection, since: datetime) -> dict[str, QueueActivity]:
    """Each queue's activity since `since`; a queue where nothing happened is absent."""
    oldest = sa.func.extract("epoch", sa.func.now() - sa.func.min(jobs.c.queued_at).filter(_is(JobState.QUEUED)))
    has_started = jobs.c.started_at > since
    size = sa.cast(jobs.c.prompt_tokens, sa.BigInteger) + jobs.c.max_tokens
    # Ids sort by time, and have an index; the time itself has none.
    is_new = sa.and_(jobs.c.id > oldest_id(since - CLOCK_SKEW), jobs.c.created_at > since)
    per_queue = (
        sa.select(
            jobs.c.queue,
            sa.func.coalesce(oldest, 0).label("oldest_wait_s"),
            sa.func.count().filter(jobs.c.created_at > since).label("arrivals"),
            sa.func.count().filter(has_started).label("started"),
            sa.func.coalesce(sa.func.sum(size).filter(has_started), 0).label("started_tokens"),
            sa.func.count().filter(_is(JobState.RUNNING)).label("running"),
        )
        .where(sa.or_(_is(JobState.QUEUED), _is(JobState.RUNNING), is_new, has_started))
        .group_by(jobs.c.queue)
    )
    found = {
        row.queue: QueueActivity(
            oldest_wait_s=float(row.oldest_wait_s),
            arrivals=row.arrivals,
            started=row.started,
            running=row.running,
            started_tokens=int(row.started_tokens),
        )
        for row in db.execute(per_queue)
    }
    refused = sa.select(refusals.c.queue, sa.func.sum(refusals.c.jobs)).where(
        refusals.c.minute >= sa.func.date_trunc("minute", since)
    )
    for queue, count in db.execute(refused.group_by(refusals.c.queue)):
        known = asdict(found.get(queue, QueueActivity()))
        found[queue] = QueueActivity(**{**known, "refused": int(count)})
    return found


def _is(state: JobState) -> sa.ColumnElement[bool]:
    return jobs.c.state == state


def add_samples(db: Connection, samples: Sequence[QueueSample]) -> None:
    """Write samples; one that is there already, from a second observer at the same moment, stays."""
    if samples:
        statement = insert(queue_samples).on_conflict_do_nothing()
        db.execute(statement, [asdict(sample) for sample in samples])


def last_sample_at(db: Connection) -> datetime | None:
    """When the newest sample was taken."""
    newest: datetime | None = db.scalar(sa.select(sa.func.max(queue_samples.c.at)))
    return newest


def newest_samples(db: Connection, queues: Sequence[str]) -> list[QueueSample]:
    """The newest sample of each of these queues that has one."""
    newest_first = sa.select(queue_samples).order_by(queue_samples.c.queue, queue_samples.c.at.desc())
    statement = newest_first.where(queue_samples.c.queue.in_(queues)).ext(distinct_on(queue_samples.c.queue))
    return [QueueSample(**row._mapping) for row in db.execute(statement)]


def recent_samples(db: Connection, queues: Sequence[str], since: datetime) -> list[QueueSample]:
    """The samples of these queues since then, oldest first."""
    statement = (
        sa.select(queue_samples)
        .where(queue_samples.c.queue.in_(queues), queue_samples.c.at > since)
        .order_by(queue_samples.c.at)
    )
    return [QueueSample(**row._mapping) for row in db.execute(statement)]


def add_worker_sample(db: Connection, sample: WorkerSample) -> None:
    """Write a worker's sample, as of now."""
    db.execute(sa.insert(worker_samples).values(**asdict(sample)))


def answer_lengths(db: Connection, pool: str, models: Sequence[str]) -> list[tuple[Lane, int]]:
    """Lanes and tokens of the answers that a pool gave for these models, oldest first.

    Only the newest `LENGTHS_ROWS` answers are looked at, also where most of them are other pools'.
    """
    answered = sa.select(jobs).where(jobs.c.state == JobState.SUCCEEDED)
    newest = answered.order_by(jobs.c.id.desc()).limit(LENGTHS_ROWS).subquery().c
    is_ours = (newest.pool == pool, newest.route == Route.POOL, newest.model_requested.in_(models))
    lengths = sa.select(newest.lane, newest.output_tokens).where(*is_ours).order_by(newest.id)
    return [(Lane(lane), tokens) for lane, tokens in db.execute(lengths)]


def forget_samples(db: Connection, keep_days: int) -> int:
    """Delete samples, refusals and decisions that are older, `FORGET_ROWS` of each table at most; returns how many."""
    times = (queue_samples.c.at, worker_samples.c.taken_at, refusals.c.minute, decisions.c.at)
    return sum(_forget(db, at, sa.func.now() - timedelta(days=keep_days)) for at in times)


def _forget(db: Connection, at: sa.Column[Any], before: sa.ColumnElement[Any]) -> int:
    """Delete the oldest rows of the table whose time this is."""
    key = at.table.primary_key.columns
    oldest = sa.select(*key).where(at < before).order_by(at).limit(FORGET_ROWS)
    deleted = sa.delete(at.table).where(sa.tuple_(*key).in_(oldest))
    return len(db.execute(deleted.returning(at)).all())


def add_refusals(db: Connection, counts: Mapping[tuple[UUID, str, str], tuple[int, int]]) -> None:
    """Add refused jobs and tokens to this minute's counters.

    Args:
        counts: `{(app id, queue, reason): (jobs, tokens)}`.
    """
    if not counts:
        return
    # Sorted, so that two processes lock the same rows in one order and cannot deadlock.
    rows = [
        {"app_id": app_id, "queue": queue, "reason": reason, "jobs": num_jobs, "tokens": num_tokens}
        for (app_id, queue, reason), (num_jobs, num_tokens) in sorted(counts.items(), key=lambda item: str(item[0]))
    ]
    statement = insert(refusals).values(minute=sa.func.date_trunc("minute", sa.func.now()))
    added = {name: refusals.c[name] + statement.excluded[name] for name in ("jobs", "tokens")}
    key = ["minute", "app_id", "queue", "reason"]
    db.execute(statement.on_conflict_do_update(index_elements=key, set_=added), rows)


def add_decision(
    db: Connection, *, pool: str, mode: str, hosts: int, target: int, reason: str, inputs: Mapping[str, Any]
) -> None:
    """Write one scaling decision."""
    values = {"pool": pool, "mode": mode, "hosts": hosts, "target": target, "reason": reason, "inputs": dict(inputs)}
    db.execute(sa.insert(decisions).values(**values))


def last_change_at(db: Connection, pool: str) -> datetime | None:
    """When a decision for this pool last asked for another number of hosts than there were."""
    changed = sa.and_(decisions.c.pool == pool, decisions.c.target != decisions.c.hosts)
    newest: datetime | None = db.scalar(sa.select(sa.func.max(decisions.c.at)).where(changed))
    return newest
