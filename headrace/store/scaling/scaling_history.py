"""The past of a pool, as its next scaling decision sees it: its samples, past days, and how past forecasts came out."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from headrace.config import Settings
from headrace.domain.queues import lane_queues
from headrace.domain.scaling import DemandHistory, ErrorProfile, Moment, PastNeed, PoolHosts, Season
from headrace.policies.scaling.forecast import BINS, REACH_S, DayProfiles, Offered, error_profiles
from headrace.tables import decisions, queue_rollups, queue_samples

#: Moments are joined to this length, or to a bin of the policy's window if that is shorter.
STEP_S = 30.0
#: Windows of moments that are read: the jobs of both have a mean size.
WINDOWS = 2


def load(db: Connection, settings: Settings, pool: str, hosts: PoolHosts, now: datetime) -> DemandHistory:
    """All that a decision on this pool knows of the past. Forecasts whose time is over are compared on the way.

    Args: hosts: those that the pool has now; the rate of a host gives a forecast its size.
    """
    policy = settings.scaling.of_pool(pool)
    window = timedelta(seconds=policy.window_s)
    moments = _in_steps(_moments(db, pool, (now - WINDOWS * window, now), settings.observe_every_s), policy.window_s)
    if moments:
        compare_forecasts(db, pool, policy.window_s, moments[-1].at)
    errors = forecast_errors(db, pool, hosts.tokens_per_s, now) if hosts.tokens_per_s else ()
    has_jobs = any(moment.offered_jobs for moment in moments)
    return DemandHistory(
        moments,
        season(db, pool, hosts.provision_s, now),
        errors,
        _needs(db, pool, now - window),
        _burst_until(db, pool),
        None if has_jobs else tokens_per_job(db, pool, now),
    )


def _in_steps(moments: Sequence[Moment], window_s: float) -> tuple[Moment, ...]:
    """The moments of the last window in steps, and the older ones, whose sums alone are looked at, as one."""
    window = timedelta(seconds=window_s)
    older = [each for each in moments if moments[-1].at - each.at >= window]
    last = moments[len(older) :]
    return joined(older, WINDOWS * window_s) + joined(last, min(STEP_S, window_s / BINS))


def joined(moments: Iterable[Moment], step_s: float) -> tuple[Moment, ...]:
    """Join moments into one for each step, counted back from the newest; steps without any are absent.

    Each counts all that was offered in its step, and shows the pool as it stood at the newest moment's end.

    Args: moments: in any order.
    """
    newest_first = sorted(moments, key=lambda moment: moment.at, reverse=True)
    steps: dict[int, list[Moment]] = {}
    for moment in newest_first:
        age_s = (newest_first[0].at - moment.at).total_seconds()
        steps.setdefault(int(age_s / step_s), []).append(moment)
    return tuple(_together(steps[step]) for step in sorted(steps, reverse=True))


def _together(newest_first: Sequence[Moment]) -> Moment:
    return replace(
        newest_first[0],
        seconds=sum(moment.seconds for moment in newest_first),
        offered_jobs=sum(moment.offered_jobs for moment in newest_first),
        offered_tokens=sum(moment.offered_tokens for moment in newest_first),
        refused_jobs=sum(moment.refused_jobs for moment in newest_first),
        spilled_jobs=sum(moment.spilled_jobs for moment in newest_first),
        discounted_jobs=sum(moment.discounted_jobs for moment in newest_first),
        discounted_tokens=sum(moment.discounted_tokens for moment in newest_first),
    )


def _moments(db: Connection, pool: str, span: tuple[datetime, datetime], every_s: float) -> list[Moment]:
    """The samples of the pool's lanes, added up for each time at which they were taken.

    Args: every_s: how often samples are taken, which is the length of the first interval.
    """
    own = queue_samples.c
    columns = {
        "offered_jobs": own.offered,
        "offered_tokens": own.offered_tokens,
        "refused_jobs": own.refused,
        "spilled_jobs": own.spilled,
        "depth": own.depth,
        "depth_tokens": own.depth_tokens,
        "running": own.running,
        "discounted_jobs": own.discounted,
        "discounted_tokens": own.discounted_tokens,
    }
    sums = (sa.cast(sa.func.sum(column), sa.BigInteger).label(name) for name, column in columns.items())
    # Slots are not a sum: the sample of each lane reports all slots of the pool.
    sampled = sa.select(own.at, *sums, sa.func.max(own.slots).label("slots")).where(
        own.queue.in_(lane_queues(pool)), own.at > span[0], own.at <= span[1]
    )
    rows = db.execute(sampled.group_by(own.at).order_by(own.at)).all()
    lengths = [every_s, *((after.at - before.at).total_seconds() for before, after in pairwise(rows))]
    return [Moment(**row._mapping, seconds=seconds) for row, seconds in zip(rows, lengths, strict=False)]


def _needs(db: Connection, pool: str, since: datetime) -> tuple[PastNeed, ...]:
    own = decisions.c
    found = sa.select(own.at, own.need, own.spare_need).where(
        own.pool == pool, own.at > since, own.need.is_not(None), own.spare_need.is_not(None)
    )
    return tuple(
        PastNeed(at=row.at, need=row.need, spare_need=row.spare_need) for row in db.execute(found.order_by(own.at))
    )


def _burst_until(db: Connection, pool: str) -> datetime | None:
    """Until when the burst counts that the last decision saw; None if it saw none."""
    last = sa.select(decisions.c.burst_until).where(decisions.c.pool == pool).order_by(decisions.c.at.desc()).limit(1)
    until: datetime | None = db.scalar(last)
    return until


#: Far enough back for five days of the weekend.
SEASON_SINCE = timedelta(days=22)
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
    return DayProfiles.of(offered(db, pool, today - SEASON_SINCE, today), now)


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


#: How far back forecasts count.
FORECASTS_SINCE = timedelta(days=7)
#: A forecast that could not be compared this long after its time is left out.
LATE = timedelta(hours=1)
#: How far back decisions may have a forecast that is due: hosts come sooner than that.
AHEAD = timedelta(days=1)
#: The share of a forecast's window that must have been observed.
OBSERVED = 0.8
#: Digits of the errors' quantiles: few, so that the inputs of a decision stay short.
DIGITS = 4


def compare_forecasts(db: Connection, pool: str, window_s: float, seen_at: datetime) -> int:
    """Note the load that came for the forecasts that are due: the mean over a window around the forecast's time.

    Args: seen_at: when the pool was last observed.
    Returns: forecasts that were compared.
    """
    half = timedelta(seconds=window_s / 2)
    own = decisions.alias("own").c
    is_due = (
        own.pool == pool,
        own.at > seen_at - AHEAD,
        own.forecast_at <= seen_at - half,
        own.forecast_at > seen_at - half - LATE,
        own.actual_tokens_per_s.is_(None),
    )
    around = (
        queue_samples.c.queue.in_(lane_queues(pool)),
        queue_samples.c.at > own.forecast_at - half,
        queue_samples.c.at <= own.forecast_at + half,
    )
    sample = sa.select(queue_samples.c.at, sa.func.sum(queue_samples.c.offered_tokens).label("tokens"))
    sample_at = sample.where(*around).group_by(queue_samples.c.at).correlate(own.id.table).subquery().c
    seen_s = sa.func.extract("epoch", sa.func.max(sample_at.at) - sa.func.min(sample_at.at))
    count = sa.func.count()
    # As many intervals as samples, of the mean length. Of one sample, the length is unknown.
    lasted_s = seen_s * count / sa.func.nullif(count - 1, 0)
    came = sa.select((sa.func.sum(sample_at.tokens) / lasted_s).label("rate"), lasted_s.label("seconds")).lateral(
        "came"
    )
    found = sa.select(own.id, came.c.rate).where(*is_due, came.c.seconds >= OBSERVED * window_s).subquery("found")
    noted = sa.update(decisions).where(decisions.c.id == found.c.id).values(actual_tokens_per_s=found.c.rate)
    return len(db.execute(noted.returning(decisions.c.id)).all())


def forecast_errors(db: Connection, pool: str, host_tokens_per_s: float, now: datetime) -> tuple[ErrorProfile, ...]:
    """How the forecasts of the last days came out, by kind. Args: host_tokens_per_s: one host's, which gives a size."""
    own = decisions.c
    compared = sa.select(own.forecast_tokens_per_s, own.burst_until.is_not(None), own.actual_tokens_per_s).where(
        own.pool == pool, own.at > now - FORECASTS_SINCE, own.actual_tokens_per_s.is_not(None)
    )
    rows = db.execute(compared).all()
    profiles = error_profiles((rate, is_burst, rate / host_tokens_per_s, actual) for rate, is_burst, actual in rows)
    return tuple(replace(each, ratios=tuple(round(ratio, DIGITS) for ratio in each.ratios)) for each in profiles)
