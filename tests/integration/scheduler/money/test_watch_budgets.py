"""A budget that comes to a threshold is told of once: a log event, and a webhook for the operator."""

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from decimal import Decimal
from threading import Barrier
from typing import Any

import pytest
from pydantic import SecretStr

from headrace import connections
from headrace.config import BudgetSettings
from headrace.domain.apps import App
from headrace.errors import LockHeld
from headrace.policies.webhooks import new_secret
from headrace.store import Store, apps
from headrace.store.money import budgets
from scheduler.deps import ControlDeps
from scheduler.money import watch_budgets

HOOK = "https://operator.example/hook"
TOLD = "SELECT data ->> 'app', data ->> 'period', (data ->> 'threshold_percent')::int FROM deliveries ORDER BY id"
KINDS = "SELECT data ->> 'kind', (data ->> 'threshold_percent')::int FROM deliveries ORDER BY id"


@pytest.fixture
def watched(deps: ControlDeps, app: App) -> ControlDeps:
    """All apps together may spend 10 USD a day, the app `test` 5 USD a month; the operator has a webhook."""
    limits = BudgetSettings(day_usd=Decimal(10), webhook_url=HOOK, webhook_secret=SecretStr(new_secret()))
    with deps.store.begin() as db:
        apps.set_limits(db, app.name, {"month_usd": Decimal(5)})
    return replace(deps, settings=deps.settings.model_copy(update={"budgets": limits}))


@pytest.fixture
def spend(query: Any, app: App) -> Callable[..., None]:
    """Sets what is spent and reserved in each of the app's accounts and of all apps together's."""

    def change(spent: str, reserved: str = "0") -> None:
        for owner in (None, app.id):
            for period in ("day", "month"):
                query(
                    "INSERT INTO budgets (id, app_id, period, starts_at, spent_usd, reserved_usd) VALUES"
                    " (gen_random_uuid(), :owner, :period, date_trunc(:period, now(), 'UTC'), :spent, :reserved)"
                    " ON CONFLICT (app_id, period, starts_at)"
                    " DO UPDATE SET spent_usd = :spent, reserved_usd = :reserved",
                    owner=owner,
                    period=period,
                    spent=Decimal(spent),
                    reserved=Decimal(reserved),
                )

    return change


def test_each_threshold_of_each_budget_is_told_once(
    watched: ControlDeps, spend: Callable[..., None], query: Any
) -> None:
    counts = []
    for spent in ("3.99", "4", "4.9", "5", "7.99", "8", "9.99", "10", "10"):
        spend(spent)
        counts.append(watch_budgets(watched))

    assert counts == [0, 1, 0, 1, 0, 1, 0, 1, 0]
    months, days = [("test", "month", each) for each in (80, 100)], [(None, "day", each) for each in (80, 100)]
    assert query(TOLD) == months + days


def test_the_accounts_of_all_apps_keep_their_limit_for_analysts(
    watched: ControlDeps, spend: Callable[..., None], query: Any
) -> None:
    spend("1")

    watch_budgets(watched)

    limits = "SELECT period, app_id IS NULL, limit_usd FROM budgets ORDER BY 1, 2"
    assert query(limits) == [("day", False, None), ("day", True, 10), ("month", False, None), ("month", True, None)]
    [(limit_usd,)] = query("SELECT limit_usd FROM budget_run_rate WHERE app IS NULL AND period = 'day'")
    assert limit_usd == 10


def test_what_calls_under_way_may_cost_is_an_alarm_of_its_own_kind(
    watched: ControlDeps, spend: Callable[..., None], query: Any
) -> None:
    spend("2", reserved="2.5")

    assert watch_budgets(watched) == 1
    [(url, event, app_id, job_id, data)] = query("SELECT url, event, app_id, job_id, data FROM deliveries")
    assert (url, event, app_id, job_id) == (HOOK, "budget.threshold_reached", None, None)
    [(starts_at,)] = query("SELECT date_trunc('month', now(), 'UTC')")
    assert data == {
        "app": "test",
        "period": "month",
        "starts_at": starts_at.isoformat(),
        "kind": "reserved",
        "threshold_percent": 80,
        "limit_usd": "5",
        "spent_usd": "2",
        "reserved_usd": "2.5",
        "share": 0.9,
    }


def test_alarms_go_by_what_is_spent_and_the_real_end_is_told(
    watched: ControlDeps, spend: Callable[..., None], query: Any
) -> None:
    """A budget that reservations fill at 7 % spent is not told as spent; its end is, when it comes."""
    spend("0.35", reserved="4.65")
    assert watch_budgets(watched) == 2
    assert query(KINDS) == [("reserved", 80), ("reserved", 100)]

    spend("4.2")
    assert watch_budgets(watched) == 1
    spend("5")
    assert watch_budgets(watched) == 1
    assert query(KINDS)[2:] == [("spent", 80), ("spent", 100)]


def test_a_budget_that_leaps_over_both_is_told_of_twice(
    watched: ControlDeps, spend: Callable[..., None], query: Any, caplog: pytest.LogCaptureFixture
) -> None:
    spend("6")
    with caplog.at_level(logging.WARNING):
        assert watch_budgets(watched) == 2

    assert query(TOLD) == [("test", "month", 80), ("test", "month", 100)]
    logged = [record for record in caplog.records if record.message == "budget_used"]
    assert [(each.app, each.period, each.threshold_percent, each.share) for each in logged] == [  # type: ignore[attr-defined]
        ("test", "month", 80, 1.2),
        ("test", "month", 100, 1.2),
    ]


def test_a_budget_whose_last_cents_fit_no_call_is_used_up(
    watched: ControlDeps, spend: Callable[..., None], query: Any, store: Store
) -> None:
    spend("4.97")
    assert watch_budgets(watched) == 1
    with store.begin() as db:
        accounts = budgets.balances(db, BudgetSettings()).accounts
        [month] = [each for each in accounts if (each.app, each.period) == ("test", "month")]
        budgets.note_short(db, month.id, "spent")

    assert watch_budgets(watched) == 1
    assert query(TOLD) == [("test", "month", 80), ("test", "month", 100)]


def test_a_new_day_is_a_new_budget(watched: ControlDeps, spend: Callable[..., None], query: Any) -> None:
    query("UPDATE apps SET month_usd = NULL")
    spend("8")
    assert watch_budgets(watched) == 1
    query("UPDATE budgets SET starts_at = starts_at - interval '1 day' WHERE period = 'day'")
    assert watch_budgets(watched) == 0
    spend("8")
    assert watch_budgets(watched) == 1
    assert query(TOLD) == [(None, "day", 80)] * 2


def test_a_limit_that_is_raised_repeats_nothing(watched: ControlDeps, spend: Callable[..., None], query: Any) -> None:
    spend("4.5")
    assert watch_budgets(watched) == 1
    query("UPDATE apps SET month_usd = 9")
    spend("7.5")
    assert watch_budgets(watched) == 0
    query("UPDATE apps SET month_usd = 7")
    assert watch_budgets(watched) == 1


def test_without_an_address_a_threshold_is_logged_alone(
    watched: ControlDeps, spend: Callable[..., None], query: Any, caplog: pytest.LogCaptureFixture
) -> None:
    limits = watched.settings.budgets.model_copy(update={"webhook_url": None})
    deaf = replace(watched, settings=watched.settings.model_copy(update={"budgets": limits}))
    spend("4.5")
    with caplog.at_level(logging.WARNING):
        assert watch_budgets(deaf) == 1

    assert query("SELECT count(*) FROM deliveries") == [(0,)]
    assert "budget_used" in caplog.messages


def test_without_limits_nothing_is_told(deps: ControlDeps, spend: Callable[..., None]) -> None:
    spend("1000000")
    assert watch_budgets(deps) == 0


@pytest.fixture
def twins(watched: ControlDeps) -> Iterator[list[ControlDeps]]:
    """Two control processes, each with connections of its own."""
    engines = [connections.postgres(watched.settings) for _ in range(2)]
    yield [replace(watched, store=Store(engine)) for engine in engines]
    for engine in engines:
        engine.dispose()


def test_two_at_once_tell_once(twins: list[ControlDeps], spend: Callable[..., None], query: Any) -> None:
    barrier = Barrier(len(twins))

    def sweep(deps: ControlDeps) -> int:
        barrier.wait(10)
        with suppress(LockHeld):
            return watch_budgets(deps)
        return 0

    spend("20")
    with ThreadPoolExecutor(len(twins)) as threads:
        told = [sum(threads.map(sweep, twins)) for _ in range(5)]

    assert told == [4, 0, 0, 0, 0]
    assert len(set(query(TOLD))) == len(query(TOLD)) == 4


def test_a_threshold_is_noted_by_one_of_two_that_come_to_it(
    twins: list[ControlDeps], spend: Callable[..., None], query: Any
) -> None:
    spend("4.5")
    [(account_id,)] = query("SELECT id FROM budgets WHERE app_id IS NOT NULL AND period = 'month'")
    barrier = Barrier(len(twins))

    def tell(deps: ControlDeps) -> bool:
        with deps.store.begin() as db:
            barrier.wait(10)
            return budgets.tell(db, account_id, "spent", 80)

    with ThreadPoolExecutor(len(twins)) as threads:
        assert sorted(threads.map(tell, twins)) == [False, True]
