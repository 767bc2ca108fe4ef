"""Closed hours: what each pool's hosts cost in an hour of UTC, and how the requests that ended in it share that."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import insert

from headrace.config import CostSettings
from headrace.policies.costing import HourRates
from headrace.tables import cost_hours

#: An hour is closed so long after its end: every transaction that writes an entry with a time of that hour is over.
SETTLE = timedelta(minutes=5)
#: A closed hour is closed again if its bill changes within this time: a host was found late, or its end was.
REVISE = timedelta(days=7)
#: The most hours that one sweep closes.
MOST_HOURS = 48
#: A closing may take so long: an hour of 1,000 jobs a second has 3.6 million entries.
TIMEOUT_MS = 300_000


@dataclass(frozen=True, slots=True)
class HostBill:
    """What the hosts of one pool cost in one hour.

    Attributes:
        hour: its start.
        host_s: seconds that are billed, of all hosts together.
        boot_s: those of them before a host was ready.
        unpriced_hosts: hosts without a price, which the bill does not cover.
    """

    pool: str
    hour: datetime
    host_s: Decimal
    boot_s: Decimal
    unpriced_hosts: int
    bill_usd: Decimal
    boot_usd: Decimal


def open_bills(db: Connection, until: datetime | None = None) -> list[HostBill]:
    """The bills of hours that are over and not closed, or closed with another bill; the oldest first.

    An hour in which no host had a price has none. The rows of hours that have none any more are deleted.

    Args:
        until: bill the hosts up to this moment, also in an hour that is not over: a preliminary bill, since the sweep
            closes the hour again with its whole bill. By default up to the last hour that is over and has settled.
    """
    db.execute(_UNBILLED, {"revise": REVISE})
    return [HostBill(**row._mapping) for row in db.execute(_OPEN, {**_TIMES, "until": until})]


def close_hour(db: Connection, bill: HostBill, costs: CostSettings) -> HourRates:
    """Share a bill among the requests that ended in its hour, and write the hour's row; returns the rates.

    Closing an hour again replaces its row. No entry of the ledger changes.
    """
    db.exec_driver_sql(f"SET LOCAL statement_timeout = {TIMEOUT_MS}")
    terms = costs.model_dump() | {"pool": bill.pool, "hour": bill.hour}
    sums = db.execute(_SUMS, terms).one()
    rates = HourRates.of(bill.bill_usd, sums.compute_usd + sums.waste_usd, sums.work)
    shared: Decimal = db.execute(_SHARED, terms | asdict(rates)).scalar_one()
    values: Mapping[str, Any] = {
        **asdict(bill),
        **asdict(rates),
        **sums._mapping,
        **costs.model_dump(),
        "platform_usd": bill.bill_usd - shared,
        "closed_at": sa.func.now(),
    }
    row = insert(cost_hours).values(values)
    db.execute(row.on_conflict_do_update(index_elements=["pool", "hour"], set_=dict(values)))
    return rates


_TIMES = {"settle": SETTLE, "revise": REVISE, "most": MOST_HOURS}

# The bill of an hour is the difference of two rounded sums since the lease began, so that the hours' bills add up to
# the lease's to the last digit.
_OPEN = sa.text(
    """
    WITH span AS (
        SELECT pool, coalesce(max(c.hour) - :revise, '-infinity') AS since,
               coalesce(CAST(:until AS timestamptz), date_trunc('hour', now() - :settle, 'UTC')) AS until
        FROM (SELECT DISTINCT pool FROM hosts) pools LEFT JOIN cost_hours c USING (pool)
        GROUP BY pool
    ), leases AS (
        SELECT pool, h.usd_per_hour, h.ordered_at, least(coalesce(h.ended_at, 'infinity'), span.until) AS ended_at,
               h.ready_at, span.since
        FROM hosts h JOIN span USING (pool)
        WHERE h.ordered_at < span.until AND coalesce(h.ended_at, 'infinity') > greatest(span.since, h.ordered_at)
    ), parts AS (
        SELECT l.*, s.hour, greatest(s.hour, l.ordered_at) AS began,
               least(s.hour + interval '1 hour', l.ended_at) AS stopped
        FROM leases l, generate_series(date_trunc('hour', greatest(l.ordered_at, l.since), 'UTC'),
                                       l.ended_at - interval '1 microsecond', interval '1 hour') s (hour)
    ), booted AS (
        SELECT *, greatest(began, least(stopped, coalesce(ready_at, 'infinity'))) AS up FROM parts
    ), seconds AS (
        SELECT *, extract(epoch FROM began - ordered_at) AS began_s,
               extract(epoch FROM stopped - ordered_at) AS stopped_s, extract(epoch FROM up - ordered_at) AS up_s
        FROM booted
    ), bills AS (
        SELECT pool, hour,
               sum(stopped_s - began_s) FILTER (WHERE usd_per_hour IS NOT NULL) AS host_s,
               sum(up_s - began_s) FILTER (WHERE usd_per_hour IS NOT NULL) AS boot_s,
               count(*) FILTER (WHERE usd_per_hour IS NULL) AS unpriced_hosts,
               sum(round(usd_per_hour * stopped_s / 3600, 9) - round(usd_per_hour * began_s / 3600, 9)) AS bill_usd,
               sum(round(usd_per_hour * up_s / 3600, 9) - round(usd_per_hour * began_s / 3600, 9)) AS boot_usd
        FROM seconds
        GROUP BY pool, hour
        HAVING count(usd_per_hour) > 0
    )
    SELECT b.* FROM bills b LEFT JOIN cost_hours c USING (pool, hour)
    WHERE c.pool IS NULL OR (c.host_s, c.boot_s, c.unpriced_hosts, c.bill_usd, c.boot_usd)
          <> (b.host_s, b.boot_s, b.unpriced_hosts, b.bill_usd, b.boot_usd)
    ORDER BY hour, pool
    LIMIT :most
    """
).bindparams(sa.bindparam("settle", type_=sa.Interval), sa.bindparam("revise", type_=sa.Interval))

# A lease may end as of an earlier hour, after the hours since then were closed.
_UNBILLED = sa.text(
    """
    DELETE FROM cost_hours c
    WHERE c.hour >= (SELECT max(hour) FROM cost_hours) - :revise AND NOT EXISTS (
          SELECT FROM hosts h
          WHERE h.pool = c.pool AND h.usd_per_hour IS NOT NULL AND h.ordered_at < c.hour + interval '1 hour'
            AND coalesce(h.ended_at, 'infinity') > greatest(c.hour, h.ordered_at))
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
