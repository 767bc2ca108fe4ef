"""What was charged: the costs of a month, of days for charts, and of one app by day, model, lane and end user."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from itertools import groupby
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection, Row

from headrace.domain.apps import USAGE_GROUPS, AppUsage, UsageGroup, UsageSplit
from headrace.store import clock
from headrace.store.fleet.observations import oldest_entry
from headrace.store.jobs import BILLED
from headrace.store.money.host_hours import HostTerms, bills_so_far
from headrace.tables import jobs, ledger


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
        idle_usd: the part for time in which the hosts could have done more, boot included.
        dead_usd: the part for owned machines without a worker.
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
    idle_usd: Decimal
    dead_usd: Decimal
    requests_usd: Decimal
    platform_usd: Decimal
    unpriced_host_hours: int

    @property
    def difference_usd(self) -> Decimal:
        """What the shares exceed the bill by: entries of closed hours came or went since."""
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
class OpenHours:
    """A pool's hosts with a price and its requests on them, in the hours since the last closed one: provisional.

    Attributes:
        hosts_usd: what the hosts cost so far.
        usd: the requests' prices.
        api_usd: what the paid API would have charged.
    """

    pool: str
    since: datetime
    hosts_usd: Decimal
    requests: int
    usd: Decimal
    api_usd: Decimal

    @property
    def saved_usd(self) -> Decimal:
        """What the paid API would have charged beyond what the hosts cost so far."""
        return self.api_usd - self.hosts_usd


@dataclass(frozen=True, slots=True)
class Month:
    """What a month cost.

    Attributes:
        pools: those with hosts in closed hours, by name.
        apps: the charges by app and kind, the most expensive first.
        savings: by pool, of closed hours, and of requests on hosts without a price.
        open_hours: by pool; what the savings do not have yet.
    """

    pools: Sequence[PoolMonth]
    apps: Sequence[AppMonth]
    savings: Sequence[Saving]
    open_hours: Sequence[OpenHours]


def month(db: Connection, since: datetime, until: datetime, terms: HostTerms | None = None) -> Month:
    """What the entries and the hours of this time cost.

    Args:
        since, until: the month's start and end.
        terms: what the settings say of the bills of hosts.
    """
    time = {"since": since, "until": until}
    sums = db.execute(_SUMS, time | {"closed": _closed_until(db, since, until)}).all()
    compute = [each for each in sums if each.kind == "compute"]
    hours = db.execute(_HOURS, time).all()
    closed = _usd_by_pool((each.pool, each.full_usd) for each in compute if each.is_closed)
    pools = [PoolMonth(**each._mapping, requests_usd=closed[each.pool]) for each in hours]
    open_since = max(since, db.scalar(_LAST_CLOSED) or since)
    so_far = bills_so_far(db, terms or HostTerms(), open_since, min(until, clock.now(db)))
    open_hours = [_open_hours(pool, open_since, usd, compute) for pool, usd in sorted(so_far.items())]
    settled = [each for each in compute if each.is_closed or each.pool not in so_far]
    savings = _savings(settled, {each.pool: each.platform_usd for each in pools})
    return Month(pools, _apps(sums), savings, open_hours)


def _open_hours(pool: str, since: datetime, usd: Decimal, compute: Sequence[Row[Any]]) -> OpenHours:
    found = [each for each in compute if each.pool == pool and not each.is_closed]
    amounts = (
        sum((each.usd for each in found), Decimal()),
        sum((each.api_usd or Decimal() for each in found), Decimal()),
    )
    return OpenHours(pool, since, usd, sum(each.requests for each in found), *amounts)


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


_LAST_CLOSED = sa.text("SELECT max(hour) + interval '1 hour' FROM cost_hours")
_HOURS = sa.text(
    """
    SELECT pool,
           count(*) AS hours,
           sum(host_hours) AS host_hours,
           sum(bill_usd) AS bill_usd,
           sum(used_usd) AS used_usd,
           sum(waste_usd) AS waste_usd,
           sum(boot_usd) AS boot_usd,
           sum(idle_usd) AS idle_usd,
           sum(dead_usd) AS dead_usd,
           sum(platform_usd) AS platform_usd,
           sum(unpriced_hosts) AS unpriced_host_hours
    FROM gpu_hours
    WHERE hour >= :since AND hour < :until
    GROUP BY pool
    ORDER BY pool
    """
)


def _closed_until(db: Connection, since: datetime, until: datetime) -> datetime:
    """Up to when the sums of closed days are those of the ledger; `since` if they miss an entry or a closed hour."""
    found = db.execute(_CLOSED, {"since": since, "until": until}).one()
    if not found.is_current:
        return since
    count = sa.select(sa.func.count()).where(ledger.c.at >= since, ledger.c.at < found.until)
    # Entries leave with their months; those that are there never change.
    return found.until if (db.scalar(count) or 0) <= found.entries else since


_CLOSED = sa.text(
    """
    WITH hours AS (
        SELECT date_trunc('day', hour, 'UTC') AS day, count(*) AS hours, max(closed_at) AS closed_at
        FROM cost_hours
        WHERE hour >= :since AND hour < :until
        GROUP BY 1
    )
    SELECT max(day) + interval '24 hours' AS until,
           (SELECT coalesce(sum(requests), 0) FROM charge_days WHERE day >= :since AND day < :until) AS entries,
           bool_and((c.hours, coalesce(c.hours_closed_at, '-infinity'))
                    = (coalesce(h.hours, 0), coalesce(h.closed_at, '-infinity'))) AS is_current
    FROM closed_days c
    LEFT JOIN hours h USING (day)
    WHERE day >= :since AND day < :until
    """
)
_CHARGES = """
    SELECT * FROM charge_days WHERE day >= :since AND day < :closed
    UNION ALL
    SELECT * FROM charges_by_day(:closed, :until)
"""
_SUMS = sa.text(
    f"""
    SELECT a.name AS app, s.*
    FROM (
        SELECT app_id,
               pool,
               kind,
               is_closed,
               sum(requests)::bigint AS requests,
               sum(prompt_tokens)::bigint AS prompt_tokens,
               sum(output_tokens)::bigint AS output_tokens,
               sum(usd) AS usd,
               sum(full_usd) AS full_usd,
               sum(api_usd) AS api_usd
        FROM ({_CHARGES}) charges
        GROUP BY 1, 2, 3, 4
    ) s
    LEFT JOIN apps a ON a.id = s.app_id
    """
)


@dataclass(frozen=True, slots=True)
class Charged:
    """What an app's attempts cost in a time, by the kind of charge. `app` is its name."""

    app: str
    kind: str
    usd: Decimal


def charged(db: Connection, since: datetime, until: datetime) -> list[Charged]:
    """What was booked after `since`, up to `until`, without corrections."""
    given = {"after": oldest_entry(db, since), "since": since, "until": until}
    return [Charged(**row._mapping) for row in db.execute(_CHARGED_LATELY, given)]


_CHARGED_LATELY = sa.text(
    """
    SELECT a.name AS app, l.kind, sum(l.usd) AS usd
    FROM ledger l JOIN apps a ON a.id = l.app_id
    WHERE l.id > :after AND l.at > :since AND l.at <= :until AND l.kind IN ('compute', 'api', 'waste')
    GROUP BY a.name, l.kind
    ORDER BY usd DESC
    """
)


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

    @property
    def is_never_reached(self) -> bool:
        """Whether a saturated host serves fewer requests than the break-even."""
        break_even, most = self.break_even_requests_per_host_hour, self.most_requests_per_host_hour
        return break_even is not None and most is not None and break_even > most


def routes_per_day(db: Connection, since: datetime, until: datetime) -> list[RouteDay]:
    """The charges of each day and route, the oldest first."""
    return [RouteDay(**row._mapping) for row in db.execute(_ROUTES, {"since": since, "until": until})]


def split_points(db: Connection, since: datetime, until: datetime) -> list[SplitPoint]:
    """The split point of each pool in a month, by pool. Args: since, until: the month's start and end."""
    time = {"since": since, "until": until, "closed": _closed_until(db, since, until)}
    return [SplitPoint(**row._mapping) for row in db.execute(_SPLITS, time)]


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
    f"""
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
        SELECT pool, sum(requests)::bigint AS requests, sum(api_usd) AS api_usd,
               sum(prompt_tokens + output_tokens)::numeric AS tokens
        FROM ({_CHARGES}) charges
        WHERE kind = 'compute' AND is_closed
        GROUP BY pool
    ) own USING (pool)
    LEFT JOIN LATERAL (
        SELECT tokens_per_s::numeric FROM own_prices p WHERE p.pool = bills.pool ORDER BY id DESC LIMIT 1
    ) rate ON true
    WHERE host_hours > 0
    ORDER BY pool
    """
)


#: A correction changes the amount and is no request. Wasted attempts are left out: the app does not pay for them.
_CHARGED = (*BILLED, "adjustment")


@dataclass(frozen=True, slots=True)
class Period:
    """From `since` until before `until`."""

    since: datetime
    until: datetime


def usage(db: Connection, app_id: UUID, period: Period, by: UsageSplit, limit: int) -> list[AppUsage]:
    """The app's charges of this period, at most `limit` rows."""
    return [_usage(by.keys, row) for row in db.execute(_select(app_id, period, by).limit(limit))]


def _usage(keys: Sequence[str], row: Row[Any]) -> AppUsage:
    values = dict(row._mapping)
    return AppUsage(metadata={key: values.pop(f"key_{place}") for place, key in enumerate(keys)}, **values)


def _select(app_id: UUID, period: Period, split_by: UsageSplit) -> sa.Select[Any]:
    groups = split_by.groups
    # Literals: Postgres does not see that two parameters of a column and its GROUP BY are the same.
    day = sa.cast(sa.func.timezone(sa.literal_column("'UTC'"), ledger.c.at), sa.Date)
    split: Mapping[UsageGroup, Any] = {
        "day": day,
        "model": ledger.c.model,
        "lane": jobs.c.lane,
        "end_user": ledger.c.end_user,
    }
    labels = [
        sa.func.left(jobs.c.metadata.op("->>")(sa.literal(key, literal_execute=True)), sa.literal_column("64"))
        for key in split_by.keys
    ]
    by = [*(split[group] for group in USAGE_GROUPS if group in groups), *labels]
    sums = (ledger.c.prompt_tokens, ledger.c.cached_tokens, ledger.c.output_tokens, ledger.c.usd)
    source = ledger.outerjoin(jobs, jobs.c.id == ledger.c.job_id) if labels or "lane" in groups else ledger
    return (
        sa.select(
            *((split[group] if group in groups else sa.null()).label(group) for group in USAGE_GROUPS),
            *(label.label(f"key_{place}") for place, label in enumerate(labels)),
            sa.func.count().filter(ledger.c.kind.in_(BILLED)).label("requests"),
            *(sa.func.sum(column).label(column.name) for column in sums),
        )
        .select_from(source)
        .where(
            *(ledger.c.app_id == app_id, ledger.c.at >= period.since, ledger.c.at < period.until),
            ledger.c.kind.in_(_CHARGED),
        )
        .group_by(*by)
        .order_by(*by)
    )
