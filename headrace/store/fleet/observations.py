"""Observations: samples of queues and workers, and refusals."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import insert

from headrace.domain.fleet import QueueSample, WorkerSample
from headrace.domain.places import RefusalCount, RefusalKey
from headrace.domain.queues import Lane, Route
from headrace.domain.states import JobState
from headrace.policies.answers import AnswerLength
from headrace.tables import decisions, jobs, queue_samples, refusals, worker_samples

#: The most old rows of one table that one transaction deletes.
FORGET_ROWS = 5_000
#: How long before a span `load` looks for the sample before its first one.
BEFORE = timedelta(minutes=5)
#: The most answers that a starting worker reads to find those of its pool.
LENGTHS_ROWS = 20_000


@dataclass(frozen=True, slots=True)
class LoadSpan:
    """What a pool was asked for in a span of time, over all lanes.

    Attributes:
        at: its end.
        seconds: how much of it was observed.
        offered_jobs: see `headrace.domain.scaling.Moment`, as for the others.
        hosts: ready ones, on average.
    """

    at: datetime
    seconds: float
    offered_jobs: int
    offered_tokens: int
    refused_jobs: int
    spilled_jobs: int
    hosts: float


def add_samples(db: Connection, samples: Sequence[QueueSample]) -> None:
    """Write samples. An existing sample, from another observer at the same moment, stays."""
    if samples:
        statement = insert(queue_samples).on_conflict_do_nothing()
        db.execute(statement, [asdict(sample) for sample in samples])


def last_sample_at(db: Connection, now: datetime) -> datetime | None:
    """When the newest sample was taken; those that a clock which was ahead has dated later than `now` do not count."""
    newest: datetime | None = db.scalar(sa.select(sa.func.max(queue_samples.c.at)).where(queue_samples.c.at <= now))
    return newest


def recent_samples(db: Connection, queues: Sequence[str], since: datetime) -> list[QueueSample]:
    """The samples of these queues since `since`, oldest first."""
    statement = (
        sa.select(queue_samples)
        .where(queue_samples.c.queue.in_(queues), queue_samples.c.at > since)
        .order_by(queue_samples.c.at)
    )
    return [QueueSample(**row._mapping) for row in db.execute(statement)]


def last_moment(db: Connection, queues: Sequence[str]) -> list[QueueSample]:
    """The samples of these queues that were taken last, all at one time; empty if there are none."""
    of_queues = sa.select(queue_samples).where(queue_samples.c.queue.in_(queues))
    # Along the index of the times: the newest samples of each queue would be looked for among all its samples.
    newest = sa.select(queue_samples.c.at).where(queue_samples.c.queue.in_(queues))
    last_at = newest.order_by(queue_samples.c.at.desc()).limit(1).scalar_subquery()
    return [QueueSample(**row._mapping) for row in db.execute(of_queues.where(queue_samples.c.at == last_at))]


def load(db: Connection, queues: Sequence[str], since: datetime, span_s: float) -> list[LoadSpan]:
    """What the pool of these queues was asked for since `since`, in spans of this length, the oldest first.

    A sample counts from the sample before it, so that a pause of the observer is not a time without load. Spans without
    a sample are absent.
    """
    row = queue_samples.c
    span = timedelta(seconds=span_s)
    summed = {
        "offered_jobs": row.offered,
        "offered_tokens": row.offered_tokens,
        "refused_jobs": row.refused,
        "spilled_jobs": row.spilled,
    }
    sums = (sa.func.sum(column).label(name) for name, column in summed.items())
    of_time = (
        sa.select(row.at, *sums, sa.func.max(row.hosts).label("hosts"))
        # The sample before the first one, which says how long that one lasts.
        .where(row.queue.in_(queues), row.at > since - BEFORE)
        .group_by(row.at)
        .subquery()
    )
    seconds = sa.func.extract("epoch", of_time.c.at - sa.func.lag(of_time.c.at).over(order_by=of_time.c.at))
    moment = sa.select(of_time, seconds.label("seconds")).subquery().c
    # The end of the span that a sample's end is in.
    end = (sa.func.date_bin(span, moment.at - timedelta(microseconds=1), since) + span).label("at")
    found = (
        sa.select(
            end,
            sa.cast(sa.func.sum(moment.seconds), sa.Float).label("seconds"),
            *(sa.cast(sa.func.sum(moment[name]), sa.BigInteger).label(name) for name in summed),
            sa.cast(sa.func.avg(moment.hosts), sa.Float).label("hosts"),
        )
        .where(moment.at > since, moment.seconds > 0)
        .group_by(end)
        .order_by(end)
    )
    return [LoadSpan(**each._mapping) for each in db.execute(found)]


def add_worker_sample(db: Connection, sample: WorkerSample) -> None:
    """Write a worker's sample, with the current time."""
    db.execute(sa.insert(worker_samples).values(**asdict(sample)))


def answer_lengths(db: Connection, pool: str, models: Sequence[str]) -> list[AnswerLength]:
    """The lengths of a pool's answers for these models, oldest first.

    Reads only the newest `LENGTHS_ROWS` answers of all pools.
    """
    answered = sa.select(jobs).where(jobs.c.state == JobState.SUCCEEDED, jobs.c.served_by_job.is_(None))
    newest = answered.order_by(jobs.c.id.desc()).limit(LENGTHS_ROWS).subquery().c
    is_ours = (newest.pool == pool, newest.route == Route.POOL, newest.model_requested.in_(models))
    is_cut = newest.finish_reason == "length"
    lengths = sa.select(newest.lane, newest.output_tokens, is_cut).where(*is_ours).order_by(newest.id)
    return [AnswerLength(Lane(lane), tokens, cut) for lane, tokens, cut in db.execute(lengths)]


def forget_samples(db: Connection, keep_days: int) -> int:
    """Delete samples of workers, refusals and decisions older than `keep_days`; returns how many.

    Up to `FORGET_ROWS` a table. Samples of queues are rolled up instead: see `headrace.store.fleet.history`.
    """
    times = (worker_samples.c.taken_at, refusals.c.minute, decisions.c.at)
    return sum(delete_oldest(db, at, sa.func.now() - timedelta(days=keep_days)) for at in times)


def delete_oldest(
    db: Connection, at: sa.Column[Any], before: sa.ColumnElement[Any], *conditions: sa.ColumnElement[bool]
) -> int:
    """Delete the oldest rows of the table of this time column, up to `FORGET_ROWS`; returns how many."""
    # By physical position: with a join on keys, a table without statistics would be scanned once per row.
    place: sa.ColumnElement[Any] = sa.literal_column("ctid")
    oldest = sa.select(place).select_from(at.table).where(at < before, *conditions).order_by(at).limit(FORGET_ROWS)
    deleted = sa.delete(at.table).where(place == sa.any_(sa.func.array(oldest.scalar_subquery())))
    return len(db.execute(deleted.returning(at)).all())


def add_refusals(db: Connection, counts: Mapping[RefusalKey, RefusalCount]) -> None:
    """Add refused jobs and tokens to this minute's counters."""
    if not counts:
        return
    # Sorted, so that two processes lock the same rows in the same order and cannot deadlock.
    rows = [
        {"app_id": app_id, "queue": queue, "reason": reason, **asdict(count)}
        for (app_id, queue, reason), count in sorted(counts.items(), key=lambda item: str(item[0]))
    ]
    statement = insert(refusals).values(minute=sa.func.date_trunc("minute", sa.func.now()))
    added = {name: refusals.c[name] + statement.excluded[name] for name in ("jobs", "tokens", "expected_tokens")}
    key = ["minute", "app_id", "queue", "reason"]
    db.execute(statement.on_conflict_do_update(index_elements=key, set_=added), rows)
