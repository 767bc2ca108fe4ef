"""Prometheus's own checker: format, names, units and help texts of what a process serves, and the alert rules."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from headrace.stack.stack import Stack
from tests.monitoring import RULES


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    with Stack(tmp_path / "state", ("--engine", "simulator", "--without", "flower"), {"OPENAI_API_KEY": ""}) as made:
        yield made


@pytest.mark.parametrize(
    ("name", "metric"),
    [
        ("gpu", "headrace_worker_running"),
        ("webhooks", "headrace_webhook_tries_total{"),
        ("plugins", "headrace_sweep_runs_total{"),
        ("control", "headrace_hosts{"),
        ("web", "headrace_http_request_seconds_bucket{"),
        ("ops", "headrace_ops_request_seconds"),
    ],
)
def test_prometheus_reads_the_metrics_of_a_process(stack: Stack, promtool_path: str, name: str, metric: str) -> None:
    served = httpx2.get(stack.report.metrics_urls[name], timeout=30.0).raise_for_status().text
    assert metric in served

    checked = subprocess.run(
        [promtool_path, "check", "metrics"], input=served, capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "rules", "--lint=all", "--lint-fatal", RULES),
        ("check", "config", RULES.parent / "prometheus.yaml"),
        ("test", "rules", Path(__file__).parent / "alerts.test.yaml"),
    ],
)
def test_the_alert_rules_pass(promtool_path: str, arguments: tuple[object, ...]) -> None:
    checked = subprocess.run(
        [promtool_path, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
