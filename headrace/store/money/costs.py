"""What a month cost: the hosts' bill against what it was shared into, the charges by app and kind, and the savings.

The ledger's entries of the month are read once, and summed up by app, pool and kind; the rest follows from these sums.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from itertools import groupby
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Row


@dataclass(frozen=True, slots=True)
class PoolMonth:
    """The hosts of one pool in the closed hours of a month.

    Attributes:
        hours: closed ones.
        host_hours: that were billed.
        bill_usd: what the hosts cost.
        used_usd: the part of it that the prices of requests cover.
        waste_usd: the part for failed and lost attempts.
        boot_usd: the part for hosts that were not ready yet.
        requests_usd: the full cost of the requests.
        platform_usd: what no request pays.
        unpriced_host_hours: hours of hosts without a price, which the bill does not cover.
    """

    pool: str
    hours: int
    host_hours: Decimal
    bill_usd: Decimal
    used_usd: Decimal
    waste_usd: Decimal
    boot_usd: Decimal
    requests_usd: Decimal
    platform_usd: Decimal
    unpriced_host_hours: int

    @property
    def difference_usd(self) -> Decimal:
        """What the shares exceed the bill by. Anything but 0 is an error."""
        return self.requests_usd + self.platform_usd - self.bill_usd


@dataclass(frozen=True, slots=True)
class AppMonth:
    """The charges of one app and one kind in a month.

    Attributes:
        app: its name; None for the platform's.
        kind: `compute`: own hosts; `api`: the paid API; see `LEDGER_KINDS`.
        usd: what the app is charged; of waste, what it cost.
        full_usd: with the requests' shares of hosts that were paid for and not used, in the hours that are closed.
        api_usd: what the paid API would have charged; None if it has no price.
        open_requests: those of hours that are not closed, or whose hosts have no price: they count at their price.
    """

    app: str | None
    kind: str
    requests: int
    prompt_tokens: int
    output_tokens: int
    usd: Decimal
    full_usd: Decimal
    api_usd: Decimal | None
    open_requests: int


@dataclass(frozen=True, slots=True)
class Saving:
    """What the own hosts of a pool saved in a time against the paid API's list price; negative: they cost more."""

    pool: str
    requests: int
    full_usd: Decimal
    platform_usd: Decimal
    api_usd: Decimal

    @property
    def saved_usd(self) -> Decimal:
        """What the paid API would have charged beyond what the hosts cost."""
        return self.api_usd - self.full_usd - self.platform_usd


@dataclass(frozen=True, slots=True)
class Month:
    """What a month cost.

    Attributes:
        pools: those with hosts in closed hours, by name.
        apps: the charges by app and kind, the most expensive first.
        savings: by pool.
    """

    pools: Sequence[PoolMonth]
    apps: Sequence[AppMonth]
    savings: Sequence[Saving]


def month(db: Connection, since: datetime, until: datetime) -> Month:
    """What the entries and the closed hours of this time cost. Args: since, until: the month's start and end."""
    time = {"since": since, "until": until}
    sums = db.execute(_SUMS, time).all()
    compute = [each for each in sums if each.kind == "compute"]
    hours = db.execute(_HOURS, time).all()
    closed = _usd_by_pool((each.pool, each.full_usd) for each in compute if each.is_closed)
    pools = [PoolMonth(**each._mapping, requests_usd=closed[each.pool]) for each in hours]
    return Month(pools, _apps(sums), _savings(compute, {each.pool: each.platform_usd for each in pools}))


def _usd_by_pool(amounts: Iterable[tuple[str, Decimal]]) -> defaultdict[str, Decimal]:
    total: defaultdict[str, Decimal] = defaultdict(Decimal)
    for pool, usd in amounts:
        total[pool] += usd
    return total


def _apps(sums: Sequence[Row[Any]]) -> list[AppMonth]:
    found = []
    by_app = groupby(sorted(sums, key=_of_app), key=_of_app)
    for rows in (list(rows) for _, rows in by_app):
        api_usd = [each.api_usd for each in rows if each.api_usd is not None]
        found.append(
            AppMonth(
                app=rows[0].app,
                kind=rows[0].kind,
                requests=sum(each.requests for each in rows),
                prompt_tokens=sum(each.prompt_tokens for each in rows),
                output_tokens=sum(each.output_tokens for each in rows),
                usd=sum((each.usd for each in rows), Decimal()),
                full_usd=sum((each.full_usd for each in rows), Decimal()),
                api_usd=sum(api_usd, Decimal()) if api_usd else None,
                open_requests=sum(each.requests for each in rows if each.kind == "compute" and not each.is_closed),
            )
        )
    # Sorting keeps the order of equals.
    return sorted(found, key=lambda each: each.full_usd, reverse=True)


def _of_app(row: Row[Any]) -> tuple[bool, str, str]:
    """The platform's own charges come last."""
    return row.app is None, row.app or "", row.kind


def _savings(compute: Sequence[Row[Any]], platform_usd: Mapping[str, Decimal]) -> list[Saving]:
    full_usd = _usd_by_pool((each.pool, each.full_usd) for each in compute)
    api_usd = _usd_by_pool((each.pool, each.api_usd or Decimal()) for each in compute)
    requests = Counter[str]()
    for each in compute:
        requests[each.pool] += each.requests
    return [
        Saving(pool, requests[pool], full_usd[pool], platform_usd.get(pool, Decimal()), api_usd[pool])
        for pool in sorted(platform_usd.keys() | requests.keys())
    ]


_HOURS = sa.text(
    """
    SELECT pool,
           count(*) AS hours,
           sum(host_hours) AS host_hours,
           sum(bill_usd) AS bill_usd,
           sum(used_usd) AS used_usd,
           sum(waste_usd) AS waste_usd,
           sum(boot_usd) AS boot_usd,
           sum(platform_usd) AS platform_usd,
           sum(unpriced_hosts) AS unpriced_host_hours
    FROM gpu_hours
    WHERE hour >= :since AND hour < :until
    GROUP BY pool
    ORDER BY pool
    """
)
_SUMS = sa.text(
    """
    SELECT a.name AS app, s.*
    FROM (
        SELECT l.app_id,
               l.pool,
               l.kind,
               h.pool IS NOT NULL AS is_closed,
               count(*) AS requests,
               sum(l.prompt_tokens) AS prompt_tokens,
               sum(l.output_tokens) AS output_tokens,
               sum(l.usd) AS usd,
               sum(CASE WHEN h.pool IS NULL THEN l.usd
                        ELSE full_usd(l.usd,
                                      request_work(l.prompt_tokens, l.cached_tokens, l.output_tokens, l.kv_token_s,
                                                   h.weigh_by, h.cached_weight, h.output_weight),
                                      h.factor, h.idle_usd_per_work)
                   END) AS full_usd,
               sum(l.api_usd) AS api_usd
        FROM ledger l
        LEFT JOIN cost_hours h ON l.kind = 'compute' AND h.pool = l.pool AND h.hour = date_trunc('hour', l.at, 'UTC')
        WHERE l.at >= :since AND l.at < :until
        GROUP BY 1, 2, 3, 4
    ) s
    LEFT JOIN apps a ON a.id = s.app_id
    """
)
