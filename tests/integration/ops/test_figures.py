"""Each figure of the pages and of the views with sums is that of the rows: with open hours, discounts and waste."""

import html
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from headrace.config import CostSettings
from headrace.domain.apps import App
from headrace.domain.batches import BATCH_PREFIX
from headrace.domain.ids import new_id, show_id
from headrace.domain.queues import Ticket
from headrace.store import Store
from headrace.store.money import cost_hours
from headrace.tables import (
    attempts,
    batches,
    bill_checks,
    bills,
    budgets,
    hosts,
    jobs,
    label_keys,
    ledger,
    queue_samples,
    refusals,
)
from ops.money import before, month_of
from ops.shown import number, percent, usd
from tests.integration.ops.browser import Browser

Query = Callable[..., list[tuple[Any, ...]]]

#: In the month before, which is over: a host ran in the first three hours. The first two are closed.
MONTH = before(month_of(None, datetime.now(UTC)))
CLOSED, NEXT, OPEN = (MONTH + timedelta(days=9, hours=hour) for hour in (9, 10, 11))
HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
ROOM = "reason IN ('depth', 'tokens', 'wait', 'share', 'token_share', 'no_worker')"
PAID = """
    (kind = 'api' OR kind = 'waste' AND EXISTS (
        SELECT FROM attempts a WHERE a.job_id = l.job_id AND a.number = l.attempt AND a.engine = 'openai'))
"""
OWN = "l.kind = 'compute' AND l.pool = 'chat'"
IN_CLOSED = f"at >= '{CLOSED}' AND at < '{OPEN}'"
IN_MONTH = f"at >= '{MONTH}' AND at < '{month_of(None, datetime.now(UTC))}'"


@pytest.fixture
def figures(store: Store, app: App, queued: Callable[..., Ticket]) -> UUID:
    """Fills the tables; returns the id of a batch whose three jobs ended in a closed and in the open hour, and lately.

    Of the charges of a month some are in closed hours, some in an open one, some are waste of own hosts and of the paid
    API, and one is a correction. Of the refusals most are discounted.
    """
    job_ids = [queued().job_id for _ in range(6)]
    with store.begin() as db:
        lease = {"id": "box", "pool": "chat", "usd_per_hour": 4, "instance_type": "big", "end_reason": "gone"}
        times = {"requested_at": CLOSED, "ordered_at": CLOSED, "ready_at": CLOSED, "ended_at": OPEN + HOUR}
        db.execute(sa.insert(hosts).values(**lease, **times))
        batch_id = _batch(db, app, job_ids[:3])
        _charges(db, app, job_ids)
        for bill in cost_hours.open_bills(db):
            if bill.hour < OPEN:
                cost_hours.close_hour(db, bill, CostSettings())
        _demand(db, app)
        _money(db, app)
    return batch_id


def _charges(db: sa.Connection, app: App, job_ids: list[UUID]) -> None:
    lately = datetime.now(UTC) - 10 * MINUTE
    failed = {"worker_id": new_id(), "started_at": lately, "number": 1}
    db.execute(sa.insert(attempts).values(job_id=job_ids[3], engine="vllm", **failed))
    db.execute(sa.insert(attempts).values(job_id=job_ids[4], engine="openai", **failed))
    charge = {"app_id": app.id, "pool": "chat", "model": "m", "prompt_tokens": 100, "output_tokens": 25}
    rows = [
        *[("compute", CLOSED, "0.05", "0.20", None)] * 6,
        *[("compute", NEXT, "0.03", "0.11", None)] * 3,
        *[("compute", OPEN, "0.05", "0.20", None)] * 11,
        ("compute", CLOSED + MINUTE, "0.07", "0.30", job_ids[0]),
        ("compute", OPEN + MINUTE, "0.05", "0.20", job_ids[1]),
        ("compute", lately, "0.0000004", "0.20", job_ids[2]),
        ("waste", CLOSED, "0.30", None, job_ids[3]),
        ("waste", lately, "0.000402", None, job_ids[4]),
        ("api", lately, "0.0005", "0.0005", job_ids[5]),
        ("api", CLOSED, "0.20", "0.20", None),
        ("adjustment", lately, "-0.0001", None, job_ids[5]),
    ]
    # In the order of time, as they are written.
    for kind, at, amount, api, job_id in sorted(rows, key=lambda row: row[1]):
        more = {"kind": kind, "at": at, "usd": Decimal(amount), "api_usd": api and Decimal(api), "attempt": 1}
        db.execute(sa.insert(ledger).values(**charge, **more, job_id=job_id or new_id()))
    paid = {"state": "succeeded", "usd": Decimal("0.0004"), "cache": "miss", "ended_at": sa.func.now()}
    db.execute(sa.update(jobs).where(jobs.c.id == job_ids[5]).values(**paid, started_at=lately))


def _batch(db: sa.Connection, app: App, job_ids: list[UUID]) -> UUID:
    batch_id = new_id()
    row = {"app_id": app.id, "state": "in_progress", "endpoint": "/v1/responses", "input_file_id": new_id()}
    counts = {"total": 7, "completed": 3, "failed": 1, "usd": Decimal("0.1200004"), "completion_window": "24h"}
    metadata = {"team": "search", "secret": "s"}
    times = {"expires_at": sa.func.now() + HOUR}
    db.execute(sa.insert(batches).values(id=batch_id, **row, **counts, **times, overflow="allow", metadata=metadata))
    db.execute(sa.insert(label_keys).values(key="team"))
    db.execute(sa.update(jobs).where(jobs.c.id.in_(job_ids)).values(batch_id=batch_id))
    return batch_id


def _demand(db: sa.Connection, app: App) -> None:
    now = datetime.now(UTC)
    for minute, reason, is_repeat, count in (
        *((3, "depth", False, 11), (3, "depth", True, 50), (3, "wait", False, 6)),
        *((3, "app_jobs", False, 9), (3, "budget", False, 5)),
    ):
        row = {"minute": now - minute * MINUTE, "app_id": app.id, "queue": "chat.normal", "reason": reason}
        db.execute(sa.insert(refusals).values(**row, is_repeat=is_repeat, jobs=count, tokens=24 * count))
    for minute, arrivals, refused, discounted in ((3, 40, 8, 50), (2, 2, 3, 6), (40, 20, 4, 8)):
        came = {"arrivals": arrivals, "refused": refused, "discounted": discounted, "failed": 2, "expired": 1}
        more = {"depth": 4, "oldest_wait_s": 3.0, "started": 3, "running": 2, "slots": 8, "hosts": 1}
        at = now - minute * MINUTE
        db.execute(sa.insert(queue_samples).values(queue="chat.normal", at=at, offered_tokens=9, **came, **more))


def _money(db: sa.Connection, app: App) -> None:
    day = sa.func.date_trunc("day", sa.func.now(), "UTC")
    account = {"app_id": app.id, "period": "day", "starts_at": day}
    amounts = {"spent_usd": Decimal("0.000902"), "reserved_usd": Decimal("0.5")}
    db.execute(sa.insert(budgets).values(id=new_id(), **account, **amounts))
    about = {"source": "hosts", "file": "b.csv", "lines": 2, "first_day": CLOSED.date(), "last_day": CLOSED.date()}
    bill = sa.insert(bills).values(**about, ledger_usd=8, billed_usd=Decimal("9.25")).returning(bills.c.id)
    row = {"source": "hosts", "day": CLOSED, "name": "box", "pool": "chat", "bill_id": db.scalar(bill)}
    for cause, own, theirs in (("none", 8, 8), ("hours", 0, Decimal("1.25"))):
        sides = {"ledger_usd": own, "billed_usd": theirs, "ledger_quantity": own / 4, "billed_quantity": theirs / 4}
        db.execute(sa.insert(bill_checks).values(**row, cause=cause, **sides))


def rows_of(text: str, label: str) -> list[list[str]]:
    """The cells of a table of a page, row by row."""
    table = text.partition(f'aria-label="{label}"')[2].partition("</table>")[0]
    rows = re.findall(r"<tr>(.*?)</tr>", table.partition("<tbody>")[2], re.DOTALL)
    return [[plain(cell) for cell in re.split(r"<td[^>]*>", row)[1:]] for row in rows]


def plain(text: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", text)).split())


def test_the_overview_has_the_figures_of_the_rows(viewer: Browser, figures: UUID, query: Query) -> None:
    text = viewer.get("/").text
    cells = next(row for row in rows_of(text, "Queues") if row[0] == "chat.normal")

    [(refused,)] = query(f"SELECT sum(jobs) FROM refusals WHERE {ROOM}")
    since = "SELECT sum({0}) FROM queue_samples WHERE at > now() - interval '15 minutes'"
    sums = {
        name: query(since.format(name))[0][0] for name in ("arrivals", "refused", "discounted", "failed", "expired")
    }
    assert sums["refused"] + sums["discounted"] == refused == 67
    assert cells[4::2] == [
        *(f"{sums['arrivals']}", f"{refused} ({sums['discounted']} discounted)", f"{sums['failed']}"),
        f"{sums['expired']}",
    ]
    [before_sums] = query(
        "SELECT sum(arrivals) / 4.0, sum(refused + discounted) / 4.0, sum(failed) / 4.0, sum(expired) / 4.0 "
        "FROM queue_samples WHERE at <= now() - interval '15 minutes'"
    )
    assert cells[5::2] == [number(each) for each in before_sums]
    [(paid,)] = query(f"SELECT sum(usd) FROM ledger l WHERE {PAID} AND at > now() - interval '1 hour'")
    assert f"Paid API, USD in the last hour {usd(paid)} " in plain(text)
    assert usd(paid) == "0.000902"


def test_the_pages_of_apps_jobs_batches_budgets_bills_and_caches_have_the_figures_of_the_rows(
    viewer: Browser, figures: UUID, query: Query
) -> None:
    page = plain(viewer.get("/app?name=test").text)
    for state, count in query("SELECT state, count(*) FROM jobs GROUP BY state"):
        assert f"{count} {state}, " in page
    [(charged,)] = query("SELECT sum(usd) FROM ledger WHERE kind <> 'waste' AND at > now() - interval '24 hours'")
    assert f"{usd(charged)} USD." in page
    refused = query("SELECT reason, sum(jobs) FROM refusals GROUP BY reason ORDER BY reason")
    assert "Refused: " + ", ".join(f"{count} {reason}" for reason, count in refused) in page

    page = plain(viewer.get("/jobs").text)
    for state, count, spent in query("SELECT state, count(*), sum(usd) FROM jobs GROUP BY state"):
        assert f"{count} {state}, {usd(spent)} USD" in page
    [(count, spent)] = query("SELECT count(*), sum(usd) FROM jobs")
    assert f"{count} jobs, {usd(spent)} USD: " in page

    [(total, completed, failed, spent)] = query("SELECT total, completed, failed, usd FROM batches")
    [cells] = rows_of(viewer.get("/batches").text, "Batches")
    ended = percent((completed + failed) / total)
    assert cells[4:8] == [f"{total}", f"{completed} {failed}", f"{ended} {ended}", usd(spent)]
    page = plain(viewer.get(f"/batches/{show_id(figures, BATCH_PREFIX)}").text)
    assert f"of {total} lines have ended: {completed} with an answer, {failed} without. {usd(spent)} USD." in page

    [(spent, reserved)] = query("SELECT spent_usd, reserved_usd FROM budgets")
    assert [usd(spent), usd(reserved)] in [row[3:5] for row in rows_of(viewer.get("/budgets").text, "Budgets")]

    text = viewer.get(f"/bills?month={MONTH:%Y-%m}").text
    [sums] = query("SELECT sum(billed_usd), sum(ledger_usd), sum(billed_usd - ledger_usd) FROM bill_checks")
    assert rows_of(text, "Bills")[0][3:] == [usd(each) for each in sums]
    [differs] = query("SELECT ledger_usd, billed_usd, billed_usd - ledger_usd FROM bill_checks WHERE cause <> 'none'")
    assert rows_of(text, "Differences")[0][7:] == [usd(each) for each in differs]

    [(misses,)] = query("SELECT count(*) FROM jobs WHERE cache = 'miss'")
    [cells] = rows_of(viewer.get("/caches").text, "Served")
    assert cells[2:] == ["0", "0", "0", f"{misses}", "0%", "0.00"]


def test_the_cost_page_and_the_split_point_have_the_figures_of_the_rows(
    viewer: Browser, figures: UUID, query: Query
) -> None:
    text = viewer.get(f"/cost?month={MONTH:%Y-%m}").text
    [(requests, api)] = query(f"SELECT count(*), sum(api_usd) FROM ledger l WHERE {OWN} AND {IN_CLOSED}")
    [(host_hours, bill)] = query("SELECT sum(host_s) / 3600, sum(bill_usd) FROM cost_hours")
    assert (requests, host_hours, bill) == (10, 2, 8)

    [point] = query("SELECT * FROM split_point")
    [names] = query(
        "SELECT array_agg(attname::text ORDER BY attnum) FROM pg_attribute "
        "WHERE attrelid = 'split_point'::regclass AND attnum > 0"
    )
    found = dict(zip(names[0], point, strict=True))
    assert found["usd_per_host_hour"] == bill / host_hours
    assert found["requests_per_host_hour"] == Decimal(requests) / host_hours
    assert found["api_usd_per_request"] == pytest.approx(api / requests)
    assert found["break_even_requests_per_host_hour"] == pytest.approx(bill / host_hours / (api / requests))
    assert found["break_even_share"] == pytest.approx(bill / api)
    served, break_even = number(found["requests_per_host_hour"]), number(found["break_even_requests_per_host_hour"])
    about = plain(text)
    assert f"A host cost {usd(bill / host_hours)} USD an hour and served {served} requests an hour." in about
    assert f"It is cheaper than the paid API from {break_even} requests an hour on." in about

    [(waste, platform, used)] = query(
        "SELECT sum(waste_usd), sum(platform_usd), sum(compute_usd * factor) FROM cost_hours"
    )
    [cells] = rows_of(text, "Bill of the hosts")
    assert cells[:6] == ["chat", "2", number(host_hours), usd(bill), usd(used), usd(waste)]
    assert cells[9:] == [usd(bill - platform), usd(platform), usd(Decimal(0))]

    [(count, price, at_api)] = query(
        f"SELECT count(*), sum(usd), sum(api_usd) FROM ledger l WHERE {OWN} AND NOT ({IN_CLOSED}) AND {IN_MONTH}"
    )
    [cells] = rows_of(text, "Open hours")
    assert cells[2:] == [usd(Decimal(4 * 1)), f"{count}", usd(price), usd(at_api), usd(at_api - 4)]

    kinds = {row[1]: row for row in rows_of(text, "Charges")}
    charged = query(
        "SELECT kind, count(*), sum(prompt_tokens), sum(output_tokens), sum(usd), "
        f"sum(api_usd) FROM ledger WHERE {IN_MONTH} GROUP BY kind"
    )
    for kind, *sums, spent, priced in charged:
        # What the closed hours share is their bill, without the platform's part.
        full = bill - platform + price if kind == "compute" else spent
        assert kinds[kind][2:] == [*map(number, sums), usd(spent), usd(full), usd(priced)], kind
    assert kinds.keys() == {row[0] for row in charged}
    [cells] = rows_of(text, "Savings")
    full, saved = bill - platform, api - bill
    assert cells == ["chat", number(requests), usd(full), usd(platform), usd(api), usd(saved)]


def test_the_views_have_the_sums_of_the_rows(figures: UUID, query: Query) -> None:
    [(platform, bill)] = query("SELECT sum(platform_usd), sum(bill_usd) FROM cost_hours")
    [(closed, rest)] = query(
        f"SELECT sum(usd) FILTER (WHERE {OWN} AND {IN_CLOSED}), "
        f"sum(usd) FILTER (WHERE kind <> 'waste' AND NOT ({OWN} AND {IN_CLOSED})) FROM ledger l"
    )
    [(waste,)] = query("SELECT sum(usd) FROM ledger WHERE kind = 'waste'")
    full = bill - platform + rest
    assert query("SELECT sum(usd), sum(full_usd) FROM charges WHERE kind <> 'waste'") == [(closed + rest, full)]
    assert query("SELECT sum(usd), sum(full_usd), sum(waste_usd) FROM cost_per_day") == [(closed + rest, full, waste)]
    of_jobs = "FROM ledger WHERE job_id IN (SELECT id FROM jobs)"
    sums = query(f"SELECT sum(usd) FILTER (WHERE kind <> 'waste'), sum(usd) FILTER (WHERE kind = 'waste') {of_jobs}")
    assert query("SELECT sum(usd), sum(waste_usd) FROM cost_per_request") == sums
    own = query(f"SELECT count(*), sum(api_usd) FROM ledger l WHERE {OWN}")
    assert query("SELECT sum(requests), sum(api_usd) FROM savings_per_day WHERE pool = 'chat'") == own


def test_a_batch_s_costs_have_its_share_of_idle_hosts_and_its_labels(figures: UUID, query: Query) -> None:
    of_it = "SELECT sum(usd), sum(full_usd), sum(api_usd) FROM cost_per_request WHERE job_id IN (SELECT id FROM jobs)"
    expected = query(f"{of_it} AND job_id IN (SELECT id FROM jobs WHERE batch_id = :batch)", batch=figures)

    assert query("SELECT usd, full_usd, api_usd FROM batch_costs") == expected
    assert query("SELECT full_usd > usd, labels FROM batch_costs") == [(True, {"team": "search"})]
