"""Money over days and months, for charts: the figures of the analysts' views.

Each statement reads the entries of its own time alone. `split_point` adds up the whole ledger before a condition on the
month applies.
"""

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


def routes_per_day(db: Connection, since: datetime, until: datetime) -> list[RouteDay]:
    """The charges of each day and route, the oldest first."""
    return [RouteDay(**row._mapping) for row in db.execute(_ROUTES, {"since": since, "until": until})]


def split_points(db: Connection, since: datetime, until: datetime) -> list[SplitPoint]:
    """The split point of each pool in a month, by pool. Args: since, until: the month's start and end."""
    return [SplitPoint(**row._mapping) for row in db.execute(_SPLITS, {"since": since, "until": until})]


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
    SELECT CAST(:since AS timestamptz) AS month,
           pool,
           bill_usd / host_hours AS usd_per_host_hour,
           api_usd / requests AS api_usd_per_request,
           requests / host_hours AS requests_per_host_hour,
           bill_usd / host_hours / nullif(api_usd / requests, 0) AS break_even_requests_per_host_hour,
           3600 * rate.tokens_per_s / nullif(tokens / requests, 0) AS most_requests_per_host_hour,
           bill_usd / nullif(api_usd, 0) AS break_even_share
    FROM (
        SELECT pool, sum(bill_usd) AS bill_usd, sum(host_s) / 3600 AS host_hours
        FROM cost_hours
        WHERE hour >= :since AND hour < :until
        GROUP BY pool
    ) bills
    JOIN (
        SELECT pool, count(*) AS requests, sum(api_usd) AS api_usd,
               sum(prompt_tokens::bigint + output_tokens)::numeric AS tokens
        FROM ledger
        WHERE kind = 'compute' AND at >= :since AND at < :until
        GROUP BY pool
    ) own USING (pool)
    LEFT JOIN LATERAL (
        SELECT tokens_per_s::numeric FROM own_prices p WHERE p.pool = bills.pool ORDER BY id DESC LIMIT 1
    ) rate ON true
    WHERE host_hours > 0
    ORDER BY pool
    """
)
