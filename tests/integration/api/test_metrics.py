"""What a web process tells Prometheus of requests that wait, stream or are refused."""

from collections.abc import Callable

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from headrace.domain.apps import App
from headrace.store import Store
from headrace.store.clients import apps
from tests.web import ApiClient, Web


@pytest.fixture
def page(web: Web) -> Callable[[], str]:
    def scrape() -> str:
        registry = CollectorRegistry()
        registry.register(web.deps.metrics)
        return generate_latest(registry).decode()

    return scrape


def test_a_long_poll_is_told_from_a_plain_read(client: ApiClient, page: Callable[[], str]) -> None:
    job = client.post("/v1/jobs", json={"prompt": "Hello?"}).get_json()
    client.get(f"/v1/jobs/{job['id']}")
    client.get(f"/v1/jobs/{job['id']}?wait=0")
    client.get(f"/v1/jobs/{job['id']}?wait=0.01")

    count = 'headrace_http_request_seconds_count{kind="%s",method="GET",route="/v1/jobs/{public_id}",status="200"} %s'
    assert count % ("plain", "2.0") in page()
    assert count % ("wait", "1.0") in page()


def test_refusals_are_counted_by_their_reason(
    client: ApiClient, store: Store, app: App, page: Callable[[], str]
) -> None:
    assert "headrace_http_refusals_total{" not in page()
    with store.begin() as db:
        apps.set_limits(db, app.name, {"queued_jobs": 0})
    statuses = [client.post("/v1/jobs", json={"prompt": "Hello?"}).status_code for _ in range(2)]

    assert statuses == [429, 429]
    assert 'headrace_http_refusals_total{reason="app_jobs"} 2.0' in page()
