"""What a month cost: the hosts' bill against what it was shared into, and the charges by app and by kind."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

import sqlalchemy as sa
from sqlalchemy import Connection


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


def pool_months(db: Connection, since: datetime, until: datetime) -> list[PoolMonth]:
    """The pools with hosts in closed hours that begin in this time, by name."""
    return [PoolMonth(**row._mapping) for row in db.execute(_POOLS, {"since": since, "until": until})]


def app_months(db: Connection, since: datetime, until: datetime) -> list[AppMonth]:
    """The charges of this time by app and kind, the most expensive first."""
    return [AppMonth(**row._mapping) for row in db.execute(_APPS, {"since": since, "until": until})]


_POOLS = sa.text(
    """
    SELECT pool,
           count(*) AS hours,
           sum(h.host_hours) AS host_hours,
           sum(h.bill_usd) AS bill_usd,
           sum(h.used_usd) AS used_usd,
           sum(h.waste_usd) AS waste_usd,
           sum(h.boot_usd) AS boot_usd,
           sum(r.requests_usd) AS requests_usd,
           sum(h.platform_usd) AS platform_usd,
           sum(h.unpriced_hosts) AS unpriced_host_hours
    FROM gpu_hours h JOIN cost_reconciliation r USING (pool, hour)
    WHERE hour >= :since AND hour < :until
    GROUP BY pool
    ORDER BY pool
    """
)
_APPS = sa.text(
    """
    SELECT a.name AS app,
           l.kind,
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
           sum(l.api_usd) AS api_usd,
           count(*) FILTER (WHERE l.kind = 'compute' AND h.pool IS NULL) AS open_requests
    FROM ledger l
    LEFT JOIN apps a ON a.id = l.app_id
    LEFT JOIN cost_hours h ON l.kind = 'compute' AND h.pool = l.pool AND h.hour = date_trunc('hour', l.at, 'UTC')
    WHERE l.at >= :since AND l.at < :until
    GROUP BY a.name, l.kind
    ORDER BY full_usd DESC, a.name, l.kind
    """
)
