"""How past forecasts came out. Each is compared once, when its time is over; its decision keeps the result."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy import Connection

from headrace.domain.queues import lane_queues
from headrace.domain.scaling import ErrorProfile
from headrace.policies.scaling import error_profiles
from headrace.tables import decisions, queue_samples

#: The forecasts of so many days count.
SINCE = timedelta(days=7)
#: A forecast that could not be compared for so long after its time is left out.
LATE = timedelta(hours=1)
#: Decisions of so long ago may have a forecast that is due: hosts come sooner than that.
AHEAD = timedelta(days=1)
#: The share of a forecast's window that must have been observed.
OBSERVED = 0.8
#: The quantiles of the errors are rounded to so many digits, which keeps the inputs of a decision short.
DIGITS = 4


def compare(db: Connection, pool: str, window_s: float, seen_at: datetime) -> int:
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


def errors(db: Connection, pool: str, host_tokens_per_s: float, now: datetime) -> tuple[ErrorProfile, ...]:
    """How the forecasts of the last days came out, by kind. Args: host_tokens_per_s: one host's, which gives a size."""
    own = decisions.c
    compared = sa.select(own.forecast_tokens_per_s, own.burst_until.is_not(None), own.actual_tokens_per_s).where(
        own.pool == pool, own.at > now - SINCE, own.actual_tokens_per_s.is_not(None)
    )
    rows = db.execute(compared).all()
    profiles = error_profiles((rate, is_burst, rate / host_tokens_per_s, actual) for rate, is_burst, actual in rows)
    return tuple(_rounded(profile) for profile in profiles)


def _rounded(profile: ErrorProfile) -> ErrorProfile:
    ratios: Sequence[float] = [round(ratio, DIGITS) for ratio in profile.ratios]
    return ErrorProfile(profile.is_burst, profile.above_hosts, profile.count, tuple(ratios))
