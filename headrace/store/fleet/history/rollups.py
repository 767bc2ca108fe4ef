"""Roll-ups: samples of queues become minutes after a day, and minutes become hours after a week.

One statement deletes a batch of rows and adds them to their spans. So each sample is in exactly one row of
`queue_samples` and `queue_rollups`, for a reader too, if one statement reads both tables.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import insert

from headrace.store.fleet.observations import FORGET_ROWS, delete_oldest
from headrace.tables import queue_rollups, queue_samples

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
KEEP_SAMPLES, KEEP_MINUTES, KEEP_HOURS = timedelta(days=1), timedelta(days=7), timedelta(days=365)

#: Where spans are counted from: whole minutes and hours of UTC, whatever the time zone of the session.
_ORIGIN = datetime(2000, 1, 1, tzinfo=UTC)
_KEY = ("queue", "span_s", "at")
_SUMS = (
    "samples",
    "arrivals",
    "refused",
    "started",
    "started_tokens",
    "offered",
    "offered_tokens",
    "spilled",
    "finished",
)
_MEANS = ("depth", "running", "slots", "hosts", "hosts_requested", "hosts_draining", "kv_use")
_MAXIMA = ("most_depth", "oldest_wait_s")


@dataclass(frozen=True, slots=True)
class _Source:
    """Rows that are rolled up.

    Attributes:
        columns: as those of `queue_rollups`.
        is_due: those that are old enough.
    """

    columns: Sequence[sa.ColumnElement[Any]]
    at: sa.Column[datetime]
    is_due: Sequence[sa.ColumnElement[bool]]


def roll_up(db: Connection) -> int:
    """Roll up the oldest samples and minutes, and delete the oldest hours, those that are old enough.

    Each step takes up to `FORGET_ROWS` rows, and the rest of the last one's span. A span is taken whole, unless a row
    of it is written later; that row is added to it by a later call. Returns: rows that were rolled up or deleted.
    """
    return _roll_up(db, _samples(), MINUTE) + _roll_up(db, _minutes(), HOUR) + _forget_hours(db)


def _samples() -> _Source:
    same = queue_samples.c
    shared = (same[name] for name in (*_SUMS[1:], *_MEANS, "oldest_wait_s"))
    columns = (same.queue, same.at, sa.literal(1).label("samples"), same.depth.label("most_depth"), *shared)
    return _Source(columns, same.at, [same.at < _start_of(MINUTE, sa.func.now() - KEEP_SAMPLES)])


def _minutes() -> _Source:
    """The minutes of whole hours: an hour of which samples are left waits for them."""
    same = queue_rollups.c
    columns = [column for column in same if column.name != "span_s"]
    old = _start_of(HOUR, sa.func.now() - KEEP_MINUTES)
    unfinished = _start_of(HOUR, sa.select(sa.func.min(queue_samples.c.at)).scalar_subquery())
    # `least` ignores NULL: there may be no samples.
    return _Source(columns, same.at, [same.span_s == MINUTE.total_seconds(), same.at < sa.func.least(old, unfinished)])


def _roll_up(db: Connection, source: _Source, span: timedelta) -> int:
    """Move the oldest rows of the source into spans of this length. Returns: rows that were moved."""
    full = sa.select(_start_of(span, source.at) + span).where(*source.is_due).order_by(source.at)
    until = sa.func.coalesce(full.offset(FORGET_ROWS - 1).limit(1).scalar_subquery(), sa.text("'infinity'"))
    moved = sa.delete(source.at.table).where(*source.is_due, source.at < until).returning(*source.columns).cte("moved")
    spans = _spans(moved, span).cte("spans")
    put = insert(queue_rollups).from_select(list(spans.c.keys()), sa.select(spans))
    put = put.on_conflict_do_update(index_elements=_KEY, set_=_merged(put.excluded))
    count = sa.select(sa.func.count()).select_from(moved)
    return db.scalar(count.add_cte(put.cte("put"))) or 0


def _spans(rows: sa.CTE, span: timedelta) -> sa.Select[Any]:
    """The rows by their queues and spans."""
    start, weight = _start_of(span, rows.c.at), rows.c.samples
    sums = (sa.cast(sa.func.sum(rows.c[name]), queue_rollups.c[name].type).label(name) for name in _SUMS)
    means = (
        (sa.func.sum(rows.c[name] * weight) / sa.func.sum(weight).filter(rows.c[name].is_not(None))).label(name)
        for name in _MEANS
    )
    maxima = (sa.func.max(rows.c[name]).label(name) for name in _MAXIMA)
    key = (rows.c.queue, sa.literal(round(span.total_seconds())).label("span_s"), start.label("at"))
    return sa.select(*key, *sums, *means, *maxima).group_by(rows.c.queue, start)


def _merged(new: Any) -> dict[str, sa.ColumnElement[Any]]:
    """A span's row together with rows of the span that came late."""
    old = queue_rollups.c
    sums = {name: old[name] + new[name] for name in _SUMS}
    maxima = {name: sa.func.greatest(old[name], new[name]) for name in _MAXIMA}
    # NULL if one of both is NULL: `kv_use` was not reported.
    means = {name: (old[name] * old.samples + new[name] * new.samples) / (old.samples + new.samples) for name in _MEANS}
    return sums | maxima | {name: sa.func.coalesce(mean, old[name], new[name]) for name, mean in means.items()}


def _forget_hours(db: Connection) -> int:
    is_hour = queue_rollups.c.span_s == HOUR.total_seconds()
    return delete_oldest(db, queue_rollups.c.at, sa.func.now() - KEEP_HOURS, is_hour)


def _start_of(span: timedelta, at: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """The start of the span in which a time is."""
    return sa.func.date_bin(span, at, _ORIGIN)
