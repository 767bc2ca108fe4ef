"""What was asked of each queue between two times, and what became of it.

Each query uses an index of its own, so that its cost depends on the activity, not on the backlog. The times are those
of `clock.settled`: then no job is missed, and none is counted twice.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import ARRAY

from headrace.domain.fleet import AlikeJobs, QueueActivity
from headrace.domain.places import ROOM_REASONS, RefusalCount
from headrace.store.jobs.conditions import IS_QUEUED, IS_RUNNING, IS_WAITING
from headrace.tables import jobs, ledger, refusals

#: How far a job's start or end may be dated before its acceptance: each time is the start of the transaction that wrote
#: it.
OVERLAP = timedelta(seconds=1)
#: How long a transaction may take to write a ledger entry. The entries' ids are in the order of their writing, and
#: their times are those of their transactions.
LATE_ENTRIES = timedelta(seconds=10)
#: How long after a minute's start refusals may still be added to it, with a margin: `add_refusals` writes to the minute
#: in which its transaction began.
LATE_REFUSALS = timedelta(minutes=5)

_ALIKE = (jobs.c.pool, jobs.c.lane, jobs.c.queue, jobs.c.overflow, jobs.c.max_tokens)


def activity(db: Connection, queues: Sequence[str], since: datetime, until: datetime) -> dict[str, QueueActivity]:
    """The activity of these queues after `since`, up to `until`; a queue without activity is absent."""
    return _by_queue(db, *_present(queues), _finished(oldest_entry(db, since), since, until))


def present(db: Connection, queues: Sequence[str]) -> dict[str, QueueActivity]:
    """As `activity`, without the finished jobs: the queues as they stand."""
    return _by_queue(db, *_present(queues))


def _present(queues: Sequence[str]) -> tuple[sa.Select[Any], ...]:
    return _oldest_waits(queues), _per_queue(sa.func.count().label("running")).where(IS_RUNNING)


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
        sa.and_(
            IS_QUEUED, jobs.c.queue == sa.any_(sa.cast(list(queues), ARRAY(sa.Text))), jobs.c.queued_at > since_overlap
        ),
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


def take_refused(db: Connection, since: datetime) -> dict[str, RefusalCount]:
    """Count the refused jobs of each queue that no sample has counted yet, and mark them as counted.

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
            refusals.c.queue,
            refusals.c.jobs - due_rows.c.sampled_jobs,
            refusals.c.expected_tokens - due_rows.c.sampled_tokens,
        )
    )
    num_jobs, tokens = Counter[str](), Counter[str]()
    for queue, more_jobs, more_tokens in db.execute(marked):
        num_jobs[queue] += more_jobs
        tokens[queue] += more_tokens
    return {queue: RefusalCount(num_jobs[queue], expected_tokens=tokens[queue]) for queue in num_jobs}


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


def oldest_entry(db: Connection, since: datetime) -> int:
    """The id of the newest ledger entry that is surely older than `since`: all newer ones have higher ids.

    Postgres walks the primary key backwards, from the newest entry to the first that is old enough.
    """
    old = sa.select(ledger.c.id).where(ledger.c.at <= since - LATE_ENTRIES).order_by(ledger.c.id.desc()).limit(1)
    return db.scalar(old) or 0


def _finished(after_id: int, since: datetime, until: datetime) -> sa.Select[Any]:
    """The jobs of each queue that ended on a worker.

    `ended_at` has no index, because that would slow every end. But the transaction in which a worker's job ends also
    books the attempt, so both carry one time, and the ledger is read by its newest ids.
    """
    is_new = (ledger.c.id > after_id, *_within(ledger.c.at, since, until), ledger.c.kind != "cache")
    is_end = sa.and_(jobs.c.id == ledger.c.job_id, jobs.c.ended_at == ledger.c.at)
    counted = sa.func.count(jobs.c.id.distinct()).label("finished")
    return sa.select(jobs.c.queue, counted).join_from(ledger, jobs, is_end).where(*is_new).group_by(jobs.c.queue)


def _per_queue(*counted: sa.ColumnElement[Any]) -> sa.Select[Any]:
    return sa.select(jobs.c.queue, *counted).group_by(jobs.c.queue)
