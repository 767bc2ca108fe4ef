"""What a control process tells Prometheus of hosts, on a real Postgres and over HTTP."""

import socket
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest
from prometheus_client import CollectorRegistry

from headrace.endpoint import Endpoint
from scheduler.deps import ControlDeps
from scheduler.metrics import ScalingMetrics

HOST = "127.0.0.1"


@pytest.fixture
def scrape(deps: ControlDeps) -> Iterator[Callable[[], list[str]]]:
    """The lines of the page that this process serves."""
    with socket.create_server((HOST, 0)) as probe:
        port = probe.getsockname()[1]
    endpoint = Endpoint([ScalingMetrics(deps)], HOST, port, CollectorRegistry())
    endpoint.start()
    yield lambda: httpx2.get(f"http://{HOST}:{port}/metrics").text.splitlines()
    endpoint.stop()


def test_hosts_by_state_and_what_is_wanted(scrape: Callable[[], list[str]], query: Any) -> None:
    query("INSERT INTO hosts (id, pool, requested_at) VALUES ('one', 'chat', now()), ('two', 'chat', now())")
    for target in (2, 5):
        query(
            "INSERT INTO decisions (pool, mode, hosts, target, reason, inputs, at)"
            " VALUES ('chat', 'active', 2, :target, '', '{}', now() + :target * interval '1 second')",
            target=target,
        )

    page = scrape()

    assert 'headrace_hosts{pool="chat",state="requested"} 2.0' in page
    assert 'headrace_hosts{pool="chat",state="ready"} 0.0' in page
    assert 'headrace_hosts_wanted{pool="chat"} 5.0' in page


def test_calls_of_the_provider_by_outcome(deps: ControlDeps, scrape: Callable[[], list[str]]) -> None:
    deps.calls.add("chat", failed=True)
    deps.calls.add("chat", failed=False)
    deps.calls.add("chat", failed=False)

    page = scrape()

    assert 'headrace_provider_calls_total{outcome="failed",pool="chat"} 1.0' in page
    assert 'headrace_provider_calls_total{outcome="answered",pool="chat"} 2.0' in page
