"""The forecast: level, trend and season at a time ahead."""

from headrace.domain.scaling import Season
from headrace.policies.scaling.forecast.level import Demand
from headrace.policies.scaling.forecast.season import ratio

#: A trend is followed up to this factor of the level.
MOST_GROWTH = 4.0


def expected(demand: Demand, season: Season | None, ahead_s: float) -> tuple[float, str]:
    """The offered tokens per second then, and what they follow from.

    A falling trend is followed half of the way: it ends more often than it goes on.
    """
    level = demand.level
    along = min(max(level + demand.slope * ahead_s, 0.0), MOST_GROWTH * level)
    if season is not None:
        seasonal = level * ratio(season, ahead_s)
        if demand.slope > 0 and along > seasonal:
            return (seasonal + along) / 2, "season and trend"
        return seasonal, "season"
    if demand.slope > 0:
        return along, "trend"
    if demand.slope < 0:
        return (along + level) / 2, "trend"
    return level, "level"


def expected_in_burst(demand: Demand, ahead_s: float) -> float:
    """The offered tokens per second then, if the last minute goes on as it began."""
    return min(demand.last + max(demand.slope, 0.0) * ahead_s, MOST_GROWTH * demand.last)
