"""What each machine cost in each hour of UTC, and the part of it that each of its pools pays.

A machine is what its workers' HEADRACE_HOST_ID names. Each of its pools has leases of it, and the machine has one bill:
from the first lease that begins to the last one that ends, at one price. An owned machine is billed by the calendar.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import groupby
from typing import Any, Self

import sqlalchemy as sa
from sqlalchemy import Connection, Row

from headrace.config import CostSettings, OwnedHostSettings, Settings
from headrace.domain.hosts import HostLease
from headrace.policies.host_bills import (
    PoolUse,
    PricedSpan,
    lease_spans,
    machines_of,
    owners,
    priced_spans,
    shares,
    split,
)
from headrace.policies.pricing import USD_DIGITS
from headrace.store.fleet.hosts import lease_of
from headrace.tables import host_hours, hosts

#: An hour is billed so long after its end: every transaction that writes an entry with a time of that hour is over.
SETTLE = timedelta(minutes=5)
#: An hour is billed again if a lease of it changes within this time: a host was found late, or its end was.
REVISE = timedelta(days=7)
#: The most hours that one call bills.
MOST_HOURS = 48
MICROSECOND = timedelta(microseconds=1)
_SECOND_DIGITS = Decimal("0.000001")


@dataclass(frozen=True, slots=True)
class OwnedHost:
    """A machine that is billed by the calendar.

    Attributes:
        usd_per_hour: its type's price.
        pools: those that pay hours without a worker.
    """

    host: OwnedHostSettings
    usd_per_hour: Decimal
    pools: Sequence[str]


@dataclass(frozen=True, slots=True)
class HostTerms:
    """What the settings say of the bills of hosts.

    Attributes:
        fixed: the fixed shares of pools, by the type of the machine.
    """

    costs: CostSettings = field(default_factory=CostSettings)
    owned: Sequence[OwnedHost] = ()
    fixed: Mapping[str, Mapping[str, Decimal]] = field(default_factory=dict)

    @classmethod
    def of(cls, settings: Settings) -> Self:
        types = {pool: settings.scaling.of_pool(pool).host_type for pool in settings.own_pools}
        owned = [
            OwnedHost(host, settings.hosts[host.type].usd_per_hour, sorted(owners(host, types)))
            for host in settings.owned_hosts
        ]
        return cls(settings.costs, owned, {name: each.shares for name, each in settings.hosts.items() if each.shares})


def bill_again(db: Connection, terms: HostTerms, since: datetime) -> None:
    """Bill all hours since then by their leases as they are now, also those that `REVISE` leaves as they were."""
    last = None
    while (billed := bill_hosts(db, terms, since=since)) is not None and (last is None or billed > last):
        last = billed


def bill_hosts(
    db: Connection, terms: HostTerms, until: datetime | None = None, since: datetime | None = None
) -> datetime | None:
    """Bill the hours that are over and have no bill, or another one by now; the oldest first, `MOST_HOURS` at a time.

    Args:
        until: bill up to this moment, also in an hour that is not over. By default up to the last hour that is over and
            has settled.
        since: look at all hours since then; by default at those of the time `REVISE`, and at what has no bill.
    Returns: the last hour in which a machine's bill was written or deleted; None: all bills are as they were.
    """
    end: datetime = until or db.execute(_SETTLED, {"settle": SETTLE}).scalar_one()
    owned = [row for each in terms.owned for row in _calendar(db, each, end, since)]
    values = {"owned": json.dumps(owned), "until": end, "since": since, "revise": REVISE, "most": MOST_HOURS}
    due = db.execute(_DUE, values).all()
    if not due:
        return None
    before = {"hours": [each.hour for each in due], "machines": [each.machine for each in due]}
    deleted = {(row.pool, row.hour) for row in db.execute(_DELETE, before)}
    shared = [each for each in due if each.pools and len(each.pools) > 1 and not _fixed(each, terms)]
    used = _used(db, shared, terms.costs)
    if rows := [row for each in due if each.pools for row in _rows(each, used[each.machine, each.hour], terms)]:
        db.execute(sa.insert(host_hours), rows)
    if deleted:
        # What is left of these hours has another bill now, or none.
        pairs = {"pools": [pool for pool, _ in deleted], "hours": [hour for _, hour in deleted]}
        db.execute(_CHANGED, pairs)
        db.execute(_UNBILLED, pairs)
    last: datetime = due[-1].hour
    return last


_Used = defaultdict[tuple[str, datetime], dict[str, Decimal]]


def _calendar(db: Connection, owned: OwnedHost, until: datetime, since: datetime | None) -> list[dict[str, Any]]:
    """The times of one price of an owned machine, and from when on its bill may have changed."""
    host, billed = owned.host, db.execute(_BILLED, {"machine": owned.host.name}).one()
    revised: datetime = host.since
    if billed.first is not None and billed.first <= host.since:
        revised = min(billed.last - REVISE, since or billed.last)
    return [
        {
            "machine": host.name,
            "instance_type": host.type,
            "began": span.began_at.isoformat(),
            "stopped": span.ended_at.isoformat(),
            "since": revised.isoformat(),
            "usd_per_hour": str(span.usd_per_hour),
            "pools": list(owned.pools),
        }
        for span in priced_spans(host, owned.usd_per_hour, until)
    ]


def _fixed(due: Row[Any], terms: HostTerms) -> Mapping[str, Decimal]:
    """The fixed shares of the pools on a machine; empty for none."""
    return {pool: each for pool, each in terms.fixed.get(due.instance_type, {}).items() if pool in due.pools}


def _rows(due: Row[Any], used: Mapping[str, Decimal], terms: HostTerms) -> list[dict[str, Any]]:
    """The bill of one machine for one hour, shared by its pools. Args: used: what each pool used of it."""
    leased = dict(zip(due.pools, due.leased_s, strict=True))
    uses = {pool: PoolUse(leased_s, used.get(pool, Decimal())) for pool, leased_s in leased.items()}
    parts = shares(uses, _fixed(due, terms))
    seconds = {name: split(getattr(due, name), parts, _SECOND_DIGITS) for name in ("host_s", "boot_s", "dead_s")}
    usd = {name: split(getattr(due, name), parts, USD_DIGITS) for name in ("bill_usd", "boot_usd", "dead_usd")}
    return [
        {
            **{name: getattr(due, name) for name in ("hour", "machine", "instance_type", "is_owned", "is_priced")},
            **{name: amounts[pool] for name, amounts in (seconds | usd).items()},
            **{"pool": pool, "leased_s": leased[pool], "share": parts[pool]},
        }
        for pool in sorted(parts)
    ]


def _used(db: Connection, shared: Sequence[Row[Any]], costs: CostSettings) -> _Used:
    """What each pool used of these machines, by machine and hour."""
    found: _Used = defaultdict(dict)
    for hour, group in groupby(shared, key=lambda each: each.hour):
        machines = {name: each.machine for each in group for name in each.names}
        for row in db.execute(_USED, {**costs.weights, "hour": hour, "names": list(machines)}):
            of_machine = found[machines[row.host_id], hour]
            of_machine[row.pool] = of_machine.get(row.pool, Decimal()) + row.used
    return found


def lease_bill(db: Connection, terms: HostTerms, until: datetime) -> tuple[Decimal, Decimal]:
    """The hours and the cost of all machines with a price up to a moment, by their leases and the calendar alone.

    Reads no hour that was billed, so that both can be compared.
    """
    calendars = {each.host.name: list(priced_spans(each.host, each.usd_per_hour, until)) for each in terms.owned}
    ordered = sa.select(hosts).where(hosts.c.ordered_at < until).order_by(hosts.c.ordered_at, hosts.c.id)
    spans = [span for each in calendars.values() for span in each]
    for machine in machines_of([lease_of(row._mapping) for row in db.execute(ordered)]):
        if not any(lease.names & calendars.keys() for lease in machine):
            spans += lease_spans(machine, until)
    seconds = [
        (Decimal((span.ended_at - span.began_at) / MICROSECOND) / 1_000_000, span.usd_per_hour) for span in spans
    ]
    return sum((s for s, _ in seconds), Decimal()) / 3600, sum((s * usd for s, usd in seconds), Decimal()) / 3600


def bills_so_far(db: Connection, terms: HostTerms, since: datetime, until: datetime) -> dict[str, Decimal]:
    """What each pool's hosts with a price cost in a time whose hours may have no bill yet.

    By the leases and the calendar, like `lease_bill`. A machine's pools share it by the fixed shares, or else by how
    long they had it: what they used of it counts once the hour is closed.
    """
    machines = _machines(db, since, until)
    bills: list[tuple[Iterable[PricedSpan], list[HostLease], str | None, Iterable[str]]] = []
    for each in terms.owned:
        stays = [lease for machine in machines for lease in _since(machine, since) if each.host.name in lease.names]
        pools = {lease.pool for lease in stays} or each.pools
        bills.append((priced_spans(each.host, each.usd_per_hour, until), stays, each.host.type, pools))
    names = {each.host.name for each in terms.owned}
    for machine in machines:
        if not any(lease.names & names for lease in machine):
            stays = _since(machine, since)
            pools = {lease.pool for lease in stays}
            bills.append((lease_spans(machine, until), stays, stays[0].instance_type, pools))
    found: defaultdict[str, Decimal] = defaultdict(Decimal)
    for spans, stays, of_type, payers in bills:
        usd = sum((_hours(span.began_at, span.ended_at, since) * span.usd_per_hour for span in spans), Decimal())
        uses = {pool: PoolUse(Decimal(), Decimal()) for pool in payers}
        for lease in stays:
            leased_s = _hours(lease.ordered_at or until, min(lease.ended_at or until, until), since) * 3600
            uses[lease.pool] = PoolUse(uses[lease.pool].leased_s + leased_s, Decimal())
        fixed = {pool: part for pool, part in terms.fixed.get(of_type or "", {}).items() if pool in uses}
        for pool, part in shares(uses, fixed).items() if usd else ():
            found[pool] += usd * part
    return dict(found)


def _machines(db: Connection, since: datetime, until: datetime) -> list[list[HostLease]]:
    """All leases of each machine that has one in this time: a life has the price with which it began."""
    lives = sa.or_(hosts.c.ended_at.is_(None), hosts.c.ended_at > since)
    present = sa.select(hosts.c.id, hosts.c.provider_id).where(hosts.c.ordered_at < until, lives).cte("present").c
    names = sa.union(sa.select(present.id), sa.select(present.provider_id))
    is_theirs = sa.or_(hosts.c.id.in_(names), hosts.c.provider_id.in_(names))
    leases = sa.select(hosts).where(hosts.c.ordered_at < until, is_theirs).order_by(hosts.c.ordered_at, hosts.c.id)
    return machines_of([lease_of(row._mapping) for row in db.execute(leases)])


def _since(machine: Sequence[HostLease], since: datetime) -> list[HostLease]:
    """The leases that end after a moment."""
    return [lease for lease in machine if lease.ended_at is None or lease.ended_at > since]


def _hours(began: datetime, ended: datetime, since: datetime) -> Decimal:
    """The part after `since`, in hours."""
    return Decimal(max(ended - max(began, since), timedelta()) / MICROSECOND) / 3_600_000_000


_SETTLED = sa.text("SELECT date_trunc('hour', now() - :settle, 'UTC')").bindparams(
    sa.bindparam("settle", type_=sa.Interval)
)
_DELETE = sa.text(
    "DELETE FROM host_hours WHERE (hour, machine) IN ("
    "SELECT * FROM unnest(CAST(:hours AS timestamptz[]), CAST(:machines AS text[]))) RETURNING pool, hour"
)
_PAIRS = "(SELECT * FROM unnest(CAST(:pools AS text[]), CAST(:hours AS timestamptz[])))"
_CHANGED = sa.text(f"UPDATE host_hours SET billed_at = now() WHERE (pool, hour) IN {_PAIRS}")
_UNBILLED = sa.text(
    f"DELETE FROM cost_hours c WHERE (c.pool, c.hour) IN {_PAIRS} AND NOT EXISTS ("
    "SELECT FROM host_hours h WHERE h.pool = c.pool AND h.hour = c.hour AND h.is_priced)"
)
_BILLED = sa.text("SELECT min(hour) AS first, max(hour) AS last FROM host_hours WHERE machine = :machine AND is_owned")

# A lease's machine: its name in [[owned_hosts]]; or else the name that it shares with most other leases, as those of
# two pools, or of one pool before and after a restart, do; or else the provider's name. A life is a time in which one
# lease follows another without a gap: it has one price, that of its first lease with one, where ordered leases come
# before adopted ones. The bill of an hour is the difference of two rounded sums since the life began, so that the
# hours' bills add up to the life's to the last digit.
_DUE = sa.text(
    """
    WITH owned AS MATERIALIZED (
        SELECT * FROM jsonb_to_recordset(CAST(:owned AS jsonb)) AS o (
            machine text, instance_type text, began timestamptz, stopped timestamptz, since timestamptz,
            usd_per_hour numeric, pools text[])
    ), calendars AS MATERIALIZED (
        SELECT machine, min(since) AS since, min(pools) AS pools FROM owned GROUP BY machine
    ), span AS MATERIALIZED (
        SELECT coalesce(least((SELECT max(hour) FROM host_hours) - :revise,
                              CAST(:since AS timestamptz)), '-infinity') AS since,
               CAST(:until AS timestamptz) AS until
    ), unbilled AS MATERIALIZED (
        SELECT pool FROM (SELECT DISTINCT pool FROM hosts) p
        WHERE NOT EXISTS (SELECT FROM host_hours b WHERE b.pool = p.pool)
    ), leases AS MATERIALIZED (
        SELECT h.id, h.provider_id, h.pool, h.instance_type, h.usd_per_hour, h.is_adopted, h.ready_at, h.ordered_at,
               least(coalesce(h.ended_at, 'infinity'), s.until) AS stopped, c.machine AS owned_as,
               least(CASE WHEN u.pool IS NULL THEN s.since ELSE '-infinity' END, c.since) AS since
        FROM hosts h
        CROSS JOIN span s
        LEFT JOIN unbilled u ON u.pool = h.pool
        LEFT JOIN calendars c ON c.machine IN (h.id, h.provider_id)
        WHERE h.ordered_at < s.until AND coalesce(h.ended_at, 'infinity') > greatest(
            h.ordered_at, least(CASE WHEN u.pool IS NULL THEN s.since ELSE '-infinity' END, c.since))
    ), shared AS MATERIALIZED (
        SELECT name, count(*) AS leases
        FROM (SELECT id AS name FROM leases UNION ALL
              SELECT provider_id FROM leases WHERE provider_id IS NOT NULL AND provider_id <> id) names
        GROUP BY name
        HAVING count(*) > 1
    ), named AS MATERIALIZED (
        SELECT l.*, coalesce(
                   owned_as,
                   (SELECT name FROM shared WHERE name IN (l.id, l.provider_id) ORDER BY leases DESC, name LIMIT 1),
                   provider_id, id) AS machine
        FROM leases l
    ), begun AS (
        SELECT *, coalesce(ordered_at > max(stopped) OVER (
                   PARTITION BY machine ORDER BY ordered_at, id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING),
                   true) AS begins
        FROM named
    ), numbered AS MATERIALIZED (
        SELECT *, count(*) FILTER (WHERE begins) OVER (PARTITION BY machine ORDER BY ordered_at, id) AS life
        FROM begun
    ), lives AS MATERIALIZED (
        SELECT machine, life, min(ordered_at) AS began, max(stopped) AS stopped, min(ready_at) AS ready_at,
               min(since) AS since, bool_or(owned_as IS NOT NULL) AS is_owned,
               (array_agg(usd_per_hour ORDER BY usd_per_hour IS NULL, is_adopted, ordered_at, id))[1] AS usd_per_hour,
               (array_agg(instance_type ORDER BY usd_per_hour IS NULL, is_adopted, ordered_at, id))[1] AS instance_type
        FROM numbered
        GROUP BY machine, life
    ), billed AS (
        SELECT machine, instance_type, began, stopped, coalesce(ready_at, 'infinity') AS ready_at, since, usd_per_hour,
               false AS is_owned
        FROM lives WHERE NOT is_owned
        UNION ALL
        SELECT machine, instance_type, began, stopped, began, since, usd_per_hour, true FROM owned
    ), parts AS (
        SELECT b.*, s.hour, greatest(s.hour, b.began) AS from_at, least(s.hour + interval '1 hour', b.stopped) AS to_at
        FROM billed b, generate_series(date_trunc('hour', greatest(b.began, b.since), 'UTC'),
                                       b.stopped - interval '1 microsecond', interval '1 hour') s (hour)
    ), timed AS (
        SELECT *, extract(epoch FROM from_at - began) AS from_s, extract(epoch FROM to_at - began) AS to_s,
               extract(epoch FROM greatest(from_at, least(to_at, ready_at)) - began) AS up_s,
               CASE WHEN is_owned THEN (
                   SELECT coalesce(sum(extract(epoch FROM least(l.stopped, p.to_at) - greatest(l.began, p.from_at))), 0)
                   FROM lives l WHERE l.machine = p.machine AND l.began < p.to_at AND l.stopped > p.from_at
               ) END AS leased_s
        FROM parts p
    ), bills AS (
        SELECT machine, hour, (array_agg(instance_type ORDER BY from_at DESC))[1] AS instance_type,
               bool_or(is_owned) AS is_owned, bool_or(usd_per_hour IS NOT NULL) AS is_priced,
               coalesce(sum(to_s - from_s) FILTER (WHERE usd_per_hour IS NOT NULL), 0) AS host_s,
               coalesce(sum(up_s - from_s) FILTER (WHERE usd_per_hour IS NOT NULL), 0) AS boot_s,
               coalesce(sum(to_s - from_s - leased_s), 0) AS dead_s,
               coalesce(sum(round(usd_per_hour * to_s / 3600, 9) - round(usd_per_hour * from_s / 3600, 9)), 0)
                   AS bill_usd,
               coalesce(sum(round(usd_per_hour * up_s / 3600, 9) - round(usd_per_hour * from_s / 3600, 9)), 0)
                   AS boot_usd,
               coalesce(sum(trunc((round(usd_per_hour * to_s / 3600, 9) - round(usd_per_hour * from_s / 3600, 9))
                                  * (to_s - from_s - leased_s) / (to_s - from_s), 9)), 0) AS dead_usd
        FROM timed
        GROUP BY machine, hour
    ), stays AS (
        SELECT n.machine, n.pool, s.hour,
               sum(extract(epoch FROM least(s.hour + interval '1 hour', n.stopped) - greatest(s.hour, n.ordered_at)))
                   AS leased_s
        FROM numbered n JOIN lives l USING (machine, life),
             generate_series(date_trunc('hour', greatest(n.ordered_at, l.since), 'UTC'),
                             n.stopped - interval '1 microsecond', interval '1 hour') s (hour)
        GROUP BY n.machine, n.pool, s.hour
    ), pools AS (
        SELECT machine, hour, array_agg(pool ORDER BY pool) AS pools, array_agg(leased_s ORDER BY pool) AS leased_s
        FROM stays
        GROUP BY machine, hour
    ), found AS MATERIALIZED (
        SELECT b.*, coalesce(p.pools, c.pools) AS pools,
               coalesce(p.leased_s, array_fill(CAST(0 AS numeric), ARRAY[cardinality(c.pools)])) AS leased_s
        FROM bills b
        LEFT JOIN pools p USING (machine, hour)
        LEFT JOIN calendars c USING (machine)
    ), present AS (
        SELECT h.machine, h.hour, min(h.instance_type) AS instance_type, bool_or(h.is_owned) AS is_owned,
               bool_or(h.is_priced) AS is_priced, sum(h.host_s) AS host_s, sum(h.boot_s) AS boot_s,
               sum(h.dead_s) AS dead_s, sum(h.bill_usd) AS bill_usd, sum(h.boot_usd) AS boot_usd,
               sum(h.dead_usd) AS dead_usd, array_agg(h.pool ORDER BY h.pool) AS pools,
               array_agg(h.leased_s ORDER BY h.pool) AS leased_s
        FROM host_hours h
        JOIN (SELECT machine, hour FROM found UNION
              SELECT machine, hour FROM host_hours, span WHERE hour >= since AND hour < until) k USING (machine, hour)
        GROUP BY h.machine, h.hour
    ), due AS (
        SELECT machine, hour, f.instance_type, f.is_owned, f.is_priced, f.host_s, f.boot_s, f.dead_s, f.bill_usd,
               f.boot_usd, f.dead_usd, f.pools, f.leased_s, dense_rank() OVER (ORDER BY hour) AS nth
        FROM found f FULL JOIN present p USING (machine, hour)
        WHERE (f.is_owned, f.is_priced, f.host_s, f.boot_s, f.dead_s, f.bill_usd, f.boot_usd, f.dead_usd, f.pools,
               f.leased_s)
              IS DISTINCT FROM (p.is_owned, p.is_priced, p.host_s, p.boot_s, p.dead_s, p.bill_usd, p.boot_usd,
                                p.dead_usd, p.pools, p.leased_s)
    )
    SELECT d.*, CASE WHEN cardinality(pools) > 1 THEN (
               SELECT array_agg(DISTINCT name) FROM named n, unnest(ARRAY[n.id, n.provider_id]) name
               WHERE n.machine = d.machine AND name IS NOT NULL
           ) END AS names
    FROM due d
    WHERE nth <= :most
    ORDER BY hour, machine
    """
).bindparams(sa.bindparam("revise", type_=sa.Interval))

# The mean weight of a request's tokens is its work for each of them; by the KV cache, the tokens that it held.
_USED = sa.text(
    """
    SELECT l.pool, l.host_id, coalesce(sum(CASE CAST(:weigh_by AS text)
               WHEN 'kv' THEN coalesce(l.kv_token_s, l.engine_s * l.prompt_tokens)::numeric
               ELSE l.engine_s::numeric
                    * request_work(l.prompt_tokens, l.cached_tokens, l.output_tokens, l.kv_token_s, 'tokens',
                                   CAST(:cached_weight AS numeric), CAST(:output_weight AS numeric))
                    / nullif(l.prompt_tokens + l.output_tokens, 0)
               END), 0) AS used
    FROM ledger l
    WHERE l.at >= :hour AND l.at < CAST(:hour AS timestamptz) + interval '1 hour'
      AND l.host_id = ANY (:names) AND l.engine_s > 0
      AND (l.kind = 'compute' OR (l.kind = 'waste' AND EXISTS (
          SELECT FROM attempts a WHERE a.job_id = l.job_id AND a.number = l.attempt AND a.engine <> 'openai')))
    GROUP BY l.pool, l.host_id
    """
)
