"""Each figure of the pages is that of the rows: with open hours, discounts and waste.

The files beside this one hold queues, hosts and deliveries (`of_fleet`), charts, and the analysts' views.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from headrace.domain.ids import show_id
from ops.money import month_of
from ops.shown import number, percent, usd
from plugins.batches.domain import BATCH_PREFIX
from tests.integration.ops.browser import Browser, plain, rows_of
from tests.integration.ops.charged import BILLS, BOOT_USD, BUSY, ENTRIES, HOST_HOURS, MONTH, OPEN

Query = Callable[..., list[tuple[Any, ...]]]

ROOM = "reason IN ('depth', 'tokens', 'wait', 'share', 'token_share', 'no_worker')"
PAID = """
    (kind = 'api' OR kind = 'waste' AND EXISTS (
        SELECT FROM attempts a WHERE a.job_id = l.job_id AND a.number = l.attempt AND a.engine = 'openai'))
"""
OWN = "l.kind = 'compute' AND l.pool = 'chat'"
IN_CLOSED = f"at >= '{BUSY}' AND at < '{OPEN}'"
IN_MONTH = f"at >= '{MONTH}' AND at < '{month_of(None, datetime.now(UTC))}'"


def test_the_overview_has_the_figures_of_the_rows(viewer: Browser, charged: UUID, query: Query) -> None:
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
    [(period, used)] = query("SELECT period, spent_usd + reserved_usd FROM budgets")
    assert [row[1:3] for row in rows_of(text, "Budgets")] == [[period, usd(used)]]


def test_the_pages_of_apps_jobs_batches_budgets_and_caches_have_the_figures_of_the_rows(
    viewer: Browser, charged: UUID, query: Query
) -> None:
    page = plain(viewer.get("/app?name=test").text)
    for state, count in query("SELECT state, count(*) FROM jobs GROUP BY state"):
        assert f"{count} {state}, " in page
    [(spent,)] = query("SELECT sum(usd) FROM ledger WHERE kind <> 'waste' AND at > now() - interval '24 hours'")
    assert f"{usd(spent)} USD." in page
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
    page = plain(viewer.get(f"/batches/{show_id(charged, BATCH_PREFIX)}").text)
    assert f"of {total} lines have ended: {completed} with an answer, {failed} without. {usd(spent)} USD." in page

    [(spent, reserved)] = query("SELECT spent_usd, reserved_usd FROM budgets")
    assert [usd(spent), usd(reserved)] in [row[3:5] for row in rows_of(viewer.get("/budgets").text, "Budgets")]

    [(misses,)] = query("SELECT count(*) FROM jobs WHERE cache = 'miss'")
    [cells] = rows_of(viewer.get("/caches").text, "Served")
    assert cells[2:] == ["0", "0", "0", f"{misses}", "0%", "0.00"]


def test_the_cost_page_and_the_split_point_have_the_figures_of_the_rows(
    viewer: Browser, charged: UUID, query: Query
) -> None:
    text = viewer.get(f"/cost?month={MONTH:%Y-%m}").text
    [(requests, api)] = query(f"SELECT count(*), sum(api_usd) FROM ledger l WHERE {OWN} AND {IN_CLOSED}")
    bill, dead = (sum(amounts, Decimal()) for amounts in zip(*BILLS.values(), strict=True))
    host_hours = HOST_HOURS

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

    factors = {hour: min(Decimal(1), (bill - dead) / _prices(query, hour)) for hour, (bill, dead) in BILLS.items()}
    used, waste = (
        sum((_prices(query, hour, kind) * factor for hour, factor in factors.items()), Decimal())
        for kind in ("compute", "waste")
    )
    [(full,)] = query(f"{ENTRIES} SELECT sum(full_usd) FROM entries l WHERE {OWN} AND {IN_CLOSED}")
    [cells] = rows_of(text, "Bill of the hosts")
    assert cells[:6] == ["chat", "3", number(host_hours), usd(bill), usd(used), usd(waste)]
    assert cells[6:9] == [usd(BOOT_USD), usd(bill - used - waste - dead), usd(dead)]
    assert cells[9:] == [usd(full), usd(bill - full), usd(Decimal(0))]

    [(count, price, at_api)] = query(
        f"SELECT count(*), sum(usd), sum(api_usd) FROM ledger l WHERE {OWN} AND NOT ({IN_CLOSED}) AND {IN_MONTH}"
    )
    [cells] = rows_of(text, "Open hours")
    assert cells[2:] == [usd(Decimal(4 * 1)), f"{count}", usd(price), usd(at_api), usd(at_api - 4)]

    kinds = {row[1]: row for row in rows_of(text, "Charges")}
    by_kind = query(
        "SELECT kind, count(*), sum(prompt_tokens), sum(output_tokens), sum(usd), "
        f"sum(api_usd) FROM ledger WHERE {IN_MONTH} GROUP BY kind"
    )
    for kind, *sums, spent, priced in by_kind:
        [(shared,)] = query(f"{ENTRIES} SELECT sum(full_usd) FROM entries WHERE {IN_MONTH} AND kind = :kind", kind=kind)
        assert kinds[kind][2:] == [*map(number, sums), usd(spent), usd(shared), usd(priced)], kind
    assert kinds.keys() == {row[0] for row in by_kind}
    [cells] = rows_of(text, "Savings")
    assert cells == ["chat", number(requests), usd(full), usd(bill - full), usd(api), usd(api - bill)]


def _prices(query: Query, hour: datetime, kind: str = "any") -> Decimal:
    """The prices of an hour's requests and failed attempts on own hosts."""
    own = f"kind IN ('compute', 'waste') AND NOT {PAID} AND :kind IN ('any', kind)"
    where = f"{own} AND at >= :hour AND at < CAST(:hour AS timestamptz) + interval '1 hour'"
    [(prices,)] = query(f"SELECT sum(usd) FROM ledger l WHERE {where}", hour=hour, kind=kind)
    return prices or Decimal()
