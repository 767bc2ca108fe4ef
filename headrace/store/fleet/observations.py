"""Observations: samples of queues and workers, and refusals."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import ARRAY, distinct_on, insert

from headrace.domain.fleet import QueueActivity, QueueSample, StartedSize, WorkerSample
from headrace.domain.queues import Lane, Route
from headrace.domain.states import JobState
from headrace.policies.answers import AnswerLength
from headrace.store.jobs import IS_QUEUED, IS_RUNNING, IS_WAITING
from headrace.tables import decisions, jobs, queue_samples, refusals, worker_samples

#: How far a job's start or end may be dated before its acceptance: each time is the start of the transaction that wrote
#: it.
OVERLAP = timedelta(seconds=1)
#: How long after a minute's start refusals may still be added to it, with a margin: `add_refusals` writes to the minute
#: in which its transaction began.
LATE_REFUSALS = timedelta(minutes=5)
#: The most old rows of one table that one transaction deletes.
FORGET_ROWS = 5_000
#: The most answers that a starting worker reads to find those of its pool.
LENGTHS_ROWS = 20_000


def activity(db: Connection, queues: Sequence[str], since: datetime) -> dict[str, QueueActivity]:
    """The activity of these queues since `since`; a queue without activity is absent.

    Each part uses an index of its own, so that its cost depends on the activity, not on the backlog.
    """
    parts = (
        _oldest_waits(queues),
        _per_queue(sa.func.count().label("arrivals")).where(*_is_new(queues, since)),
        _per_queue(sa.func.count().label("started")).where(jobs.c.started_at > since),
        _per_queue(sa.func.count().label("running")).where(IS_RUNNING),
    )
    found: dict[str, dict[str, Any]] = defaultdict(dict)
    for part in parts:
        for row in db.execute(part).mappings():
            values = dict(row)
            found[values.pop("queue")] |= values
    return {
        queue: QueueActivity(float(values.pop("oldest_wait_s", 0)), **{name: int(n) for name, n in values.items()})
        for queue, values in found.items()
    }


def take_refused(db: Connection, since: datetime) -> Counter[str]:
    """Count the refused jobs of each queue that no sample has counted yet, and mark them as counted.

    A process may add its counts late, and several processes add to one row: the difference to the marked count is new.
    A locked row, to which a process is just adding, is left for the next sample, so that neither waits for the other.

    Args: since: when refusals were last counted.
    """
    recent = refusals.c.minute >= sa.func.date_trunc("minute", sa.literal(since - LATE_REFUSALS))
    key = refusals.primary_key.columns
    due = sa.select(*key, refusals.c.sampled_jobs).where(recent, refusals.c.jobs > refusals.c.sampled_jobs)
    due_rows = due.with_for_update(skip_locked=True).cte("due")
    marked = (
        sa.update(refusals)
        .where(*(column == due_rows.c[column.name] for column in key))
        .values(sampled_jobs=refusals.c.jobs)
        .returning(refusals.c.queue, refusals.c.jobs - due_rows.c.sampled_jobs)
    )
    taken = Counter[str]()
    for queue, num_jobs in db.execute(marked):
        taken[queue] += num_jobs
    return taken


def _is_new(queues: Sequence[str], since: datetime) -> tuple[sa.ColumnElement[bool], ...]:
    """Conditions for the jobs that were accepted since `since`.

    `created_at` has no index, because that would slow every insert. The time in an id is that of its host, whose clock
    may be wrong. But each new job was also queued, started or ended since then, or is one of the few in `waiting`
    before their first start. Each of these cases has an index.
    """
    since_overlap = since - OVERLAP
    is_where_the_new_are = sa.or_(
        sa.and_(
            IS_QUEUED, jobs.c.queue == sa.any_(sa.cast(list(queues), ARRAY(sa.Text))), jobs.c.queued_at > since_overlap
        ),
        jobs.c.started_at > since_overlap,
        sa.and_(jobs.c.started_at.is_(None), jobs.c.ended_at > since_overlap),
        sa.and_(IS_WAITING, jobs.c.started_at.is_(None)),
    )
    return jobs.c.created_at > since, is_where_the_new_are


def _oldest_waits(queues: Sequence[str]) -> sa.Select[Any]:
    """How long the oldest job of each queue has waited: one index look-up per queue."""
    given = sa.func.unnest(sa.cast(list(queues), ARRAY(sa.Text))).table_valued("queue").render_derived("given")
    first = sa.select(sa.func.min(jobs.c.queued_at)).where(IS_QUEUED, jobs.c.queue == given.c.queue).scalar_subquery()
    of_each = sa.select(given.c.queue, first.label("since")).subquery()
    waited_s = sa.func.extract("epoch", sa.func.now() - of_each.c.since).label("oldest_wait_s")
    return sa.select(of_each.c.queue, waited_s).where(of_each.c.since.is_not(None))


def _per_queue(*counted: sa.ColumnElement[Any]) -> sa.Select[Any]:
    return sa.select(jobs.c.queue, *counted).group_by(jobs.c.queue)


def add_samples(db: Connection, samples: Sequence[QueueSample]) -> None:
    """Write samples. An existing sample, from another observer at the same moment, stays."""
    if samples:
        statement = insert(queue_samples).on_conflict_do_nothing()
        db.execute(statement, [asdict(sample) for sample in samples])


def last_sample_at(db: Connection) -> datetime | None:
    """When the newest sample was taken."""
    newest: datetime | None = db.scalar(sa.select(sa.func.max(queue_samples.c.at)))
    return newest


def newest_samples(db: Connection, queues: Sequence[str]) -> list[QueueSample]:
    """The newest sample of each of these queues; a queue without samples is absent."""
    newest_first = sa.select(queue_samples).order_by(queue_samples.c.queue, queue_samples.c.at.desc())
    statement = newest_first.where(queue_samples.c.queue.in_(queues)).ext(distinct_on(queue_samples.c.queue))
    return [QueueSample(**row._mapping) for row in db.execute(statement)]


def recent_samples(db: Connection, queues: Sequence[str], since: datetime) -> list[QueueSample]:
    """The samples of these queues since `since`, oldest first."""
    statement = (
        sa.select(queue_samples)
        .where(queue_samples.c.queue.in_(queues), queue_samples.c.at > since)
        .order_by(queue_samples.c.at)
    )
    return [QueueSample(**row._mapping) for row in db.execute(statement)]


def add_worker_sample(db: Connection, sample: WorkerSample) -> None:
    """Write a worker's sample, with the current time."""
    db.execute(sa.insert(worker_samples).values(**asdict(sample)))


def started_sizes(db: Connection, since: datetime) -> list[StartedSize]:
    """The sizes of the jobs started since `since`."""
    size = (jobs.c.pool, jobs.c.queue, jobs.c.lane, jobs.c.max_tokens)
    prompts = sa.func.sum(jobs.c.prompt_tokens).label("prompt_tokens")
    started = sa.select(*size, sa.func.count().label("jobs"), prompts).where(jobs.c.started_at > since)
    return [StartedSize(**row._mapping) for row in db.execute(started.group_by(*size))]


def answer_lengths(db: Connection, pool: str, models: Sequence[str]) -> list[AnswerLength]:
    """The lengths of a pool's answers for these models, oldest first.

    Reads only the newest `LENGTHS_ROWS` answers of all pools.
    """
    answered = sa.select(jobs).where(jobs.c.state == JobState.SUCCEEDED)
    newest = answered.order_by(jobs.c.id.desc()).limit(LENGTHS_ROWS).subquery().c
    is_ours = (newest.pool == pool, newest.route == Route.POOL, newest.model_requested.in_(models))
    is_cut = newest.finish_reason == "length"
    lengths = sa.select(newest.lane, newest.output_tokens, is_cut).where(*is_ours).order_by(newest.id)
    return [AnswerLength(Lane(lane), tokens, cut) for lane, tokens, cut in db.execute(lengths)]


def forget_samples(db: Connection, keep_days: int) -> int:
    """Delete samples, refusals and decisions older than `keep_days`, up to `FORGET_ROWS` a table; returns how many."""
    times = (queue_samples.c.at, worker_samples.c.taken_at, refusals.c.minute, decisions.c.at)
    return sum(_forget(db, at, sa.func.now() - timedelta(days=keep_days)) for at in times)


def _forget(db: Connection, at: sa.Column[Any], before: sa.ColumnElement[Any]) -> int:
    """Delete the oldest rows of the table of this time column."""
    # By physical position: with a join on keys, a table without statistics would be scanned once per row.
    place: sa.ColumnElement[Any] = sa.literal_column("ctid")
    oldest = sa.select(place).select_from(at.table).where(at < before).order_by(at).limit(FORGET_ROWS)
    deleted = sa.delete(at.table).where(place == sa.any_(sa.func.array(oldest.scalar_subquery())))
    return len(db.execute(deleted.returning(at)).all())


def add_refusals(db: Connection, counts: Mapping[tuple[UUID, str, str], tuple[int, int]]) -> None:
    """Add refused jobs and tokens to this minute's counters.

    Args:
        counts: `{(app id, queue, reason): (jobs, tokens)}`.
    """
    if not counts:
        return
    # Sorted, so that two processes lock the same rows in the same order and cannot deadlock.
    rows = [
        {"app_id": app_id, "queue": queue, "reason": reason, "jobs": num_jobs, "tokens": num_tokens}
        for (app_id, queue, reason), (num_jobs, num_tokens) in sorted(counts.items(), key=lambda item: str(item[0]))
    ]
    statement = insert(refusals).values(minute=sa.func.date_trunc("minute", sa.func.now()))
    added = {name: refusals.c[name] + statement.excluded[name] for name in ("jobs", "tokens")}
    key = ["minute", "app_id", "queue", "reason"]
    db.execute(statement.on_conflict_do_update(index_elements=key, set_=added), rows)
