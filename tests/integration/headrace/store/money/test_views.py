"""The analysts' views, on charges whose sums are known, and every query of docs/analytics.md."""

import re
from collections.abc import Callable, Iterator
from dataclasses import astuple
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from headrace.config import PROJECT_ROOT, CostSettings
from headrace.domain.apps import App
from headrace.domain.ids import new_id, show_id
from headrace.domain.queues import Ticket
from headrace.store import Store
from headrace.store.analyst import VIEWS
from headrace.store.money import cost_hours, costs
from headrace.store.views import MADE
from headrace.tables import (
    apps,
    attempts,
    budgets,
    charge_days,
    hosts,
    jobs,
    ledger,
    own_prices,
    queue_samples,
    worker_samples,
)

#: In two months that are over.
SEPTEMBER, OCTOBER = datetime(2026, 9, 14, 9, tzinfo=UTC), datetime(2026, 10, 14, 9, tzinfo=UTC)
HOUR = timedelta(hours=1)
DOC = PROJECT_ROOT / "docs" / "analytics.md"

View = Callable[..., list[Any]]


@pytest.fixture
def view(store: Store) -> View:
    """The rows of a query."""

    def read(query: str, **values: Any) -> list[Any]:
        with store.begin() as db:
            return list(db.execute(sa.text(query), values))

    return read


@pytest.fixture
def charged(store: Store, queued: Callable[..., Ticket]) -> None:
    """Two users in September and four in October, 10 requests each, on a host of 4 USD that runs for an hour a month.

    A request has 100 tokens of a prompt and 25 of an answer, a price of 0.05 USD, and would be 0.20 USD at the paid
    API. In October an attempt is wasted, and one request goes to the paid API.
    """
    ticket = queued(end_user="u0")
    with store.begin() as db:
        app_id = db.scalar(sa.select(jobs.c.app_id).where(jobs.c.id == ticket.job_id))
        for hour, users in ((SEPTEMBER, 2), (OCTOBER, 4)):
            times = {"requested_at": hour, "ordered_at": hour, "ready_at": hour, "ended_at": hour + HOUR}
            lease = {"id": f"box-{users}", "pool": "chat", "usd_per_hour": 4, "end_reason": "gone"}
            db.execute(sa.insert(hosts).values({**lease, **times}))
            usage = {"app_id": app_id, "pool": "chat", "at": hour, "prompt_tokens": 100, "output_tokens": 25}
            price = {"kind": "compute", "usd": Decimal("0.05"), "api_usd": Decimal("0.20")}
            own = [{"job_id": new_id(), "end_user": f"u{user}"} for user in range(users) for _ in range(10)]
            db.execute(sa.insert(ledger), [{**usage, **price, **each} for each in own])
        lost = {"job_id": ticket.job_id, "number": 1, "worker_id": new_id(), "engine": "vllm", "started_at": OCTOBER}
        db.execute(sa.insert(attempts).values({**lost, "first_token_s": 0.25}))
        waste = {"kind": "waste", "usd": Decimal("0.30"), "job_id": ticket.job_id, "attempt": 1}
        db.execute(sa.insert(ledger).values({**usage, **waste}))
        paid = {"kind": "api", "usd": Decimal("0.20"), "api_usd": Decimal("0.20"), "job_id": ticket.job_id}
        db.execute(sa.insert(ledger).values({**usage, **paid, "end_user": "u0"}))
        rate = {"pool": "chat", "instance_type": "a100", "usd_per_hour": 4, "tokens_per_s": 5, "work_per_token": 1.6}
        amounts = {f"{name}_usd_per_mtok": 1 for name in ("input", "cached_input", "output")}
        db.execute(sa.insert(own_prices).values(**rate, **amounts))
        times = {"created_at": OCTOBER, "started_at": OCTOBER + timedelta(seconds=8)}
        db.execute(sa.update(jobs).values({**times, "attempt": 1}))
        for bill in cost_hours.open_bills(db):
            cost_hours.close_hour(db, bill, CostSettings())


@pytest.mark.usefixtures("charged")
def test_charges_have_their_share_of_the_hosts_and_their_job(view: View) -> None:
    found = view("SELECT kind, count(*), sum(usd), sum(full_usd) FROM charges WHERE at >= :at GROUP BY 1", at=OCTOBER)

    assert {kind: (count, usd, round(full, 6)) for kind, count, usd, full in found} == {
        "compute": (40, Decimal(2), Decimal("3.7")),
        "waste": (1, Decimal("0.30"), Decimal("0.30")),
        "api": (1, Decimal("0.20"), Decimal("0.20")),
    }
    assert view("SELECT app, lane, end_user FROM charges WHERE kind = 'api'") == [("test", "normal", "u0")]


@pytest.mark.usefixtures("charged")
def test_a_day_has_its_charges_and_its_waste_apart(view: View) -> None:
    found = view("SELECT day, requests, users, usd, waste_usd FROM cost_per_day ORDER BY day, requests DESC")

    day = OCTOBER.replace(hour=0)
    assert found[1:] == [(day, 40, 4, Decimal(2), 0), (day, 1, 1, Decimal("0.20"), Decimal("0.30"))]


@pytest.mark.usefixtures("charged")
@pytest.mark.parametrize("is_closed", [False, True])
def test_the_months_of_the_pages_have_the_figures_of_the_views(store: Store, view: View, is_closed: bool) -> None:
    with store.begin() as db:
        for day in cost_hours.open_days(db) if is_closed else ():
            cost_hours.close_day(db, day)
    for since, until in ((month(9), month(10)), (month(10), month(11)), (month(11), month(12))):
        with store.begin() as db:
            savings, points = costs.month(db, since, until).savings, costs.split_points(db, since, until)
            routes = costs.routes_per_day(db, since, until)
        time = {"since": since, "until": until}
        of_days = "FROM savings_per_day WHERE day >= :since AND day < :until GROUP BY pool"
        saved = f"SELECT pool, sum(requests), sum(full_usd), sum(platform_usd), sum(api_usd), sum(saved_usd) {of_days}"
        charged = "SELECT route, sum(full_usd) FROM charges WHERE at >= :since AND at < :until GROUP BY route"
        assert [(*astuple(each), each.saved_usd) for each in savings] == list(map(tuple, view(saved, **time)))
        assert list(map(astuple, points)) == list(
            map(tuple, view("SELECT * FROM split_point WHERE month = :at", at=since))
        )
        assert {each.route: each.full_usd for each in routes} == dict(map(tuple, view(charged, **time)))


@pytest.fixture
def closed(store: Store, charged: None) -> None:
    """Closes all days, and adds a request to each sum of October, so that it differs from the ledger."""
    with store.begin() as db:
        for day in cost_hours.open_days(db):
            cost_hours.close_day(db, day)
        db.execute(
            sa.update(charge_days).where(charge_days.c.day >= month(10)).values(requests=charge_days.c.requests + 1)
        )


def requests(store: Store, number: int) -> dict[str, int]:
    """The page's requests of a month, by kind."""
    with store.begin() as db:
        return {each.kind: each.requests for each in costs.month(db, month(number), month(number + 1)).apps}


@pytest.mark.usefixtures("closed")
def test_a_month_of_the_pages_is_read_from_its_closed_days(store: Store) -> None:
    assert requests(store, 10) == {"compute": 41, "waste": 2, "api": 2}


@pytest.mark.usefixtures("closed")
def test_a_month_is_read_from_the_ledger_when_that_has_more_entries_than_its_closed_days(
    store: Store, app: App
) -> None:
    late = {"app_id": app.id, "pool": "chat", "kind": "adjustment", "at": OCTOBER, "usd": Decimal("0.01")}
    with store.begin() as db:
        db.execute(sa.insert(ledger), [late] * 4)

    assert requests(store, 10) == {"compute": 40, "waste": 1, "api": 1, "adjustment": 4}
    assert requests(store, 9) == {"compute": 20}


@pytest.mark.usefixtures("closed")
def test_a_month_is_read_from_the_ledger_until_the_days_of_reclosed_hours_are_closed_again(store: Store) -> None:
    with store.begin() as db:
        db.execute(sa.text("UPDATE cost_hours SET closed_at = closed_at + interval '1 second'"))

    assert requests(store, 10) == {"compute": 40, "waste": 1, "api": 1}


@pytest.mark.usefixtures("charged")
@pytest.mark.parametrize("statement", [costs._SUMS, costs._SPLITS])
def test_a_month_of_the_pages_reads_no_other_entries(store: Store, statement: sa.TextClause) -> None:
    with store.begin() as db:
        # So that the plan does not depend on whether Postgres has looked at the rows by itself.
        db.execute(sa.text("ANALYZE ledger; SET LOCAL enable_seqscan = off"))
        explain = sa.text(f"EXPLAIN (FORMAT JSON) {statement.text}")
        time = {"since": month(10), "closed": month(10), "until": month(11)}
        [plan] = db.execute(explain, time).scalar_one()
    scans = list(scans_of("ledger", plan["Plan"]))
    assert scans
    # At the scan itself, where the index of the times serves it once the table is large.
    for scan in scans:
        conditions = "".join(scan.get(kind, "") for kind in ("Index Cond", "Recheck Cond", "Filter"))
        assert "(at >= '2026-10-01" in conditions, scan
        assert "(at < '2026-11-01" in conditions, scan


def month(number: int) -> datetime:
    return datetime(2026, number, 1, tzinfo=UTC)


def scans_of(table: str, node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if node.get("Relation Name", "").startswith(table):
        yield node
    for each in node.get("Plans", []):
        yield from scans_of(table, each)


@pytest.mark.usefixtures("charged")
def test_savings_count_the_whole_bill_of_the_hosts(view: View) -> None:
    found = view("SELECT requests, full_usd + platform_usd, api_usd, saved_usd FROM savings_per_day ORDER BY day")

    assert found == [(20, Decimal(4), Decimal(4), 0), (40, Decimal(4), Decimal(8), Decimal(4))]


@pytest.mark.usefixtures("charged")
def test_a_host_pays_from_so_many_requests_an_hour(view: View) -> None:
    [september, october] = view("SELECT * FROM split_point ORDER BY month")

    assert (september.break_even_requests_per_host_hour, september.requests_per_host_hour) == (20, 20)
    assert (september.break_even_share, october.break_even_share) == (1, Decimal("0.5"))
    # 5 tokens a second, over 125 tokens of a request.
    assert october.most_requests_per_host_hour == 144


@pytest.mark.usefixtures("charged")
def test_a_huge_request_breaks_no_view(view: View, store: Store) -> None:
    most = 2**31 - 1
    huge = {"kind": "compute", "pool": "chat", "usd": 1, "at": OCTOBER, "prompt_tokens": most, "output_tokens": most}
    with store.begin() as db:
        db.execute(sa.insert(ledger).values(huge))

    # Without a budget, with two days, without a cache, compression, rules, operators and keys: no row.
    empty = {"budget_run_rate", "cost_elasticity", "cache_per_day", "semantic_cache_per_day", "compression_per_day"}
    empty |= {"cost_per_label_day", "operator_actions", "routing_per_day"}
    assert {name for name in VIEWS if name in MADE and not view(f"SELECT * FROM {name}")} == empty


@pytest.mark.usefixtures("charged")
def test_the_cost_of_a_user_and_how_it_grows(view: View) -> None:
    [september, october] = view("SELECT * FROM cost_per_user_month ORDER BY month")

    assert (september.users, september.usd_per_user, september.elasticity) == (2, pytest.approx(2), None)
    # 3.70 USD of own hosts, and 0.20 USD of the paid API.
    assert (october.users, float(october.usd_per_user)) == (4, pytest.approx(3.9 / 4))
    assert float(october.elasticity) == pytest.approx(-0.0365, abs=1e-3)


@pytest.mark.usefixtures("charged")
def test_waits_are_those_of_the_hour_in_which_jobs_started(view: View) -> None:
    [row] = view("SELECT * FROM waits_per_hour")

    assert (row.hour, row.pool, row.lane, row.requests) == (OCTOBER, "chat", "normal", 1)
    assert (row.p95_wait_s, row.p50_first_token_s, row.p99_first_token_s) == (8, 0.25, 0.25)


def test_elasticity_is_the_slope_of_a_line_through_the_days_of_an_app(view: View, store: Store, app: App) -> None:
    usage = {"app_id": app.id, "pool": "chat", "kind": "api"}
    with store.begin() as db:
        # Eight times the users at four times the cost: cost grows by the power of two thirds.
        for day, users, usd in ((0, 1, 1), (1, 8, 4), (2, 64, 16)):
            each = {**usage, "at": OCTOBER + timedelta(days=day), "usd": Decimal(usd) / users}
            db.execute(sa.insert(ledger), [{**each, "end_user": f"u{user}"} for user in range(users)])

    [row] = view("SELECT * FROM cost_elasticity")

    assert (row.app, row.days, row.least_users, row.most_users) == ("test", 3, 1, 64)
    assert (row.elasticity, row.r2) == (pytest.approx(2 / 3), pytest.approx(1))


@pytest.mark.usefixtures("charged")
def test_the_cheapest_number_of_hosts_and_what_price_and_load_change(view: View, store: Store) -> None:
    usage = {"pool": "chat", "kind": "compute", "usd": Decimal("0.01"), "api_usd": Decimal("0.20")}
    tokens = {"prompt_tokens": 100, "output_tokens": 25}
    hours = [OCTOBER + hour * HOUR for hour in range(1, 10)]
    with store.begin() as db:
        # 160 requests an hour, of which a host serves 144; one more host would serve 16 for 4 USD an hour.
        db.execute(sa.insert(ledger), [{**usage, **tokens, "at": hour} for hour in hours for _ in range(160)])

    found = view(
        "SELECT * FROM split_options WHERE is_cheapest AND month = :month", month=OCTOBER.replace(day=1, hour=0)
    )

    chosen = {(float(row.load_factor), float(row.api_price_factor)): row.hosts for row in found}
    # A host costs as much as 20 requests at the paid API: the 16 that one host leaves are cheaper there.
    assert chosen == {(1, 1): 1, (0.5, 1): 1, (2, 1): 3, (1, 0.5): 1, (1, 2): 2}
    [row] = [row for row in found if (row.load_factor, row.api_price_factor) == (1, 1)]
    assert float(row.own_share) == pytest.approx((9 * 144 + 41) / (9 * 160 + 41), abs=1e-3)
    assert float(row.hosts_usd) == pytest.approx(4 * 10)
    assert row.usd == row.hosts_usd + row.api_usd


def test_a_fleet_of_the_present_size_costs_what_was_billed(view: View, store: Store) -> None:
    began, ended = OCTOBER + timedelta(minutes=58), OCTOBER + timedelta(hours=2, minutes=2)
    times = {"requested_at": began, "ordered_at": began, "ready_at": began, "ended_at": ended}
    usage = {"pool": "chat", "kind": "compute", "usd": 0, "api_usd": 1, "prompt_tokens": 1, "output_tokens": 1}
    rate = {"pool": "chat", "instance_type": "a100", "usd_per_hour": Decimal("0.54"), "tokens_per_s": 500}
    amounts = {f"{name}_usd_per_mtok": 1 for name in ("input", "cached_input", "output")}
    with store.begin() as db:
        price = {"pool": "chat", "usd_per_hour": Decimal("0.52"), "end_reason": "gone"}
        db.execute(sa.insert(hosts).values(id="box", **price, **times))
        db.execute(sa.insert(own_prices).values(**rate, **amounts, work_per_token=1))
        db.execute(sa.insert(ledger), [{**usage, "at": at} for at in (began, OCTOBER + HOUR, ended)])
        for bill in cost_hours.open_bills(db):
            cost_hours.close_hour(db, bill, CostSettings())

    [(billed,)] = view("SELECT sum(bill_usd) FROM cost_hours")
    [one] = view("SELECT * FROM split_options WHERE hosts = 1 AND load_factor = 1 AND api_price_factor = 1")
    # Three hours of the clock, of which the host was there for 64 minutes.
    assert round(billed, 4) == round(Decimal("0.52") * 64 / 60, 4)
    assert (round(one.hosts_usd, 8), one.own_share, one.is_cheapest) == (round(billed, 8), 1, True)


@pytest.mark.parametrize(
    ("spent", "days"), [(Decimal(0), None), (Decimal(1), None), (Decimal(9), "soon"), (Decimal(12), "now")]
)
def test_a_budget_is_used_up_at_the_pace_since_its_start(
    view: View, store: Store, app: App, spent: Decimal, days: str | None
) -> None:
    [(now, starts_at, ends_at)] = view(
        "SELECT now(), date_trunc('day', now(), 'UTC'), date_trunc('day', now(), 'UTC') + interval '24 hours'"
    )
    passed = (now - starts_at) / (ends_at - starts_at)
    limit = Decimal(10) if days != "soon" else spent * Decimal(str(1 + 0.5 * (1 - passed) / passed))
    account = {"id": new_id(), "app_id": app.id, "period": "day", "starts_at": starts_at, "spent_usd": spent}
    with store.begin() as db:
        db.execute(sa.update(apps).values(day_usd=limit if spent != 1 else None))
        db.execute(sa.insert(budgets).values(**account))

    [row] = view("SELECT * FROM budget_run_rate")

    assert (row.app, row.period, row.ends_at) == ("test", "day", ends_at)
    assert float(row.projected_usd) == pytest.approx(float(spent) / passed, rel=0.01)
    if days is None:
        assert row.used_up_at is None
    else:
        due = now if days == "now" else now + (ends_at - now) / 2
        assert abs(row.used_up_at - due) < timedelta(seconds=30)


def test_the_budget_of_all_apps_has_the_limit_that_the_control_process_saw(view: View, store: Store) -> None:
    [(starts_at,)] = view("SELECT date_trunc('month', now(), 'UTC')")
    account = {"id": new_id(), "app_id": None, "period": "month", "starts_at": starts_at, "limit_usd": 5}
    with store.begin() as db:
        db.execute(sa.insert(budgets).values(**account))

    [row] = view("SELECT * FROM budget_run_rate")

    assert (row.app, row.limit_usd, row.used) == (None, 5, 0)
    assert row.ends_at == (starts_at + timedelta(days=31)).replace(day=1)


@pytest.mark.usefixtures("charged")
def test_a_request_has_its_bill_its_waste_and_its_public_id(view: View) -> None:
    [row] = view("SELECT * FROM cost_per_request")

    assert row.public_id == show_id(row.job_id)
    assert (row.usd, row.waste_usd, row.api_usd, row.full_usd) == (
        Decimal("0.20"),
        Decimal("0.30"),
        Decimal("0.20"),
        Decimal("0.20"),
    )


def queries() -> list[str]:
    """The page's queries; a superuser's statements are in tests/integration/scheduler/test_end_analysts.py."""
    blocks = re.findall(r"```sql\n(.*?)```", DOC.read_text(encoding="utf-8"), re.S)
    return [block for block in blocks if "REVOKE" not in block]


@pytest.mark.usefixtures("charged")
@pytest.mark.parametrize("number", range(len(queries())))
def test_every_query_of_the_page_runs(view: View, number: int) -> None:
    view(queries()[number].replace(":", "\\:") if "::" in queries()[number] else queries()[number])


def test_the_page_finds_by_how_much_a_queue_leads_its_gpus(view: View, store: Store) -> None:
    began = datetime.now(UTC) - timedelta(hours=2)
    depths = [(step * step) % 37 for step in range(300)]
    queued = {"oldest_wait_s": 0, "arrivals": 0, "refused": 0, "started": 0, "running": 0, "slots": 8, "hosts": 1}
    idle = {"interval_s": 5, "running": 0, "waiting": 0, "steps": 0, "prompt_tokens": 0, "output_tokens": 0}
    with store.begin() as db:
        for step, depth in enumerate(depths):
            at = began + timedelta(seconds=10 * step)
            db.execute(sa.insert(queue_samples).values(queue="chat.normal", at=at, depth=depth, **queued))
            its = {"pool": "chat", "worker_id": UUID(int=1), "preemptions": 0, "gpu_use": depth / 40}
            db.execute(sa.insert(worker_samples).values(taken_at=at + timedelta(seconds=70), **its, **idle))
    [query] = [query for query in queries() if "lead_s" in query]
    first = view(query)[0]
    assert (first.lead_s, round(first.agreement, 3)) == (70, 1)


def test_every_column_that_the_page_describes_exists(view: View) -> None:
    rows = view("SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'")
    exist = {f"{table}.{column}" for table, column in rows}

    named = set(re.findall(r"`([a-z_]+\.[a-z_]+)`", DOC.read_text(encoding="utf-8")))

    assert named - exist <= {"metrics.md"}
