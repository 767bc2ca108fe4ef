"""The ledger beside the bills: what a paid API says that it charged, and the hours of hosts times their price."""

from dataclasses import dataclass
from decimal import Decimal

import sqlalchemy as sa
from sqlalchemy import Connection

from headrace.config import CostSettings
from headrace.store import clock
from headrace.store.money import cost_hours


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """The ledger beside the bills.

    Attributes:
        requests_usd: the full cost of all requests, and of calls of the paid API that failed.
        platform_usd: of the hosts' bill, what no request pays.
        provider_usd: what the paid API charged.
        host_hours, hosts_usd: of all leases with a price, from the leases alone.
    """

    requests_usd: Decimal
    platform_usd: Decimal
    provider_usd: Decimal
    host_hours: Decimal
    hosts_usd: Decimal

    @property
    def ledger_usd(self) -> Decimal:
        """The sum of the ledger."""
        return self.requests_usd + self.platform_usd

    @property
    def difference_usd(self) -> Decimal:
        """What the ledger has beyond the bills."""
        return self.ledger_usd - self.provider_usd - self.hosts_usd

    @property
    def share(self) -> Decimal:
        """The difference as a part of the bills; 0 where nothing was billed and nothing charged."""
        bills = self.provider_usd + self.hosts_usd
        return abs(self.difference_usd) / bills if bills else Decimal(self.ledger_usd != 0)

    def __str__(self) -> str:
        return (
            f"ledger {self.ledger_usd:.6f} USD = paid API {self.provider_usd:.6f} USD + {self.host_hours:.4f} host "
            f"hours {self.hosts_usd:.6f} USD; difference {self.difference_usd:.9f} USD ({float(self.share):.2g})"
        )


def reconcile(db: Connection, costs: CostSettings, provider_usd: Decimal | None = None) -> Reconciliation:
    """Share the hosts' bills up to now, and compare. Exact while no job is open. Changes nothing.

    The shares of the hour that is not over are undone: a request that ends later in that hour would count with them,
    and not be in its bill.

    Args:
        provider_usd: the paid API's own bill; None where it is unknown: the ledger's sum is taken instead.
    """
    now = clock.now(db)
    with db.begin_nested() as trial:
        for bill in cost_hours.open_bills(db, now):
            cost_hours.close_hour(db, bill, costs)
        row = db.execute(_SUMS, {"now": now}).one()
        trial.rollback()
    provider = row.paid_usd if provider_usd is None else provider_usd
    return Reconciliation(row.requests_usd, row.platform_usd, provider, row.host_hours, row.hosts_usd)


def paid_usd(db: Connection) -> Decimal:
    """What the ledger has of the paid API, failed calls included."""
    usd: Decimal = db.execute(_SUMS, {"now": clock.now(db)}).one().paid_usd
    return usd


# Waste of own hosts is part of the platform's; failed calls of the paid API are not. Own requests whose hour has no
# bill were on hosts without a price, which are on neither side.
_SUMS = sa.text(
    """
    WITH paid AS (
        SELECT l.id
        FROM ledger l
        JOIN attempts a ON a.job_id = l.job_id AND a.number = l.attempt
        WHERE a.engine = 'openai'
    ), entries AS (
        SELECT coalesce(sum(c.full_usd) FILTER (
                   WHERE (c.kind = 'compute' AND c.is_closed) OR c.kind NOT IN ('compute', 'waste') OR p.id IS NOT NULL
               ), 0) AS requests_usd,
               coalesce(sum(c.usd) FILTER (WHERE p.id IS NOT NULL), 0) AS paid_usd
        FROM charges c LEFT JOIN paid p USING (id)
    ), leases AS (
        SELECT extract(epoch FROM least(coalesce(ended_at, 'infinity'), :now) - ordered_at) AS lease_s, usd_per_hour
        FROM hosts
        WHERE ordered_at < :now AND usd_per_hour IS NOT NULL
    )
    SELECT requests_usd, paid_usd,
           (SELECT coalesce(sum(platform_usd), 0) FROM cost_hours) AS platform_usd,
           (SELECT coalesce(sum(lease_s), 0) / 3600 FROM leases) AS host_hours,
           (SELECT coalesce(sum(lease_s * usd_per_hour), 0) / 3600 FROM leases) AS hosts_usd
    FROM entries
    """
)
