"""Observations: samples of queues and workers, refusals, and what was asked of each queue between two times."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import ARRAY, insert

from headrace.domain.fleet import AlikeJobs, QueueActivity, QueueSample, WorkerSample
from headrace.domain.places import ROOM_REASONS, RefusalCount, RefusalKey
from headrace.domain.queues import Lane, Route
from headrace.domain.states import JobState
from headrace.policies.answers import AnswerLength
from headrace.store import clock
from headrace.store.sql import delete_chosen, is_one_of
from headrace.store.states import IS_QUEUED, IS_RUNNING, IS_WAITING
from headrace.tables import decisions, jobs, ledger, queue_samples, refusals, worker_samples

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
    discounted_jobs: int = 0


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
        "discounted_jobs": row.discounted,
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
    oldest = sa.select(at).where(at < before, *conditions).order_by(at).limit(FORGET_ROWS)
    return db.execute(delete_chosen(oldest, at.table)).rowcount


def add_refusals(db: Connection, counts: Mapping[RefusalKey, RefusalCount]) -> None:
    """Add refused jobs and tokens to this minute's counters."""
    if not counts:
        return
    # Sorted, so that two processes lock the same rows in the same order and cannot deadlock.
    rows = [{**key._asdict(), **asdict(count)} for key, count in sorted(counts.items(), key=lambda item: str(item[0]))]
    statement = insert(refusals).values(minute=sa.func.date_trunc("minute", sa.func.now()))
    added = {name: refusals.c[name] + statement.excluded[name] for name in ("jobs", "tokens", "expected_tokens")}
    key = ["minute", *RefusalKey._fields]
    db.execute(statement.on_conflict_do_update(index_elements=key, set_=added), rows)


#: How far a job's start or end may be dated before its acceptance: each time is the start of the transaction that wrote
#: it.
OVERLAP = timedelta(seconds=1)
#: How long a transaction may take to write a ledger entry. The entries' ids are in the order of their writing, and
#: their times are those of their transactions.
LATE_ENTRIES = timedelta(seconds=10)
#: How long after a minute's start refusals may still be added to it, with a margin: `add_refusals` writes to the minute
#: in which its transaction began.
LATE_REFUSALS = timedelta(minutes=5)
#: How often a process adds its refusals, in seconds.
REFUSALS_EVERY_S = 3.0
#: The most ledger entries by which it is judged what an app was served, and among how many of all kinds: those of
#: caches are no service of hosts.
SERVED_ENTRIES, SERVED_AMONG = 100_000, 1_000_000

_ALIKE = (jobs.c.pool, jobs.c.lane, jobs.c.queue, jobs.c.overflow, jobs.c.max_tokens)


def activity(db: Connection, queues: Sequence[str], since: datetime, until: datetime) -> dict[str, QueueActivity]:
    """The activity of these queues after `since`, up to `until`; a queue without activity is absent."""
    return _by_queue(db, *_present(queues), _finished(oldest_entry(db, since), since, until))


def present(db: Connection, queues: Sequence[str]) -> dict[str, QueueActivity]:
    """As `activity`, without the finished jobs: the queues as they stand."""
    return _by_queue(db, *_present(queues))


def _present(queues: Sequence[str]) -> tuple[sa.Select[Any], ...]:
    running = sa.select(jobs.c.queue, sa.func.count().label("running")).where(IS_RUNNING).group_by(jobs.c.queue)
    return _oldest_waits(queues), running


def _by_queue(db: Connection, *parts: sa.Select[Any]) -> dict[str, QueueActivity]:
    found: dict[str, dict[str, Any]] = defaultdict(dict)
    for part in parts:
        for row in db.execute(part).mappings():
            values = dict(row)
            found[values.pop("queue")] |= values
    return {
        queue: QueueActivity(float(values.pop("oldest_wait_s", 0)), **{name: int(n) for name, n in values.items()})
        for queue, values in found.items()
    }


def accepted(db: Connection, queues: Sequence[str], since: datetime, until: datetime) -> list[AlikeJobs]:
    """The jobs that were accepted after `since`, up to `until`.

    `created_at` has no index, because that would slow every insert. The time in an id is that of its host, whose clock
    may be wrong. But each new job was also queued, started or ended since then, or is one of the few in `waiting`
    before their first start. Each of these cases has an index.
    """
    since_overlap = since - OVERLAP
    is_where_the_new_are = sa.or_(
        sa.and_(IS_QUEUED, is_one_of(jobs.c.queue, queues), jobs.c.queued_at > since_overlap),
        jobs.c.started_at > since_overlap,
        sa.and_(jobs.c.started_at.is_(None), jobs.c.ended_at > since_overlap),
        sa.and_(IS_WAITING, jobs.c.started_at.is_(None)),
    )
    # A job that the cache has served needed no host.
    is_demand = jobs.c.served_by_job.is_(None)
    return _alike(db, *_within(jobs.c.created_at, since, until), is_where_the_new_are, is_demand)


def started(db: Connection, since: datetime, until: datetime) -> list[AlikeJobs]:
    """The jobs that were started after `since`, up to `until`."""
    return _alike(db, *_within(jobs.c.started_at, since, until))


def spilled(db: Connection, since: datetime, until: datetime) -> list[AlikeJobs]:
    """The jobs that first went to the paid API after `since`, up to `until`, at the door or later."""
    return _alike(db, *_within(jobs.c.overflow_at, since, until))


@dataclass(frozen=True, slots=True)
class RefusedJobs:
    """Refused jobs of one app that wanted one queue. Attributes: is_repeat: see `RefusalKey`."""

    app_id: UUID
    queue: str
    is_repeat: bool
    jobs: int
    tokens: int


def take_refused(db: Connection, since: datetime) -> list[RefusedJobs]:
    """The refused jobs that no sample has counted yet; marks them as counted.

    Only the reasons of `ROOM_REASONS` count. A process may add its counts late, and several processes add to one row:
    the difference to the marked count is new. A locked row, to which a process is just adding, is left for the next
    sample, so that neither waits for the other.

    Args: since: when refusals were last counted.
    """
    recent = refusals.c.minute >= sa.func.date_trunc("minute", sa.literal(since - LATE_REFUSALS))
    is_due = (recent, refusals.c.jobs > refusals.c.sampled_jobs, refusals.c.reason.in_(ROOM_REASONS))
    key = refusals.primary_key.columns
    due = sa.select(*key, refusals.c.sampled_jobs, refusals.c.sampled_tokens).where(*is_due)
    due_rows = due.with_for_update(skip_locked=True).cte("due")
    marked = (
        sa.update(refusals)
        .where(*(column == due_rows.c[column.name] for column in key))
        .values(sampled_jobs=refusals.c.jobs, sampled_tokens=refusals.c.expected_tokens)
        .returning(
            refusals.c.app_id,
            refusals.c.queue,
            refusals.c.is_repeat,
            (refusals.c.jobs - due_rows.c.sampled_jobs).label("jobs"),
            (refusals.c.expected_tokens - due_rows.c.sampled_tokens).label("tokens"),
        )
    )
    return [RefusedJobs(**row._mapping) for row in db.execute(marked)]


def served_rates(db: Connection, long: timedelta, short: timedelta) -> dict[str, dict[UUID, float]]:
    """The tokens per second that each app was served, by pool: on average over the last `long`, or `short` if more.

    The average over `long` begins with the pool's first entry, so that it is right soon after a pool's first job. Reads
    the newest `SERVED_ENTRIES` at most, among the newest `SERVED_AMONG`.
    """
    row, since = ledger.c, clock.now(db) - long
    newest_id = db.scalar(sa.select(row.id).order_by(row.id.desc()).limit(1)) or 0
    after_id = oldest_entry(db, since, newest_id - SERVED_AMONG)
    is_served = (row.id > after_id, row.at > since, row.kind.in_(("compute", "api")))
    newest = sa.select(row.pool, row.app_id, row.at, (row.prompt_tokens + row.output_tokens).label("tokens"))
    entry = newest.where(*is_served).order_by(row.id.desc()).limit(SERVED_ENTRIES).subquery().c
    now = sa.func.now()
    summed = sa.select(
        entry.pool,
        entry.app_id,
        sa.cast(sa.func.sum(entry.tokens), sa.Float).label("tokens"),
        sa.cast(sa.func.sum(entry.tokens).filter(entry.at > now - short), sa.Float).label("short_tokens"),
        sa.cast(sa.func.extract("epoch", now - sa.func.min(entry.at)), sa.Float).label("seconds"),
    )
    rows = db.execute(summed.group_by(entry.pool, entry.app_id)).all()
    seen_s = {pool: max(each.seconds for each in rows if each.pool == pool) for pool in {each.pool for each in rows}}
    found: dict[str, dict[UUID, float]] = defaultdict(dict)
    for each in rows:
        means = (
            tokens / max(1.0, min(span.total_seconds(), seen_s[each.pool]))
            for tokens, span in ((each.tokens, long), (each.short_tokens or 0.0, short))
        )
        found[each.pool][each.app_id] = max(means)
    return found


def _within(time: sa.Column[Any], since: datetime, until: datetime) -> tuple[sa.ColumnElement[bool], ...]:
    return time > since, time <= until


def _alike(db: Connection, *conditions: sa.ColumnElement[bool]) -> list[AlikeJobs]:
    prompts = sa.cast(sa.func.sum(jobs.c.prompt_tokens), sa.BigInteger).label("prompt_tokens")
    answers = sa.func.coalesce(jobs.c.n, 1).label("n")
    counted = sa.select(*_ALIKE, answers, sa.func.count().label("jobs"), prompts).where(*conditions)
    return [AlikeJobs(**row._mapping) for row in db.execute(counted.group_by(*_ALIKE, jobs.c.n))]


def _oldest_waits(queues: Sequence[str]) -> sa.Select[Any]:
    """How long the oldest job of each queue has waited: one index look-up per queue."""
    given = sa.func.unnest(sa.cast(list(queues), ARRAY(sa.Text))).table_valued("queue").render_derived("given")
    first = sa.select(sa.func.min(jobs.c.queued_at)).where(IS_QUEUED, jobs.c.queue == given.c.queue).scalar_subquery()
    of_each = sa.select(given.c.queue, first.label("since")).subquery()
    waited_s = sa.func.extract("epoch", sa.func.now() - of_each.c.since).label("oldest_wait_s")
    return sa.select(of_each.c.queue, waited_s).where(of_each.c.since.is_not(None))


def oldest_entry(db: Connection, since: datetime, least: int = 0) -> int:
    """The id of the newest ledger entry that is surely older than `since`: all newer ones have higher ids.

    Postgres walks the primary key backwards, from the newest entry to the first that is old enough.
    Args: least: entries up to this id are not looked at; it is the answer where no other is old enough.
    """
    is_old = (ledger.c.id > least, ledger.c.at <= since - LATE_ENTRIES)
    return db.scalar(sa.select(ledger.c.id).where(*is_old).order_by(ledger.c.id.desc()).limit(1)) or least


def _finished(after_id: int, since: datetime, until: datetime) -> sa.Select[Any]:
    """The jobs of each queue that ended on a worker.

    `ended_at` has no index, because that would slow every end. But the transaction in which a worker's job ends also
    books the attempt, so both carry one time, and the ledger is read by its newest ids.
    """
    is_new = (ledger.c.id > after_id, *_within(ledger.c.at, since, until), ledger.c.kind != "cache")
    is_end = sa.and_(jobs.c.id == ledger.c.job_id, jobs.c.ended_at == ledger.c.at)
    counted = sa.func.count(jobs.c.id.distinct()).label("finished")
    return sa.select(jobs.c.queue, counted).join_from(ledger, jobs, is_end).where(*is_new).group_by(jobs.c.queue)
