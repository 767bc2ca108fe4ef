"""The metrics page of a control process, over HTTP."""

from collections.abc import Callable, Iterator

import httpx2
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.registry import Collector

from headrace.metrics import Endpoint
from headrace.stack.ports import LOOPBACK, free_port


@pytest.fixture
def serve() -> Iterator[Callable[..., Callable[[], list[str]]]]:
    """Serves collectors; returns what reads the page's lines."""
    begun: list[Endpoint] = []

    def begin(*collectors: Collector) -> Callable[[], list[str]]:
        port = free_port()
        begun.append(Endpoint(collectors, LOOPBACK, port, CollectorRegistry(auto_describe=True)))
        begun[-1].start()
        return lambda: httpx2.get(f"http://{LOOPBACK}:{port}/metrics").text.splitlines()

    yield begin
    for endpoint in begun:
        endpoint.stop()
