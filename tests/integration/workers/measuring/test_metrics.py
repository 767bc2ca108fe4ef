"""A worker's Prometheus endpoint, over a real socket."""

import socket
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import httpx2
import pytest
import sqlalchemy as sa
from prometheus_client import REGISTRY, CollectorRegistry, Gauge, generate_latest

from headrace.config import BudgetSettings, Settings
from headrace.connections import postgres
from headrace.domain.apps import App
from headrace.domain.ids import new_id
from headrace.endpoint import Endpoint
from headrace.errors import ConfigError
from headrace.stack.ports import free_port
from headrace.store import Store
from headrace.store.clients import apps
from headrace.tables import budgets
from workers.engines.base import EngineLimits, EngineStats, Progress
from workers.measuring.metrics import BudgetMetrics, WorkerMetrics
from workers.running.worker_state import WorkerState
from workers.taking.kv_budget import KvBudget

HOST = "127.0.0.1"


class Engine:
    def stats(self) -> EngineStats:
        return EngineStats(running=3, output_tokens=200)

    def progress(self) -> dict[str, Progress]:
        return {}


@pytest.fixture
def serve() -> Iterator[Callable[..., Endpoint]]:
    """Begins an endpoint on a port, which ends with the test."""
    begun: list[Endpoint] = []

    def begin(port: int | None, registry: CollectorRegistry = REGISTRY) -> Endpoint:
        engine: Any = Engine()
        budget = KvBudget(engine, "expected", 0.0, freed=lambda: None)
        budget.open(EngineLimits(None, 8))
        metrics = WorkerMetrics("chat", engine, budget, WorkerState())
        endpoint = Endpoint([metrics], HOST, port, registry)
        endpoint.start()
        begun.append(endpoint)
        return endpoint

    yield begin
    for endpoint in begun:
        endpoint.stop()


def scrape(port: int) -> str:
    answer = httpx2.get(f"http://{HOST}:{port}/metrics")
    assert answer.status_code == 200
    return answer.text


def test_ours_are_beside_what_the_engine_registered_in_the_same_process(serve: Callable[..., Endpoint]) -> None:
    theirs = Gauge("vllm:test_only", "Registered as vLLM registers its own.")
    try:
        port = free_port()
        serve(port)
        text = scrape(port)
    finally:
        REGISTRY.unregister(theirs)
    assert 'headrace_output_tokens_total{pool="chat"} 200.0' in text
    assert "vllm:test_only 0.0" in text


def test_a_port_that_is_taken_is_refused_with_the_setting_s_name(serve: Callable[..., Endpoint]) -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"{HOST}:{port} .*HEADRACE_METRICS_PORT.*in use") as refused:
            serve(port)
    assert refused.value.param == "metrics_port"
    serve(port)


def test_an_end_frees_the_port_and_the_names_and_can_be_repeated(serve: Callable[..., Endpoint]) -> None:
    port = free_port()
    first = serve(port)
    first.stop()
    first.stop()
    serve(port)
    assert "headrace_worker_running" in scrape(port)


def test_two_workers_of_a_host_serve_on_two_ports(serve: Callable[..., Endpoint]) -> None:
    ports = [free_port() for _ in range(2)]
    for port in ports:
        serve(port, CollectorRegistry(auto_describe=True))
    assert all("headrace_worker_running" in scrape(port) for port in ports)


def test_without_a_port_nothing_is_served(serve: Callable[..., Endpoint]) -> None:
    serve(None)
    assert REGISTRY.get_sample_value("headrace_worker_running", {"pool": "chat"}) is None


def test_how_much_of_each_budget_is_used_is_read_at_each_scrape(store: Store, app: App) -> None:
    port, registry = free_port(), CollectorRegistry(auto_describe=True)
    endpoint = Endpoint([BudgetMetrics(store, BudgetSettings(month_usd=Decimal(8)))], HOST, port, registry)
    endpoint.start()
    try:
        before = scrape(port)
        with store.begin() as db:
            apps.set_limits(db, app.name, {"day_usd": Decimal(5)})
            for owner, period in ((app.id, "day"), (app.id, "month"), (None, "month")):
                starts_at = sa.func.date_trunc(period, sa.func.now(), "UTC")
                values = {"app_id": owner, "period": period, "starts_at": starts_at}
                values |= {"spent_usd": Decimal(3), "reserved_usd": Decimal(1)}
                db.execute(sa.insert(budgets).values(id=new_id(), **values))
        after = scrape(port)
    finally:
        endpoint.stop()

    assert "headrace_budget_used_ratio{" not in before
    assert 'headrace_budget_used_ratio{app="test",period="day"} 0.8' in after
    assert 'headrace_budget_used_ratio{app="",period="month"} 0.5' in after
    assert after.count("headrace_budget_used_ratio{") == 2, "those with a limit"


def test_without_postgres_the_other_metrics_are_served(settings: Settings) -> None:
    away = Store(postgres(settings.model_copy(update={"database_url": "postgresql+psycopg://nobody@127.0.0.1:1/x"})))
    registry = CollectorRegistry(auto_describe=True)
    Gauge("other", "Of somebody else.", registry=registry)
    registry.register(BudgetMetrics(away, BudgetSettings(day_usd=Decimal(1))))

    text = generate_latest(registry).decode()

    assert "other 0.0" in text
    assert "headrace_budget_used_ratio{" not in text
