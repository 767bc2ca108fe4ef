"""Closed hours and days: what each pool's hosts cost in an hour of UTC, and how the requests that ended in it share it.

A closed day sums up the charges of a day of UTC that is over, so that a month of them is quick to read. `reconcile`
compares the ledger with the bills.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import insert

from headrace.config import CostSettings
from headrace.policies.pricing import HourRates
from headrace.store import clock
from headrace.store.money import host_hours
from headrace.store.money.host_hours import MOST_HOURS, REVISE, SETTLE, HostTerms, bill_hosts
from headrace.tables import cost_hours, label_keys

#: A closing may take so long: an hour of 1,000 jobs a second has 3.6 million entries.
TIMEOUT_MS = 300_000


@dataclass(frozen=True, slots=True)
class HostBill:
    """What the hosts of one pool cost in one hour: its parts of the bills of its machines.

    Attributes:
        hour: its start.
        host_s: seconds that are billed, of all hosts together.
        boot_s: those of them before a host was ready.
        unpriced_hosts: hosts without a price, which the bill does not cover.
        dead_usd: the part for owned machines without a worker.
    """

    pool: str
    hour: datetime
    host_s: Decimal
    boot_s: Decimal
    unpriced_hosts: int
    bill_usd: Decimal
    boot_usd: Decimal
    dead_usd: Decimal = Decimal(0)


def open_bills(db: Connection, terms: HostTerms | None = None, until: datetime | None = None) -> list[HostBill]:
    """Bill the machines, and return the pools' bills that no closed hour has; the oldest first.

    An hour without a priced host has no bill. The row of an hour whose bill is gone is deleted with that.

    Args:
        terms: what the settings say of the bills of hosts.
        until: bill the hosts up to this moment, also in an hour that is not over: a preliminary bill, since the sweep
            closes the hour again with its whole bill. By default up to the last hour that is over and has settled.
    """
    last = None
    while True:
        billed = bill_hosts(db, terms or HostTerms(), until)
        found = [HostBill(**row._mapping) for row in db.execute(_OPEN_BILLS, {"revise": REVISE, "most": MOST_HOURS})]
        # Hours of hosts without a price make no bill, and later hours may make one.
        if found or billed is None or (last is not None and billed <= last):
            return found
        last = billed


def close_hour(db: Connection, bill: HostBill, costs: CostSettings) -> HourRates:
    """Share a bill among the requests that ended in its hour, and write the hour's row; returns the rates.

    Closing an hour again replaces its row. No entry of the ledger changes.
    """
    db.exec_driver_sql(f"SET LOCAL statement_timeout = {TIMEOUT_MS}")
    terms = costs.weights | {"pool": bill.pool, "hour": bill.hour}
    sums = db.execute(_SUMS, terms).one()
    # No request runs on a machine without a worker: that part of the bill is the platform's.
    rates = HourRates.of(bill.bill_usd - bill.dead_usd, sums.compute_usd + sums.waste_usd, sums.work)
    shared: Decimal = db.execute(_SHARED, terms | asdict(rates)).scalar_one()
    values: Mapping[str, Any] = {
        **{name: value for name, value in asdict(bill).items() if name != "dead_usd"},
        **asdict(rates),
        **sums._mapping,
        **costs.weights,
        "platform_usd": bill.bill_usd - shared,
        "closed_at": sa.func.now(),
    }
    row = insert(cost_hours).values(values)
    db.execute(row.on_conflict_do_update(index_elements=["pool", "hour"], set_=dict(values)))
    return rates


# Only those whose machines were billed since the last week of closings: no other bill can differ.
_OPEN_BILLS = sa.text(
    """
    WITH billed AS (
        SELECT DISTINCT pool, hour FROM host_hours
        WHERE billed_at >= coalesce((SELECT max(closed_at) FROM cost_hours) - :revise, '-infinity')
    ), bills AS (
        SELECT pool, hour, sum(host_s) AS host_s, sum(boot_s) AS boot_s,
               count(*) FILTER (WHERE NOT is_priced) AS unpriced_hosts, sum(bill_usd) AS bill_usd,
               sum(boot_usd) AS boot_usd, sum(dead_usd) AS dead_usd, max(billed_at) AS billed_at
        FROM host_hours JOIN billed USING (pool, hour)
        GROUP BY pool, hour
        HAVING bool_or(is_priced)
    )
    SELECT b.pool, b.hour, b.host_s, b.boot_s, b.unpriced_hosts, b.bill_usd, b.boot_usd, b.dead_usd
    FROM bills b LEFT JOIN cost_hours c USING (pool, hour)
    WHERE c.pool IS NULL OR c.closed_at < b.billed_at
       OR (c.host_s, c.boot_s, c.unpriced_hosts, c.bill_usd, c.boot_usd)
          <> (b.host_s, b.boot_s, b.unpriced_hosts, b.bill_usd, b.boot_usd)
    ORDER BY hour, pool
    LIMIT :most
    """
).bindparams(sa.bindparam("revise", type_=sa.Interval))

_ENTRIES = """
    FROM ledger l
    WHERE l.pool = :pool AND l.at >= :hour AND l.at < CAST(:hour AS timestamptz) + interval '1 hour'
"""
_WORK = """
    request_work(l.prompt_tokens, l.cached_tokens, l.output_tokens, l.kv_token_s,
                 CAST(:weigh_by AS text), CAST(:cached_weight AS numeric), CAST(:output_weight AS numeric))
"""
# Failed calls of the paid API are waste too, but not of own hosts.
_SUMS = sa.text(
    f"""
    SELECT count(*) FILTER (WHERE l.kind = 'compute') AS requests,
           coalesce(sum({_WORK}) FILTER (WHERE l.kind = 'compute'), 0) AS work,
           coalesce(sum(l.usd) FILTER (WHERE l.kind = 'compute'), 0) AS compute_usd,
           coalesce(sum(l.usd) FILTER (WHERE l.kind = 'waste'), 0) AS waste_usd
    {_ENTRIES}
      AND (l.kind = 'compute' OR (l.kind = 'waste' AND EXISTS (
          SELECT FROM attempts a WHERE a.job_id = l.job_id AND a.number = l.attempt AND a.engine <> 'openai')))
    """
)
_SHARED = sa.text(
    f"""
    SELECT coalesce(sum(full_usd(l.usd, {_WORK}, CAST(:factor AS numeric), CAST(:idle_usd_per_work AS numeric))), 0)
    {_ENTRIES} AND l.kind = 'compute'
    """
)


#: The most days that one sweep closes.
MOST_DAYS = 31
#: Tables of closed days, and the functions that sum them up.
_SUMMED = (
    *(("cost_days", "costs_by_day"), ("charge_days", "charges_by_day")),
    *(("user_days", "users_by_day"), ("label_days", "labels_by_day")),
)


def set_label_keys(db: Connection, keys: Sequence[str]) -> None:
    """Split costs by these keys of metadata from now on. Closed days keep the keys that they were closed with."""
    if set(db.scalars(sa.select(label_keys.c.key))) != set(keys):
        db.execute(sa.delete(label_keys))
        if keys:
            db.execute(sa.insert(label_keys), [{"key": key} for key in keys])


def open_days(db: Connection) -> list[datetime]:
    """Days that are over and not closed, or closed before their hours last were; the oldest first.

    The first day is that of the ledger's first entry. None is left out, since the views read the charges themselves
    only after the last closed day.
    """
    return list(db.scalars(_OPEN_DAYS, {"settle": SETTLE, "most": MOST_DAYS}))


def close_day(db: Connection, day: datetime) -> None:
    """Sum up the charges of a day. Closing it again replaces the sums."""
    db.exec_driver_sql(f"SET LOCAL statement_timeout = {TIMEOUT_MS}")
    # First, so that another process that closes the same day waits, and an hour that is closed meanwhile is noticed.
    db.execute(_NOTE, {"day": day})
    for table, function in _SUMMED:
        db.execute(sa.text(f"DELETE FROM {table} WHERE day = :day"), {"day": day})
        sums = f"INSERT INTO {table} SELECT * FROM {function}(:day, CAST(:day AS timestamptz) + interval '24 hours')"
        db.execute(sa.text(sums), {"day": day})


_OPEN_DAYS = sa.text(
    """
    WITH hours AS (
        SELECT date_trunc('day', hour, 'UTC') AS day, count(*) AS hours, max(closed_at) AS closed_at
        FROM cost_hours
        GROUP BY 1
    ), span AS (
        SELECT coalesce((SELECT max(day) + interval '24 hours' FROM closed_days),
                        (SELECT date_trunc('day', min(at), 'UTC') FROM ledger)) AS since,
               date_trunc('day', now() - :settle, 'UTC') AS until
    )
    SELECT day
    FROM span, generate_series(since, until - interval '24 hours', interval '24 hours') AS day
    UNION ALL
    SELECT c.day
    FROM closed_days c
    LEFT JOIN hours h USING (day)
    WHERE (c.hours, coalesce(c.hours_closed_at, '-infinity'))
          <> (coalesce(h.hours, 0), coalesce(h.closed_at, '-infinity'))
    ORDER BY day
    LIMIT :most
    """
).bindparams(sa.bindparam("settle", type_=sa.Interval))
_NOTE = sa.text(
    """
    INSERT INTO closed_days (day, hours, hours_closed_at, closed_at)
    SELECT :day, count(*), max(closed_at), now()
    FROM cost_hours
    WHERE hour >= :day AND hour < CAST(:day AS timestamptz) + interval '24 hours'
    ON CONFLICT (day) DO UPDATE
    SET hours = excluded.hours, hours_closed_at = excluded.hours_closed_at, closed_at = excluded.closed_at
    """
)


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """The ledger beside the bills.

    Attributes:
        requests_usd: the full cost of all requests, and of calls of the paid API that failed.
        platform_usd: of the hosts' bill, what no request pays.
        provider_usd: what the paid API charged.
        host_hours, hosts_usd: of all machines with a price, from their leases and the calendar alone.
    """

    requests_usd: Decimal
    platform_usd: Decimal
    provider_usd: Decimal
    host_hours: Decimal
    hosts_usd: Decimal

    @property
    def ledger_usd(self) -> Decimal:
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


def reconcile(db: Connection, terms: HostTerms, provider_usd: Decimal | None = None) -> Reconciliation:
    """Share the hosts' bills up to now, and compare. Exact while no job is open. Changes nothing.

    The shares of the hour that is not over are undone: a request that ends later in that hour would count with them,
    and not be in its bill.

    Args:
        provider_usd: the paid API's own bill; None where it is unknown: the ledger's sum is taken instead.
    """
    now = clock.now(db)
    with db.begin_nested() as trial:
        while bills := open_bills(db, terms, now):
            for bill in bills:
                close_hour(db, bill, terms.costs)
        row = db.execute(_LEDGER_AND_BILLS).one()
        trial.rollback()
    hours, usd = host_hours.lease_bill(db, terms, now)
    provider = row.paid_usd if provider_usd is None else provider_usd
    return Reconciliation(row.requests_usd, row.platform_usd, provider, hours, usd)


def paid_usd(db: Connection) -> Decimal:
    """What the ledger has of the paid API, failed calls included."""
    usd: Decimal = db.execute(_LEDGER_AND_BILLS).one().paid_usd
    return usd


# Waste of own hosts is part of the platform's; failed calls of the paid API are not. Own requests whose hour has no
# bill were on hosts without a price, which are on neither side.
_LEDGER_AND_BILLS = sa.text(
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
    )
    SELECT requests_usd, paid_usd, (SELECT coalesce(sum(platform_usd), 0) FROM cost_hours) AS platform_usd
    FROM entries
    """
)
