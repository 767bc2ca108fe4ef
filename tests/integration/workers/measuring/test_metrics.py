"""A worker's Prometheus endpoint, over a real socket."""

import socket
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest
from prometheus_client import REGISTRY, CollectorRegistry, Gauge

from headrace.endpoint import Endpoint
from headrace.errors import ConfigError
from headrace.stack.ports import free_port
from workers.engines.base import EngineLimits, EngineStats, Progress
from workers.measuring.metrics import WorkerMetrics
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
