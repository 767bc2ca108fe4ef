"""A real Prometheus scrapes a real system: every chart has data, and every alert can be evaluated."""

import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import psycopg
import pytest
import yaml

from headrace.stack.child import Child, Command
from headrace.stack.loopback import Receiver
from headrace.stack.ports import LOOPBACK, free_port
from headrace.stack.stack import Stack
from tests.contracts.conftest import StandIn
from tests.monitoring import RULES, alerts, charts
from tests.waiting import until

DEADLINE_S = 60.0
#: Jobs of several outcomes are submitted again until every chart has data: a rate needs two values of its counter.
CHARTS_DEADLINE_S = 240.0
#: The system here has no pool of embeddings, which a semantic cache needs. tests/e2e/test_semantic_cache.py has one,
#: and tests/integration/scheduler/test_learn.py and measuring/test_cache_metrics.py have what these charts show.
SEMANTIC = {
    "Headrace: jobs, Wrong answers by meaning, A",
    "Headrace: jobs, Entries of the semantic cache, A",
}
#: Nor has it a GPU. tests/unit/workers/test_measuring.py has what these charts show.
GPUS = {"Headrace: fleet, GPUs, A", "Headrace: fleet, GPUs, B", "Headrace: fleet, Power, A"}
STATES = {"succeeded", "failed", "cancelled", "expired"}
ENV = {
    "HEADRACE_BUDGETS__MONTH_USD": "1000",
    "HEADRACE_POOLS__CHAT__MAX_RUNNING": "1",
    "HEADRACE_POOLS__CHAT__CACHE_S": "600",
    "HEADRACE_LANES__BATCH__DEPTH_CAP": "1",
    "HEADRACE_OBSERVE_EVERY_S": "1",
    "HEADRACE_AUTOSCALE_EVERY_S": "1",
    "HEADRACE_WEBHOOKS__ALLOW_PRIVATE": "true",
    # A test freezes a process until the alert.
    "HEADRACE_HUNG_AFTER_S": "0",
}


class Prometheus:
    """The server, as it is asked for data."""

    def __init__(self, url: str) -> None:
        self._http = httpx2.Client(base_url=url, timeout=DEADLINE_S)

    def get(self, path: str, **params: str) -> Any:
        return self._http.get(f"/api/v1/{path}", params=params).raise_for_status().json()["data"]

    def is_ready(self) -> bool:
        with suppress(httpx2.TransportError):
            return self._http.get("/-/ready").status_code == 200
        return False

    def values(self, query: str) -> dict[tuple[tuple[str, str], ...], float]:
        """The present value of each series of a query, by its labels."""
        found = self.get("query", query=query)["result"]
        return {tuple(sorted(each["metric"].items())): float(each["value"][1]) for each in found}

    def close(self) -> None:
        self._http.close()


@pytest.fixture(scope="module")
def provider() -> Iterator[StandIn]:
    server = StandIn()
    yield server
    server.close()


@pytest.fixture(scope="module")
def stack(provider: StandIn, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A system whose hosts come and go, with a paid API."""
    env = ENV | {"OPENAI_API_KEY": "sk-test", "OPENAI_BASE_URL": provider.url}
    options = ("--engine", "simulator", "--scale", "--max-hosts", "1", "--without", "flower")
    with Stack(tmp_path_factory.mktemp("stack"), options, env) as made:
        check_bill(made, tmp_path_factory.mktemp("bill") / "bill.csv")
        yield made


def check_bill(stack: Stack, bill: Path) -> None:
    """Compare a bill with the ledger: it has a host that the ledger has not."""
    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    bill.write_text(f"day,host,type,hours,usd\n{yesterday},i-1,a,1,1\n")
    command = [sys.executable, "-m", "headrace", "costs", "reconcile", "--bill", str(bill)]
    env = {"PATH": os.defpath, "HEADRACE_STATE": str(stack.state_dir)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, "unknown_host" in done.stdout) == (1, True), done.stderr


@pytest.fixture(scope="module")
def prometheus(stack: Stack, prometheus_path: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Scrapes every process of the system each second, and evaluates the alert rules."""
    folder, port = tmp_path_factory.mktemp("prometheus"), free_port()
    until(lambda: any(name.startswith("gpu@") for name in stack.report.metrics_urls), "a host")
    targets = [url.removeprefix("http://").removesuffix("/metrics") for url in stack.report.metrics_urls.values()]
    configuration = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(RULES)],
        "scrape_configs": [{"job_name": "headrace", "static_configs": [{"targets": targets}]}],
    }
    file = folder / "prometheus.yaml"
    file.write_text(yaml.safe_dump(configuration))
    address = f"{LOOPBACK}:{port}"
    argv = (
        prometheus_path,
        f"--config.file={file}",
        f"--storage.tsdb.path={folder}",
        f"--web.listen-address={address}",
    )
    child = Child(Command("prometheus", argv, {"PATH": "/usr/bin"}, folder), folder / "log")
    made = Prometheus(f"http://{address}")
    try:
        child.wait_until(made.is_ready, DEADLINE_S)
        yield made
    finally:
        made.close()
        child.stop()


@pytest.fixture(scope="module")
def work(stack: Stack, provider: StandIn) -> Iterator[Callable[[], None]]:
    """Asks for jobs of several outcomes; returns once all have ended."""
    headers = {"Authorization": f"Bearer {stack.report.api_key}"}
    http = httpx2.Client(base_url=stack.report.url, headers=headers, timeout=2 * DEADLINE_S)

    def submit(**fields: Any) -> str:
        """The id of a job; empty if it was refused."""
        body = {"prompt": "What is a headrace?", "max_wait": 300, "overflow": "never", **fields}
        return str(http.post("/v1/jobs", json=body).json().get("id", ""))

    def ended(job_id: str) -> str:
        return str(http.get(f"/v1/jobs/{job_id}", params={"wait": 50}).json()["status"])

    with Receiver() as receiver:

        def ask() -> None:
            jobs = [submit(webhook=receiver.url) for _ in range(3)]
            jobs.append(submit(lane="high"))
            jobs += [submit(lane="batch") for _ in range(4)]
            jobs.append(submit(lane="low", max_wait=0.2))
            http.post(f"/v1/jobs/{submit(lane='low')}/cancel")
            http.post("/v1/responses", json={"input": "Hello?"}, headers={"Prefer": "wait=0"})
            http.get("/v1/jobs/job_unknown")
            assert httpx2.get(f"{stack.report.ops_url}/ops/login").status_code == 200
            assert httpx2.post(f"{stack.report.ops_url}/ops/login", content=b"x" * 100_000).status_code == 413
            provider.script.append((400, {"error": {"message": "no", "type": "invalid_request_error", "code": "bad"}}))
            for _ in range(2):
                ended(submit(overflow="only"))
                ended(submit(prompt="What is a cache?", temperature=0))
            for job_id in filter(None, jobs):
                ended(job_id)

        yield ask
    http.close()


def shown(query: str) -> str:
    """The query with the choices that a dashboard opens with."""
    return query.replace("$__rate_interval", "1m").replace("$pool", ".*").replace("$lane", ".*")


def test_every_chart_has_data_after_jobs_of_several_outcomes(prometheus: Prometheus, work: Callable[[], None]) -> None:
    queries = [query for query in charts() if query.chart not in SEMANTIC | GPUS]
    assert len(queries) > 50
    empty: list[str] = []

    def all_have_data() -> bool:
        work()
        empty[:] = [
            query.chart
            for query in queries
            if not any(map(math.isfinite, prometheus.values(shown(query.text)).values()))
        ]
        return not empty

    try:
        until(all_have_data, "every chart has data", CHARTS_DEADLINE_S)
    except AssertionError as error:
        raise AssertionError(f"{error}; without data: {', '.join(empty)}") from None
    ends = prometheus.values("sum by (state) (headrace_jobs_ended_total)")
    assert {dict(labels)["state"] for labels in ends} == STATES


def test_prometheus_counts_each_job_once(stack: Stack, prometheus: Prometheus, work: Callable[[], None]) -> None:
    work()

    def stored() -> dict[str, float]:
        with psycopg.connect(stack.report.database_url.replace("+psycopg", "")) as db:
            return {
                state: float(count) for state, count in db.execute(b"SELECT state, count(*) FROM jobs GROUP BY state")
            }

    def counted() -> dict[str, float]:
        ends = prometheus.values("sum by (state) (headrace_jobs_ended_total)")
        return {dict(labels)["state"]: value for labels, value in ends.items()}

    # A job may still run, because no caller waits for it.
    until(lambda: counted() == stored(), "the counts of all jobs")
    # A job that the cache served was in no queue.
    either = "sum(headrace_jobs_accepted_total) + sum(headrace_cache_served_total)"
    until(lambda: list(prometheus.values(either).values()) == [sum(stored().values())], "each job came in one way")


def test_every_alert_is_evaluated(prometheus: Prometheus) -> None:
    def rules() -> list[dict[str, Any]]:
        return [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]

    until(lambda: all(rule["health"] != "unknown" for rule in rules()), "all rules are evaluated")
    assert {rule["name"] for rule in rules()} == {rule["alert"] for rule in alerts()}
    assert {rule["name"]: rule.get("lastError") for rule in rules() if rule["health"] != "ok"} == {}


def test_a_process_that_hangs_raises_an_alert(stack: Stack, prometheus: Prometheus) -> None:
    instance = stack.report.metrics_urls["webhooks"].removeprefix("http://").removesuffix("/metrics")

    def instances() -> list[str]:
        found = prometheus.get("alerts")["alerts"]
        down = [each["labels"] for each in found if each["labels"]["alertname"] == "HeadraceProcessDown"]
        return [labels["instance"] for labels in down]

    assert instances() == []
    pid = stack.kill("webhooks", signal.SIGSTOP)
    try:
        until(lambda: instances() == [instance], "the alert")
    finally:
        os.kill(pid, signal.SIGCONT)
    until(lambda: instances() == [], "its end")
