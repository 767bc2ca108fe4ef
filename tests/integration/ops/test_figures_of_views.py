"""Each sum of the analysts' views is that of the rows, before and after their days are closed."""

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from math import ceil, log
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from headrace.domain.apps import App
from headrace.domain.queues import Ticket
from headrace.store import Store
from headrace.store.money import cost_hours
from headrace.tables import ledger
from tests.integration.ops.charged import BILLS, BOOT_USD, BUSY, DEAD_HOURS, ENTRIES, HOST_HOURS, MONTH, OPEN

Query = Callable[..., list[tuple[Any, ...]]]

IN_CLOSED = f"pool = 'chat' AND at >= '{BUSY}' AND at < '{OPEN}'"
CHARGED = "kind IN ('compute', 'api', 'cache')"
#: Of a group: requests, tokens, and USD: charged, with idle hosts, wasted, at the paid API.
SUMS = f"""
    count(*) FILTER (WHERE {CHARGED}), sum(prompt_tokens), sum(output_tokens),
    coalesce(sum(usd) FILTER (WHERE kind <> 'waste'), 0), coalesce(sum(full_usd) FILTER (WHERE kind <> 'waste'), 0),
    coalesce(sum(usd) FILTER (WHERE kind = 'waste'), 0), sum(api_usd) FILTER (WHERE kind <> 'waste')
"""


@pytest.fixture(params=[False, True], ids=["open days", "closed days"])
def sums(request: pytest.FixtureRequest, charged: UUID, store: Store) -> UUID:
    """The charges; once with all days closed that are over."""
    while request.param:
        with store.begin() as db:
            days = cost_hours.open_days(db)
            for day in days:
                cost_hours.close_day(db, day)
        if not days:
            break
    return charged


def alike(found: list[tuple[Any, ...]], expected: list[tuple[Any, ...]]) -> bool:
    """Returns True if rows are equal: numbers within the rounding of an hour's shares."""
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        for mine, theirs in zip(one, other, strict=True):
            is_number = isinstance(theirs, Decimal | float | int) and mine is not None
            assert float(mine) == pytest.approx(float(theirs), abs=1e-7) if is_number else mine == theirs, (one, other)
    return bool(found)


def test_the_costs_of_days_are_those_of_the_entries(sums: UUID, query: Query) -> None:
    expected = f"SELECT date_trunc('day', at, 'UTC'), {SUMS} FROM entries GROUP BY 1 ORDER BY 1"
    columns = "sum(requests), sum(prompt_tokens), sum(output_tokens), sum(usd), sum(full_usd), sum(waste_usd)"
    of_days = f"SELECT day, {columns}, sum(api_usd) FROM cost_per_day GROUP BY 1 ORDER BY 1"
    assert alike(query(of_days), query(f"{ENTRIES} {expected}"))

    expected = "SELECT sum(usd), sum(full_usd), sum(api_usd) FROM entries WHERE kind <> 'waste'"
    in_all = "SELECT sum(usd), sum(full_usd), sum(api_usd) FROM charges WHERE kind <> 'waste'"
    assert alike(query(in_all), query(f"{ENTRIES} {expected}"))


def test_the_costs_of_users_and_labels_are_those_of_the_entries(sums: UUID, query: Query) -> None:
    users = f"count(DISTINCT end_user), count(*) FILTER (WHERE {CHARGED}), sum(full_usd)"
    named = "FROM entries WHERE kind <> 'waste' AND end_user IS NOT NULL GROUP BY 1 ORDER BY 1"
    expected = query(f"{ENTRIES} SELECT date_trunc('day', at, 'UTC'), {users} {named}")
    assert alike(query("SELECT day, users, requests, full_usd FROM cost_per_user_day ORDER BY 1"), expected)
    per_user = query("SELECT usd_per_user FROM cost_per_user_day ORDER BY day")
    assert alike(per_user, [(full / users,) for _, users, _, full in expected])

    expected = query(f"{ENTRIES} SELECT date_trunc('month', at, 'UTC'), {users} {named}")
    assert alike(query("SELECT month, users, requests, full_usd FROM cost_per_user_month ORDER BY 1"), expected)
    [earlier, month, *_] = expected
    assert (earlier[1], month[:2]) == (1, (MONTH, 3))
    slope = log(month[3] / earlier[3]) / log(month[1] / earlier[1])
    [found] = query("SELECT usd_per_user, elasticity FROM cost_per_user_month WHERE month = :month", month=MONTH)
    assert alike([found], [(month[3] / month[1], slope)])

    label = "(SELECT metadata->>'team' FROM jobs j WHERE j.id = job_id)"
    expected = query(f"{ENTRIES} SELECT date_trunc('day', at, 'UTC'), {label}, {SUMS} FROM entries GROUP BY 1, 2")
    columns = "day, value, requests, prompt_tokens, output_tokens, usd, full_usd, waste_usd, api_usd"
    found_rows = query(f"SELECT {columns} FROM cost_per_label_day WHERE key = 'team'")
    assert alike(*(sorted(rows, key=lambda row: (row[0], row[1] or "")) for rows in (found_rows, expected)))
    assert query("SELECT DISTINCT key FROM cost_per_label_day") == [("team",)]


def test_the_hours_of_hosts_and_their_bills_are_those_of_the_rows(charged: UUID, query: Query) -> None:
    sums = ", ".join(
        f"coalesce(sum({name}) FILTER (WHERE kind = '{kind}'), 0)"
        for name, kind in (("usd", "compute"), ("usd", "waste"), ("full_usd", "compute"))
    )
    counted = query(
        f"{ENTRIES} SELECT date_trunc('hour', at, 'UTC'), count(*) FILTER (WHERE kind = 'compute'), {sums} "
        f"FROM entries WHERE {IN_CLOSED} AND kind IN ('compute', 'waste') GROUP BY 1 ORDER BY 1"
    )
    expected = []
    for (hour, requests, prices, waste, full), (bill, dead) in zip(counted, BILLS.values(), strict=True):
        factor = min(Decimal(1), (bill - dead) / (prices + waste))
        idle = bill - dead - (prices + waste) * factor
        parts = (prices * factor, waste * factor, BOOT_USD if hour == BUSY else 0, idle, dead, bill - full)
        expected.append((hour, requests, bill, *parts, prices / bill))
    columns = "hour, requests, bill_usd, used_usd, waste_usd, boot_usd, idle_usd, dead_usd, platform_usd, use"
    assert alike(query(f"SELECT {columns} FROM gpu_hours ORDER BY hour"), expected)
    times = query("SELECT sum(host_hours), sum(boot_hours), sum(dead_hours), sum(unpriced_hosts) FROM gpu_hours")
    assert alike(times, [(HOST_HOURS, BOOT_USD / 4, DEAD_HOURS, 0)])

    columns = "hour, bill_usd, requests_usd, platform_usd, difference_usd"
    found = query(f"SELECT {columns} FROM cost_reconciliation ORDER BY hour")
    shared = [(row[0], row[2], full, row[8], 0) for row, (*_, full) in zip(expected, counted, strict=True)]
    assert alike(found, shared)

    [(requests, full_usd, api)] = query(
        f"{ENTRIES} SELECT count(*), sum(full_usd), sum(api_usd) FROM entries WHERE kind = 'compute'"
    )
    platform = sum((row[8] for row in expected), Decimal())
    columns = "sum(requests), sum(full_usd), sum(platform_usd), sum(api_usd), sum(saved_usd)"
    saved = query(f"SELECT {columns} FROM savings_per_day WHERE pool = 'chat'")
    assert alike(saved, [(requests, full_usd, platform, api, api - full_usd - platform)])


def test_requests_and_batches_have_the_sums_of_their_entries(sums: UUID, query: Query) -> None:
    costs = "coalesce(sum({0}) FILTER (WHERE kind <> 'waste'), 0)"
    amounts = f"{costs.format('usd')}, {costs.format('full_usd')}, coalesce(sum(usd) FILTER (WHERE kind = 'waste'), 0)"
    tokens = ", ".join(
        f"coalesce(sum({name}_tokens) FILTER (WHERE {CHARGED}), 0)" for name in ("prompt", "cached", "output")
    )
    api = "sum(api_usd) FILTER (WHERE kind <> 'waste')"
    of_batches = "SELECT id AS job, substr(notes->>'batches', 7)::uuid AS batch_id FROM jobs"
    joined = f"FROM ({of_batches}) j LEFT JOIN entries ON job_id = job"
    columns = "usd, full_usd, waste_usd, prompt_tokens, cached_tokens, output_tokens, api_usd"
    expected = query(f"{ENTRIES} SELECT job, {amounts}, {tokens}, {api} {joined} GROUP BY 1 ORDER BY 1")
    assert alike(query(f"SELECT job_id, {columns} FROM cost_per_request ORDER BY 1"), expected)

    of_batch = f"SELECT batch_id, count(job_id), {amounts}, {tokens}, {api} {joined} WHERE batch_id = :batch"
    expected = query(f"{ENTRIES} {of_batch} GROUP BY 1", batch=sums)
    assert alike(query(f"SELECT batch_id, jobs, {columns} FROM batch_costs"), expected)
    assert query("SELECT full_usd > usd, labels FROM batch_costs") == [(True, {"team": "search"})]


def test_the_split_of_a_month_is_the_sum_of_its_hours(charged: UUID, query: Query) -> None:
    hours = query(
        "SELECT date_trunc('hour', at, 'UTC'), count(*), sum(api_usd), sum(prompt_tokens + output_tokens) "
        "FROM ledger WHERE kind IN ('compute', 'api') AND at >= :month AND at < :until GROUP BY 1 ORDER BY 1",
        month=MONTH,
        until=MONTH + timedelta(days=28),
    )
    assert [row[0] for row in hours] == [*BILLS, OPEN]
    load, at_api, tokens = (sum(column) for column in list(zip(*hours, strict=True))[1:])
    served = 3600 / (tokens / load)
    usd_per_hour = sum(bill for bill, _ in BILLS.values()) / HOST_HOURS
    names = "load_factor, api_price_factor, hosts, own_share, hosts_usd, api_usd, is_cheapest"
    found = query(f"SELECT {names} FROM split_options WHERE month = :month ORDER BY 1, 2, 3", month=MONTH)
    expected = []
    for factor, price in ((0.5, 1), (1, 0.5), (1, 1), (1, 2), (2, 1)):
        options = []
        for number in range(ceil(max(row[1] for row in hours) * factor / served) + 1):
            own = sum(min(float(row[1]) * factor, number * float(served)) for row in hours)
            left_usd = (float(load) * factor - own) * float(at_api / load) * price
            options.append(
                (factor, price, number, own / float(load) / factor, number * float(usd_per_hour) * 4, left_usd)
            )
        cheapest = min(options, key=lambda row: row[4] + row[5])
        expected += [(*row, row is cheapest) for row in options]
    assert alike(found, expected)


def test_the_pace_of_a_budget_is_what_was_spent_since_its_start(charged: UUID, query: Query, app: App) -> None:
    query("UPDATE apps SET day_usd = 100 WHERE id = :app", app=app.id)
    names = "app, period, limit_usd, spent_usd, reserved_usd, used, usd_per_day, projected_usd, used_up_at"
    rates = "spent_usd * 86400 / greatest(extract(epoch FROM now() - date_trunc('day', now(), 'UTC')), 1)"
    rows = f"SELECT 'test', period, 100, spent_usd, reserved_usd, spent_usd / 100, {rates}, {rates}, NULL FROM budgets"
    # Both in one transaction, so that it is the same moment.
    found = query(f"SELECT {names} FROM budget_run_rate UNION ALL {rows}")
    assert alike(found[:1], found[1:])


def test_a_month_that_cost_nothing_has_its_users_and_no_elasticity(query: Query, store: Store, app: App) -> None:
    usage = {"app_id": app.id, "pool": "chat", "kind": "cache", "usd": 0}
    with store.begin() as db:
        for user in ("user-0", "user-1"):
            db.execute(sa.insert(ledger).values(**usage, at=MONTH, end_user=user))
    found = query("SELECT month, app, users, requests, full_usd, usd_per_user, elasticity FROM cost_per_user_month")
    assert found == [(MONTH, "test", 2, 2, 0, 0, None)]


def test_routing_counts_the_jobs_of_a_rule_their_escalations_and_shadows(
    charged: UUID, query: Query, store: Store, queued: Callable[..., Ticket]
) -> None:
    [(wasted,)] = query("SELECT job_id FROM attempts WHERE number = 2")
    [(paid,)] = query("SELECT job_id FROM ledger WHERE kind = 'adjustment'")
    shadow = queued().job_id
    query("UPDATE jobs SET rule = 'short', metadata = '{\"task\": \"t\"}' WHERE id IN (:a, :b)", a=wasted, b=paid)
    query("UPDATE jobs SET shadow_of = :paid, shadow = 'agrees' WHERE id = :id", paid=paid, id=shadow)
    query(
        "UPDATE attempts SET escalated_by = CASE number WHEN 1 THEN 'length' ELSE 'format' END WHERE job_id = :id",
        id=wasted,
    )
    with store.begin() as db:
        cost = {"pool": "chat", "job_id": shadow, "usd": Decimal("0.07"), "reason": "shadow"}
        db.execute(sa.insert(ledger).values(kind="waste", **cost))
    [(usd, waste)] = query(
        "SELECT sum(usd) FILTER (WHERE kind <> 'waste'), sum(usd) FILTER (WHERE kind = 'waste') FROM ledger "
        "WHERE job_id IN (:a, :b)",
        a=wasted,
        b=paid,
    )
    assert (usd, waste) == (Decimal("0.0004"), Decimal("0.9"))
    counts = "jobs, succeeded, cached, escalated, by_length, by_format, by_refusal, by_logprob, kept, compared, agreed"
    found = query(f"SELECT rule, task, usd, waste_usd, shadow_usd, agreement, {counts} FROM routing_per_day")
    assert found == [("short", "t", usd, waste, Decimal("0.07"), 1, 2, 1, 0, 1, 1, 1, 0, 0, 0, 1, 1)]
