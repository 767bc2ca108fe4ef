"""Money over days and months, from the analysts' views, for charts."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

import sqlalchemy as sa
from sqlalchemy import Connection


@dataclass(frozen=True, slots=True)
class RouteDay:
    """The charges of one day of UTC on one route.

    Attributes:
        route: None for charges without a job.
        full_usd: with the shares of hosts that were paid for and not used, and with failed and lost attempts.
    """

    day: datetime
    route: str | None
    requests: int
    full_usd: Decimal


@dataclass(frozen=True, slots=True)
class SplitPoint:
    """From how many requests an hour a pool's host was cheaper than the paid API in a month: see the view.

    Attributes:
        most_requests_per_host_hour: what a saturated host serves; None: unknown.
        api_usd_per_request: None: the paid API has no price for the model.
    """

    month: datetime
    pool: str
    usd_per_host_hour: Decimal
    api_usd_per_request: Decimal | None
    requests_per_host_hour: Decimal
    break_even_requests_per_host_hour: Decimal | None
    most_requests_per_host_hour: Decimal | None
    break_even_share: Decimal | None


@dataclass(frozen=True, slots=True)
class Saving:
    """What the own hosts of a pool saved in a time against the paid API's list price; negative: they cost more."""

    pool: str
    requests: int
    full_usd: Decimal
    platform_usd: Decimal
    api_usd: Decimal
    saved_usd: Decimal


def routes_per_day(db: Connection, since: datetime, until: datetime) -> list[RouteDay]:
    """The charges of each day and route, the oldest first."""
    return [RouteDay(**row._mapping) for row in db.execute(_ROUTES, {"since": since, "until": until})]


def split_points(db: Connection, month: datetime) -> list[SplitPoint]:
    """The split point of each pool in the month that begins then, by pool."""
    return [SplitPoint(**row._mapping) for row in db.execute(_SPLITS, {"month": month})]


def savings(db: Connection, since: datetime, until: datetime) -> list[Saving]:
    """What each pool saved, by pool."""
    return [Saving(**row._mapping) for row in db.execute(_SAVINGS, {"since": since, "until": until})]


_ROUTES = sa.text(
    """
    SELECT day, route, sum(requests)::bigint AS requests, sum(full_usd + waste_usd) AS full_usd
    FROM cost_per_day
    WHERE day >= :since AND day < :until
    GROUP BY day, route
    ORDER BY day, route
    """
)
_SPLITS = sa.text(
    """
    SELECT month, pool, usd_per_host_hour, api_usd_per_request, requests_per_host_hour,
           break_even_requests_per_host_hour, most_requests_per_host_hour, break_even_share
    FROM split_point
    WHERE month = :month
    ORDER BY pool
    """
)
_SAVINGS = sa.text(
    """
    SELECT pool, sum(requests)::bigint AS requests, sum(full_usd) AS full_usd, sum(platform_usd) AS platform_usd,
           sum(api_usd) AS api_usd, sum(saved_usd) AS saved_usd
    FROM savings_per_day
    WHERE day >= :since AND day < :until
    GROUP BY pool
    ORDER BY pool
    """
)
