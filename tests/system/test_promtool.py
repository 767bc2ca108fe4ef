"""What a process serves on its metrics port, by Prometheus's own checker: format, names, units and help texts."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from headrace.stack.stack import Stack


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    with Stack(tmp_path / "state", ("--engine", "simulator", "--without", "flower"), {"OPENAI_API_KEY": ""}) as made:
        yield made


@pytest.mark.parametrize(("name", "metric"), [("gpu", "headrace_worker_running"), ("control", "headrace_hosts{")])
def test_prometheus_reads_the_metrics_of_a_process(stack: Stack, promtool_path: str, name: str, metric: str) -> None:
    served = httpx2.get(stack.report.metrics_urls[name], timeout=30.0).raise_for_status().text
    assert metric in served

    checked = subprocess.run(
        [promtool_path, "check", "metrics"], input=served, capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
