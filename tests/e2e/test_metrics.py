"""What the processes of a whole system tell Prometheus: every metric that is used or documented, each in one place."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest

from headrace.config import PROJECT_ROOT
from tests.contracts.conftest import StandIn
from tests.monitoring import alerts, charts, families, metrics_of


@pytest.fixture(scope="module")
def provider() -> Iterator[StandIn]:
    server = StandIn()
    yield server
    server.close()


@pytest.fixture(scope="module")
def system(start: Callable[..., Any], provider: StandIn) -> Any:
    return start(
        paid_api=provider.url,
        also=["plugins", "flower", "ops", "webhooks"],
        simulator__output_tokens="4",
        observe_every_s="0.2",
    )


@pytest.fixture(scope="module")
def pages(system: Any, wait_until: Callable[..., None]) -> dict[str, str]:
    """The metrics page of each process, after a job."""
    urls = system.stack.report.metrics_urls
    system.ended(system.submit())
    wait_until(lambda: "headrace_jobs_ended_total{" in httpx2.get(urls["control"]).text, "the job is observed")
    unseen = "headrace_control_unseen_seconds{"
    wait_until(lambda: unseen in httpx2.get(urls["gpu"]).text, "the worker looks for control")
    return {name: httpx2.get(url).raise_for_status().text for name, url in urls.items()}


def own(page: str) -> set[str]:
    """Our metrics on a page."""
    return {name for name in families(page) if name.startswith("headrace_")}


def test_every_metric_of_charts_and_alerts_is_served(pages: dict[str, str]) -> None:
    served = set().union(*map(families, pages.values()))
    for query in charts():
        assert metrics_of(query.text) <= served, query.chart
    for rule in alerts():
        assert metrics_of(rule["expr"]) <= served, rule["alert"]


def test_the_page_on_metrics_lists_every_one_that_is_served(pages: dict[str, str]) -> None:
    text = (PROJECT_ROOT / "docs" / "metrics.md").read_text()
    listed = set(re.findall(r"`(headrace_\w+)`", text))
    served = {name for page in pages.values() for name in own(page)}
    missing = {name for name in served if name not in listed and re.sub("_(bucket|sum|count)$", "", name) not in listed}
    assert missing == set()


def test_no_metric_is_served_by_two_kinds_of_processes(pages: dict[str, str]) -> None:
    # Both are workers, each with a pool of its own as the label.
    pages = {name: page for name, page in pages.items() if name != "overflow"}
    seen: dict[str, str] = {}
    for name, page in pages.items():
        for metric in own(page):
            assert seen.setdefault(metric, name) == name or metric.startswith("headrace_sweep_"), metric


def test_no_sweep_runs_in_two_kinds_of_processes(pages: dict[str, str]) -> None:
    control, batches = (
        set(re.findall(r'^headrace_sweep_interval_seconds{sweep="(\w+)"}', pages[name], re.MULTILINE))
        for name in ("control", "plugins")
    )
    assert "expire" in control
    assert "lease_batches" in batches
    assert not control & batches


def test_the_api_s_own_port_serves_no_metrics(system: Any) -> None:
    for path in ("/metrics", "/v1/metrics"):
        answer = system.http.get(path)
        assert answer.status_code == 404
        assert "headrace_" not in answer.text


def test_requests_are_counted_by_the_process_that_answers_them(system: Any) -> None:
    def counted() -> float:
        page = httpx2.get(system.stack.report.metrics_urls["web"]).text
        name = 'headrace_http_request_seconds_count{kind="plain",method="GET",route="/v1/queues",status="200"}'
        return sum(float(line.split()[-1]) for line in page.splitlines() if line.startswith(name))

    before = counted()
    for _ in range(3):
        system.http.get("/v1/queues").raise_for_status()
    assert counted() == before + 3
