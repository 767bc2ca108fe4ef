"""What a control process tells Prometheus of costs: an hour of each pool's hosts, and what apps are charged."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa

from headrace.store import apps
from headrace.tables import hosts
from scheduler import deps as of_control
from scheduler.deps import ControlDeps
from scheduler.measuring import StoreMetrics
from scheduler.observe import observe

Serve = Callable[..., Callable[[], list[str]]]
Query = Callable[..., Any]


def of(scrape: Callable[[], list[str]], name: str) -> list[str]:
    return [line for line in scrape() if line.startswith(name)]


def test_what_the_hosts_of_a_pool_cost_in_the_last_hour(deps: ControlDeps, serve: Serve) -> None:
    scrape = serve(StoreMetrics(deps))
    assert of(scrape, "headrace_hosts_usd_per_hour{") == ['headrace_hosts_usd_per_hour{pool="chat"} 0.0']
    for name, usd, hours in (("ready", Decimal(2), 9), ("gone", Decimal(7), 9), ("free", None, 9)):
        began = sa.func.now() - timedelta(hours=hours)
        row = {"id": name, "pool": "chat", "usd_per_hour": usd, "requested_at": began, "ordered_at": began}
        if name == "gone":
            row |= {"ended_at": sa.func.now() - timedelta(hours=2), "end_reason": "gone"}
        with deps.store.begin() as db:
            db.execute(sa.insert(hosts).values(row))

    assert of(scrape, "headrace_hosts_usd_per_hour{") == ['headrace_hosts_usd_per_hour{pool="chat"} 2.0']


def test_charges_are_counted_once_by_app_and_kind_and_only_some_apps_have_names(
    deps: ControlDeps, serve: Serve, query: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(of_control, "MOST_OF_APPS", 2)
    deps = replace(deps, settings=deps.settings.model_copy(update={"observe_every_s": 0.001}))
    scrape = serve(deps.tallies)
    assert observe(deps)
    charges = (("shop", "compute", 1), ("shop", "api", 4), ("shop", "waste", 2), ("desk", "api", 3))
    for name, kind, usd in (*charges, ("last", "api", 0.5), ("least", "api", 0.25), ("shop", "adjustment", -9)):
        with deps.store.begin() as db:
            app_id = apps.ensure(db, name).id
        query("INSERT INTO ledger (kind, app_id, usd) VALUES (:kind, :app_id, :usd)", kind=kind, app_id=app_id, usd=usd)

    for _ in range(2):
        assert observe(deps)

    name = "headrace_charged_usd_total"
    assert of(scrape, name) == [
        f'{name}{{app="",kind="api"}} 0.75',
        f'{name}{{app="desk",kind="api"}} 3.0',
        f'{name}{{app="shop",kind="api"}} 4.0',
        f'{name}{{app="shop",kind="compute"}} 1.0',
        f'{name}{{app="shop",kind="waste"}} 2.0',
    ]
