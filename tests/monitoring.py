"""The PromQL of docker/: the charts' queries and the alerts' conditions, and the names of the metrics in them."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from headrace.config import PROJECT_ROOT

DASHBOARDS = PROJECT_ROOT / "docker" / "grafana" / "dashboards"
RULES = PROJECT_ROOT / "docker" / "prometheus" / "alerts.yaml"
#: A metric's name, and no label's value or part of a longer name.
NAME = re.compile(r"\b(?:headrace|process)_\w+")
#: What Prometheus adds to the names of a histogram's and a summary's series.
ENDINGS = {"histogram": ("_bucket", "_sum", "_count"), "summary": ("_sum", "_count")}


@dataclass(frozen=True)
class Query:
    """One query of a chart."""

    chart: str
    text: str


def charts() -> Iterator[Query]:
    """Every query of every chart."""
    for path in sorted(DASHBOARDS.glob("*.json")):
        board = json.loads(path.read_text())
        for panel in board["panels"]:
            for target in panel.get("targets", ()):
                yield Query(f"{board['title']}, {panel['title']}, {target['refId']}", target["expr"])


def alerts() -> list[dict[str, Any]]:
    """Every alert rule."""
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def metrics_of(text: str) -> set[str]:
    """The metrics that a query names."""
    return set(NAME.findall(text))


def families(page: str) -> set[str]:
    """The names under which the series of a metrics page are found, with or without samples."""
    found: set[str] = set()
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", page, re.MULTILINE):
        found |= {name + ending for ending in ENDINGS.get(kind, ("",))}
    return found
