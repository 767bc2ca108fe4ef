"""The ledger at a million jobs: how long analysts, operators and apps wait, and whether it adds up to the hosts' bill.

The claims: each view's figures of a month take under 2 s, each page at /ops and `GET /v1/usage` under 1 s, one request
by its id under 10 ms, and what the requests and the platform pay is the bill of the hosts to the last digit. Knows the
system from outside: SQL and HTTP.
"""

import json
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import click
import sqlalchemy as sa
from rich.table import Table

from bed.load import drive, request
from bed.pages import Pages
from bed.past import PAST_DAYS, make_past, vacuum
from bed.testbed import BARE, Testbed, bearer, console, line_of
from headrace.config import CostSettings
from headrace.domain.ids import show_id
from headrace.store.money import cost_hours

VIEW_GOAL_S, PAGE_GOAL_S, ID_GOAL_MS = 2.0, 1.0, 10.0
APPS, HOSTS, USD_PER_HOUR = 50, 3, Decimal("4.10")
#: An app with an even part of the jobs.
APP = "app-2"
TRIES, IDS = 3, 50
MONTH = f"now() - interval '{PAST_DAYS + 1} days'"

#: What an analyst asks of each view for a month.
QUESTIONS = {
    "budget_run_rate": "SELECT * FROM budget_run_rate",
    "charges": f"SELECT app, kind, sum(full_usd) FROM charges WHERE at >= {MONTH} GROUP BY 1, 2",
    "cost_elasticity": "SELECT * FROM cost_elasticity",
    "cost_per_day": f"SELECT * FROM cost_per_day WHERE day >= {MONTH}",
    "cost_per_request": f"SELECT app, sum(full_usd) FROM cost_per_request WHERE ended_at >= {MONTH} GROUP BY 1",
    "cost_per_user_day": f"SELECT * FROM cost_per_user_day WHERE day >= {MONTH}",
    "cost_per_user_month": "SELECT * FROM cost_per_user_month",
    "cost_reconciliation": f"SELECT sum(difference_usd) FROM cost_reconciliation WHERE hour >= {MONTH}",
    "gpu_hours": f"SELECT * FROM gpu_hours WHERE hour >= {MONTH}",
    "savings_per_day": f"SELECT * FROM savings_per_day WHERE day >= {MONTH}",
    "split_options": "SELECT * FROM split_options",
    "split_point": "SELECT * FROM split_point",
    "waits_per_hour": f"SELECT * FROM waits_per_hour WHERE hour >= {MONTH}",
}
ONE = "SELECT * FROM cost_per_request WHERE job_id = :id"
#: Every page and picture at /ops, and the filters of long lists: some that all jobs meet, and some that none does.
PAGES = (
    *("/", "/jobs?queue=chat.high", "/jobs?metadata=order%3D17"),
    *("/jobs", "/jobs?state=succeeded", "/jobs?state=failed", "/jobs?state=dead", "/jobs?lane=high", "/jobs/{job}"),
    *(f"/jobs?app={APP}", f"/jobs?app={APP}&state=queued", "/jobs?end_user=user-7", "/jobs?model=none"),
    *("/jobs/{job}/texts", "/queues", "/hosts", "/deliveries", f"/deliveries?app={APP}", "/deliveries?state=failed"),
    *("/apps", f"/app?name={APP}", "/budgets", "/caches?hours=168", "/cost?month={month}", "/cost?month={first}"),
    *(f"/charts/{name}.svg?pool=chat&hours={hours}" for name in ("depth", "kv", "waits") for hours in (6, 24, 168)),
    *(
        f"/charts/{name}.svg?pool=chat&month={{{month}}}"
        for name in ("routes", "split")
        for month in ("month", "first")
    ),
)
#: What an app asks of its usage, for all days of the past.
USAGES = ("day", "day,model,lane", "end_user")
_LEASES = f"""
    INSERT INTO hosts (id, pool, usd_per_hour, requested_at, ordered_at, ready_at)
    SELECT 'host-' || no, 'chat', {USD_PER_HOUR}, began, began, began + interval '5 minutes'
    FROM generate_series(1, {HOSTS}) AS no, (SELECT now() - interval '{PAST_DAYS} days' AS began) AS past
"""
#: Of a saturated host: 500 jobs of 350 tokens an hour.
_PRICE = f"""
    INSERT INTO own_prices (pool, instance_type, usd_per_hour, tokens_per_s, work_per_token, input_usd_per_mtok,
                            cached_input_usd_per_mtok, output_usd_per_mtok)
    VALUES ('chat', 'a100', {USD_PER_HOUR}, 48.6, 1.9, 1, 0.1, 4)
"""
#: A job from the middle of the past, this month and the past's first one, and the first day whose usage is asked for.
_NAMES = f"""
    SELECT (SELECT id FROM jobs ORDER BY id OFFSET (SELECT count(*) / 2 FROM jobs) LIMIT 1),
           to_char(day, 'YYYY-MM'), to_char(day - {PAST_DAYS}, 'YYYY-MM'), (day - {PAST_DAYS + 1})::text
    FROM (SELECT (now() AT TIME ZONE 'UTC')::date AS day) AS today
"""
_BILLED = """
    SELECT sum(bill_usd), sum(platform_usd),
           (SELECT sum(full_usd) FROM charges WHERE kind = 'compute' AND is_closed) FROM cost_hours
"""


@dataclass(frozen=True, slots=True)
class Found:
    """What was measured.

    Attributes:
        views_s: the best of `TRIES`, by view.
        by_id_ms: the median of one request of `cost_per_request`.
        pages_s: the best of `TRIES`, by page.
        close_s: for all hours of the month together.
        hours: closed ones.
        days_s: for all days of the month together.
        days: closed ones.
        bill_usd: of the hosts.
        shared_usd: what the requests and the platform pay.
    """

    views_s: dict[str, float]
    by_id_ms: float
    pages_s: dict[str, float]
    close_s: float
    hours: int
    days_s: float
    days: int
    bill_usd: Decimal
    shared_usd: Decimal

    @property
    def reconciliation_share(self) -> Decimal:
        """How far the shares are from the bill, as a part of it."""
        return abs(self.shared_usd - self.bill_usd) / self.bill_usd


def close_all(engine: sa.Engine) -> int:
    """Close every hour that is over, as the sweep does; returns how many."""
    closed = 0
    while True:
        with engine.begin() as db:
            bills = cost_hours.open_bills(db)
        if not bills:
            return closed
        for bill in bills:
            with engine.begin() as db:
                cost_hours.close_hour(db, bill, CostSettings())
        closed += len(bills)
        console.print(f"closed {closed} hours", end="\r")


def close_days(engine: sa.Engine) -> int:
    """Close every day that is over, as the sweep does; returns how many."""
    closed = 0
    while True:
        with engine.begin() as db:
            days = cost_hours.open_days(db)
        if not days:
            return closed
        for day in days:
            with engine.begin() as db:
                cost_hours.close_day(db, day)
        closed += len(days)


def ask(engine: sa.Engine, query: str, **values: object) -> tuple[float, list[sa.Row[tuple[object, ...]]]]:
    """The seconds that a query takes, and its rows."""
    with engine.begin() as db:
        began = time.perf_counter()
        rows = list(db.execute(sa.text(query), values))
        return time.perf_counter() - began, rows


def measure(jobs: int, apps: int, without_index: bool, explains: bool) -> Found:
    """Make the month, close its hours and days, and ask as an analyst, an operator and an app do."""
    with Testbed({}, BARE) as bed:
        console.rule(f"{jobs:,} finished jobs of {apps} apps in {PAST_DAYS} days, on {HOSTS} hosts")
        make_past(bed, jobs, apps, first=20)
        bed.sql(_LEASES)
        bed.sql(_PRICE)
        if without_index:
            bed.sql("DROP INDEX ix_ledger_at")
        vacuum(bed)
        engine = sa.create_engine(bed.stack.report.database_url)
        began = time.perf_counter()
        hours = close_all(engine)
        hours_at = time.perf_counter()
        days = close_days(engine)
        days_at = time.perf_counter()
        vacuum(bed)
        views_s, by_id_ms = look(bed, explains)
        pages_s = browse(bed)
        [(bill, platform, requests)] = bed.sql(_BILLED)
        engine.dispose()
    return Found(
        views_s, by_id_ms, pages_s, hours_at - began, hours, days_at - hours_at, days, bill, platform + requests
    )


def look(bed: Testbed, explains: bool) -> tuple[dict[str, float], float]:
    """The seconds of each view's question, and the milliseconds of one request, for the role of analysts."""
    assert bed.stack.report.analyst_url is not None
    analyst = sa.create_engine(sa.make_url(bed.stack.report.analyst_url).set(drivername="postgresql+psycopg"))
    ids = [row[0] for row in bed.sql("SELECT id FROM jobs TABLESAMPLE SYSTEM (1) LIMIT %s", IDS)]
    views_s = {}
    for view, query in QUESTIONS.items():
        views_s[view] = min(ask(analyst, query)[0] for _ in range(TRIES))
        console.print(f"{view}: {views_s[view]:.2f} s")
    by_id_ms = statistics.median(ask(analyst, ONE, id=job_id)[0] for job_id in ids) * 1000
    for query, values in [(query, {}) for query in QUESTIONS.values()] + [(ONE, {"id": ids[0]})]:
        if explains:
            console.print(f"\n{query}", markup=False)
            _, plan = ask(analyst, f"EXPLAIN (ANALYZE, BUFFERS, COSTS OFF) {query}", **values)
            console.print("\n".join(str(row[0]) for row in plan), markup=False)
    analyst.dispose()
    return views_s, by_id_ms


def browse(bed: Testbed) -> dict[str, float]:
    """The seconds of each page, and of an app's usage."""
    [url] = bed.start_web(1)
    pages, key = Pages(bed, bed.start_ops()), bearer(bed.make_key(APP))
    [(job_id, month, first, since)] = bed.sql(_NAMES)
    names = {"job": show_id(job_id), "month": month, "first": first}
    found = {}
    for page in PAGES:
        path = page.format(**names)
        found[f"/ops{path}"] = min(pages.seconds(path) for _ in range(TRIES))
    for groups in USAGES:
        path = f"/v1/usage?from={since}&group_by={groups}"
        answers = drive([url], iter([request("GET", path, key)] * TRIES), 1).answers
        if wrong := [answer.status for answer in answers if answer.status != 200]:
            raise click.ClickException(f"{path} answers {wrong}.")
        found[path] = min(answer.latency_s for answer in answers)
    return found


def show(found: Found) -> None:
    """The views and the pages, the slowest first."""
    for title, measured in (("A month of each view", found.views_s), ("Each page", found.pages_s)):
        table = Table("", header_style="bold", title=title)
        table.add_column("s", justify="right")
        for name, seconds in sorted(measured.items(), key=lambda each: -each[1]):
            table.add_row(name, f"{seconds:.2f}")
        console.print(table)
    a_closing = timedelta(seconds=found.close_s) / max(1, found.hours)
    console.print(
        f"{found.hours} hours closed in {found.close_s:.1f} s, {a_closing.total_seconds() * 1000:.0f} ms each"
    )
    a_day_ms = found.days_s / max(1, found.days) * 1000
    console.print(f"{found.days} days closed in {found.days_s:.1f} s, {a_day_ms:.0f} ms each")
    console.print(f"bill {found.bill_usd:,.9f} USD, shared {found.shared_usd:,.9f} USD")


@click.command()
@click.option(
    "--jobs", type=click.IntRange(min=1000), default=1_000_000, show_default=True, help="Finished, in a month."
)
@click.option("--apps", type=click.IntRange(min=2), default=APPS, show_default=True, help="That these jobs are of.")
@click.option("--off", type=click.Choice(["index"]), help="Drop the index of the ledger by time first.")
@click.option("--explain", "explains", is_flag=True, help="Print EXPLAIN (ANALYZE, BUFFERS) of each question.")
@click.option(
    "--json", "file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write every figure."
)
def main(jobs: int, apps: int, off: str | None, explains: bool, file: Path | None) -> None:
    """Ask a ledger with a million jobs what an analyst, an operator and an app ask.

    Starts Postgres in a temporary folder and makes a month of finished jobs by SQL, served by three hosts at 4.10
    USD an hour. Closes each hour and each day as the sweeps do. Then asks every view for the whole month, and one
    request by its id, with the role that `headrace analyst` makes. Starts the API, logs in at /ops, and asks for every
    page and picture there, and for the usage of an app.

    The last line is name=value pairs: slowest_view_s, the best of three tries of the slowest view; by_id_ms, the
    median of 50 requests; slowest_page_s, the best of three tries of the slowest page or usage;
    reconciliation_share, how far the shares of requests and platform are from the hosts' bill, as a part of it;
    close_ms and close_day_ms, the time to close one hour and one day. The status is 1 when a view takes over 2 s, a
    page over 1 s, an id over 10 ms, or the shares are not the bill.

    \b
    bin/headrace python benchmarks/ledger.py
    bin/headrace python benchmarks/ledger.py --off index
    bin/headrace python benchmarks/ledger.py --apps 2
    """
    found = measure(jobs, apps, off is not None, explains)
    show(found)
    figures = {
        "slowest_view_s": max(found.views_s.values()),
        "by_id_ms": found.by_id_ms,
        "slowest_page_s": max(found.pages_s.values()),
        "reconciliation_share": float(found.reconciliation_share),
        "close_ms": found.close_s / max(1, found.hours) * 1000,
        "close_day_ms": found.days_s / max(1, found.days) * 1000,
    }
    if file is not None:
        file.write_text(json.dumps({"jobs": jobs, "off": off, **asdict(found)}, indent=2, default=str) + "\n")
    print(line_of(figures))
    is_met = figures["slowest_view_s"] <= VIEW_GOAL_S and figures["slowest_page_s"] <= PAGE_GOAL_S
    is_met &= found.by_id_ms <= ID_GOAL_MS and not found.reconciliation_share
    sys.exit(0 if is_met else 1)


if __name__ == "__main__":
    main()
