"""How much of each budget is used, as a control process tells Prometheus."""

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from prometheus_client import CollectorRegistry, Gauge, generate_latest

from headrace.broker import overview
from headrace.broker.admission import Admission
from headrace.config import BudgetSettings
from headrace.connections import postgres
from headrace.domain.apps import App
from headrace.domain.ids import new_id
from headrace.domain.limits import Shortfall
from headrace.domain.queues import Route, Ticket
from headrace.policies.health import problems
from headrace.store import Store, apps
from headrace.store.money import budgets as budgets_of
from headrace.tables import budgets, jobs
from scheduler import measuring
from scheduler.deps import ControlDeps
from scheduler.measuring import StoreMetrics
from tests import one_attempt

Serve = Callable[..., Callable[[], list[str]]]


@pytest.fixture
def limited(deps: ControlDeps) -> ControlDeps:
    """With a budget of all apps together."""
    return replace(deps, settings=deps.settings.model_copy(update={"budgets": BudgetSettings(month_usd=Decimal(8))}))


def spend(store: Store, app: App | None, period: str, spent_usd: int) -> None:
    """Let an app spend, or all of them, and reserve a dollar more."""
    values = {"app_id": app and app.id, "period": period, "spent_usd": spent_usd, "reserved_usd": 1}
    with store.begin() as db:
        starts_at = sa.func.date_trunc(period, sa.func.now(), "UTC")
        db.execute(sa.insert(budgets).values(id=new_id(), starts_at=starts_at, **values))


def used(page: list[str]) -> set[str]:
    name = "headrace_budget_used_ratio"
    return {line.removeprefix(name) for line in page if line.startswith(f"{name}{{")}


def test_the_used_share_of_each_budget_with_a_limit(limited: ControlDeps, serve: Serve, app: App) -> None:
    scrape = serve(StoreMetrics(limited))
    before = used(scrape())
    with limited.store.begin() as db:
        apps.set_limits(db, app.name, {"day_usd": Decimal(5)})
    for owner, period in ((app, "day"), (app, "month"), (None, "month")):
        spend(limited.store, owner, period, 3)

    assert before == set()
    assert used(scrape()) == {'{app="test",period="day"} 0.8', '{app="",period="month"} 0.5'}


def test_a_budget_whose_rest_pays_for_no_call_is_used_up_to_prometheus_and_on_the_page_alike(
    deps: ControlDeps, admission: Admission, queued: Callable[..., Ticket], serve: Serve
) -> None:
    settings = deps.settings.model_copy(update={"budgets": BudgetSettings(month_usd=Decimal(12))})
    limited = replace(deps, settings=settings)

    def said() -> tuple[list[str], list[float]]:
        page = serve(StoreMetrics(limited))()
        ends = [float(line.split()[-1]) for line in page if line.startswith('headrace_budget_used_up{app="",')]
        found = problems(overview.read(deps.store, admission, settings, lambda _queue: None).facts)
        return [each.rule for each in found if "Budget" in each.rule], ends

    spend(deps.store, None, "month", 10)
    assert said() == (["HeadraceBudgetNearlyUsed"], [0])
    with deps.store.begin() as db:
        worker = one_attempt.add_worker(db, "overflow", "openai")
    ticket = queued()
    with deps.store.begin() as db:
        db.execute(sa.update(jobs).where(jobs.c.id == ticket.job_id).values(route=Route.OVERFLOW))
        claim = one_attempt.claim(db, ticket.job_id, ticket.enqueue_no, worker, "openai")
        assert claim is not None
        assert isinstance(one_attempt.reserve(db, claim, Decimal(3), settings.budgets), Shortfall)
    assert said() == (["HeadraceBudgetUsed"], [1])

    with deps.store.begin() as db:
        budgets_of.set_limits(db, {"month_usd": Decimal(20)}, settings.budgets)
    assert said() == ([], [0])


def test_of_thousands_of_apps_those_with_the_fullest_budgets_are_told(
    limited: ControlDeps, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "MOST_OF_APPS", 2)
    for number in range(5):
        with limited.store.begin() as db:
            app = apps.ensure(db, f"app-{number}")
            apps.set_limits(db, app.name, {"day_usd": Decimal(10)})
        spend(limited.store, app, "day", number)
    spend(limited.store, None, "month", 0)

    found = used(serve(StoreMetrics(limited))())

    assert found == {
        '{app="",period="month"} 0.125',
        '{app="app-4",period="day"} 0.5',
        '{app="app-3",period="day"} 0.4',
    }


def test_without_postgres_the_other_metrics_are_served(limited: ControlDeps) -> None:
    url = "postgresql+psycopg://nobody@127.0.0.1:1/x"
    away: Any = Store(postgres(limited.settings.model_copy(update={"database_url": url})))
    registry = CollectorRegistry(auto_describe=True)
    Gauge("other", "Of somebody else.", registry=registry)
    registry.register(StoreMetrics(replace(limited, store=away)))

    text = generate_latest(registry).decode()

    assert "other 0.0" in text
    assert "headrace_budget_used_ratio{" not in text
