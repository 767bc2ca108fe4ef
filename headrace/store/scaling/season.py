"""What a pool was offered on past days, from which the season and the size of a job follow."""

from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from headrace.domain.queues import lane_queues
from headrace.domain.scaling import Season
from headrace.policies.scaling import DayProfiles
from headrace.policies.scaling.forecast import REACH_S, Offered
from headrace.tables import queue_rollups, queue_samples

#: Five days of the weekend lie within so many days.
SINCE = timedelta(days=22)
#: Samples and minutes are added up to spans of this length, that of a slot of the season.
SPAN = timedelta(minutes=10)
#: The days whose jobs have a mean size.
JOB_SINCE = timedelta(days=7)

_ORIGIN = datetime(2000, 1, 1, tzinfo=UTC)


def season(db: Connection, pool: str, provision_s: float, now: datetime) -> Season | None:
    """What past days lead one to expect from now on; None before a whole day of today's kind was seen."""
    # A decision looks four times as far ahead as a host takes to come.
    return profiles(db, pool, now).season(now, max(REACH_S, 4 * provision_s))


def profiles(db: Connection, pool: str, now: datetime) -> DayProfiles:
    """The past days by their kind. They stay the same until midnight UTC."""
    today = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return DayProfiles.of(offered(db, pool, today - SINCE, today), now)


def offered(db: Connection, pool: str, since: datetime, until: datetime) -> list[Offered]:
    """What was offered between two times: the start of each span, its length and the tokens.

    Samples, minutes and hours are read by one statement: each sample is then in exactly one of them.
    """
    lane = sa.union_all(
        _samples(pool, since, until), _rolled(pool, 60, SPAN, since, until), _rolled(pool, 3600, None, since, until)
    ).subquery("parts")
    # A span may be rolled up in part.
    of_lane = (
        sa.select(
            lane.c.queue,
            lane.c.start,
            lane.c.is_hour,
            sa.func.sum(lane.c.seconds).label("seconds"),
            sa.func.sum(lane.c.tokens).label("tokens"),
        )
        .group_by(lane.c.queue, lane.c.start, lane.c.is_hour)
        .subquery("lanes")
    )
    spans = sa.select(
        of_lane.c.start,
        sa.cast(sa.func.max(of_lane.c.seconds), sa.Float),
        sa.cast(sa.func.sum(of_lane.c.tokens), sa.Float),
    )
    return [(start, s, tokens) for start, s, tokens in db.execute(spans.group_by(of_lane.c.start, of_lane.c.is_hour))]


def _samples(pool: str, since: datetime, until: datetime) -> sa.Select[Any]:
    """The samples of each lane in each span. A sample counts what was offered before its time."""
    own = queue_samples.c
    start = sa.func.date_bin(SPAN, own.at - timedelta(microseconds=1), _ORIGIN)
    seen_s = sa.func.extract("epoch", sa.func.max(own.at) - sa.func.min(own.at))
    count = sa.func.count()
    return (
        sa.select(
            own.queue,
            start.label("start"),
            sa.false().label("is_hour"),
            # The time from the first sample to the last, and once more the mean time between two.
            sa.func.least(seen_s * count / (count - 1), SPAN.total_seconds()).label("seconds"),
            sa.func.sum(own.offered_tokens).label("tokens"),
        )
        .where(own.queue.in_(lane_queues(pool)), own.at > since, own.at <= until)
        .group_by(own.queue, start)
        .having(count > 1)
    )


def _rolled(pool: str, span_s: int, into: timedelta | None, since: datetime, until: datetime) -> sa.Select[Any]:
    """The rolled-up spans of one length, added up to longer ones."""
    own = queue_rollups.c
    start = own.at if into is None else sa.func.date_bin(into, own.at, _ORIGIN)
    return (
        sa.select(
            own.queue,
            start.label("start"),
            sa.literal(into is None).label("is_hour"),
            (span_s * sa.func.count()).label("seconds"),
            sa.func.sum(own.offered_tokens).label("tokens"),
        )
        .where(own.queue.in_(lane_queues(pool)), own.span_s == span_s, own.at >= since, own.at < until)
        .group_by(own.queue, start)
    )


def tokens_per_job(db: Connection, pool: str, now: datetime) -> float | None:
    """The mean size of the jobs that were offered in the last days; None without any."""
    jobs = tokens = 0
    for table in (queue_samples, queue_rollups):
        sums = (sa.func.coalesce(sa.func.sum(table.c[name]), 0) for name in ("offered", "offered_tokens"))
        of_pool = (table.c.queue.in_(lane_queues(pool)), table.c.at > now - JOB_SINCE)
        more_jobs, more_tokens = db.execute(sa.select(*sums).where(*of_pool)).one()
        jobs, tokens = jobs + int(more_jobs), tokens + int(more_tokens)
    return tokens / jobs if jobs else None
