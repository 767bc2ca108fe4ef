"""The past of a pool, as its next scaling decision sees it."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise

import sqlalchemy as sa
from sqlalchemy import Connection

from headrace.config import Settings
from headrace.domain.queues import lane_queues
from headrace.domain.scaling import History, Moment, PastNeed, PoolHosts
from headrace.policies.scaling.forecast import BINS
from headrace.store.scaling import outcomes, season
from headrace.tables import decisions, queue_samples

#: Moments are joined to this length, or to a bin of the policy's window if that is shorter.
STEP_S = 30.0
#: So many windows of moments are read: the jobs of both have a mean size.
WINDOWS = 2


def load(db: Connection, settings: Settings, pool: str, hosts: PoolHosts, now: datetime) -> History:
    """All that a decision on this pool knows of the past. Forecasts whose time is over are compared on the way.

    Args: hosts: those that the pool has now; the rate of a host gives a forecast its size.
    """
    policy = settings.scaling.of_pool(pool)
    window = timedelta(seconds=policy.window_s)
    moments = _in_steps(_moments(db, pool, (now - WINDOWS * window, now), settings.observe_every_s), policy.window_s)
    if moments:
        outcomes.compare(db, pool, policy.window_s, moments[-1].at)
    errors = outcomes.errors(db, pool, hosts.tokens_per_s, now) if hosts.tokens_per_s else ()
    has_jobs = any(moment.offered_jobs for moment in moments)
    return History(
        moments,
        season.season(db, pool, hosts.provision_s, now),
        errors,
        _needs(db, pool, now - window),
        _burst_until(db, pool),
        None if has_jobs else season.tokens_per_job(db, pool, now),
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
