"""Readiness and metrics of a process on real servers."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from headrace.broker.admission import Admission
from headrace.domain.apps import App
from headrace.store import Store, apps
from tests.web import ApiClient, Web

CALLERS, CALLS = 16, 4


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Callable[[type, str], Counter[str]]:
    """Counts the calls of a method from now on."""
    calls = Counter[str]()

    def count(owner: type, name: str) -> Counter[str]:
        real = getattr(owner, name)

        def call(self: object) -> object:
            calls[name] += 1
            return real(self)

        monkeypatch.setattr(owner, name, call)
        return calls

    return count


def test_a_flood_of_readyz_makes_one_check(
    counted: Callable[[type, str], Counter[str]], build_web: Callable[..., Web], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = counted(Admission, "check_writable")
    monkeypatch.setattr("api.health.REPORT_TTL_S", 3600.0)
    web, another = build_web(), build_web()
    start = Barrier(CALLERS)

    def ask(_: int) -> set[int]:
        client = web.test_client()
        start.wait(30)
        return {client.get("/readyz").status_code for _ in range(CALLS)}

    with ThreadPoolExecutor(CALLERS) as threads:
        assert set.union(*threads.map(ask, range(CALLERS))) == {200}

    assert calls["check_writable"] == 1
    assert another.test_client().get("/readyz").status_code == 200, "a process's second check"
    assert calls["check_writable"] == 2


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
