"""The dashboards are what their code makes, each alert is tested, and both use metrics that docs/metrics.md lists."""

import re
import subprocess
import sys
from pathlib import Path

import yaml

from headrace.config import PROJECT_ROOT
from tests.monitoring import DASHBOARDS, ENDINGS, alerts, charts, metrics_of

#: Metrics of the library's own collectors.
LIBRARY = {"process_cpu_seconds_total", "process_resident_memory_bytes"}


def documented() -> set[str]:
    page = (PROJECT_ROOT / "docs" / "metrics.md").read_text()
    return set(re.findall(r"`(headrace_\w+)`", page))


def test_the_files_are_what_the_code_makes(tmp_path: Path) -> None:
    script = PROJECT_ROOT / "docker" / "grafana" / "dashboards.py"
    subprocess.run([sys.executable, script, tmp_path], check=True, cwd="/")

    made = {path.name: path.read_text() for path in tmp_path.iterdir()}

    assert len(made) == 3
    assert made == {path.name: path.read_text() for path in DASHBOARDS.glob("*.json")}, f"run {script}"


def test_charts_and_alerts_use_metrics_that_the_page_lists() -> None:
    used = {
        name
        for text in [*(query.text for query in charts()), *(rule["expr"] for rule in alerts())]
        for name in metrics_of(text)
    }
    listed = documented()
    listed |= {name + ending for name in listed for ending in ENDINGS["histogram"]}

    assert len(used) > 40
    assert used - listed == LIBRARY


def test_every_listed_metric_is_in_a_chart() -> None:
    shown = {name for query in charts() for name in metrics_of(query.text)}
    shown |= {name.removesuffix(ending) for name in shown for ending in ENDINGS["histogram"]}

    assert documented() - shown == {"headrace_scaling_alerts"}


def test_each_alert_fires_in_one_test_and_is_silent_in_another() -> None:
    text = (PROJECT_ROOT / "tests" / "system" / "alerts.test.yaml").read_text()
    cases = [case for each in yaml.safe_load(text)["tests"] for case in each["alert_rule_test"]]
    tested = {(case["alertname"], bool(case["exp_alerts"])) for case in cases}

    assert tested == {(rule["alert"], fires) for rule in alerts() for fires in (True, False)}


def test_each_alert_says_how_bad_it_is_and_what_to_look_at() -> None:
    for rule in alerts():
        assert rule["labels"]["severity"] in ("warning", "critical"), rule["alert"]
        assert set(rule["annotations"]) == {"summary", "description"}, rule["alert"]
