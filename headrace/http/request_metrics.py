"""An HTTP process's Prometheus metrics of its requests."""

import re
from collections.abc import Iterator
from functools import cache
from typing import Literal

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from headrace.metrics import Counts, Durations

#: The upper bounds of the buckets. The last is the longest `wait`, by default.
BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
#: A client may send any word as the method, so others are counted as one.
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER = "other"
#: The route of a path that leads nowhere.
NO_ROUTE = "none"

#: `wait`: the request holds on until a job has ended. `stream`: its time is that to the head of the stream.
RequestKind = Literal["plain", "wait", "stream"]


class RequestMetrics(Collector):
    """Counts from the start of the process. The values of a label are bounded: routes are templates, never paths."""

    def __init__(self, prefix: str) -> None:
        """Args: prefix: of the names, so that each process has its own."""
        about = "Time from a request's head to that of its answer, by how the request is answered."
        labels = ("method", "route", "status", "kind")
        self._requests = Durations(f"{prefix}_request_seconds", about, labels, BOUNDS_S)
        self._refusals = Counts(f"{prefix}_refusals", "Refused requests, by the bound that was met.", ["reason"])

    def note(self, method: str, rule: str | None, status: int, took_s: float, *, kind: RequestKind = "plain") -> None:
        """Count an answered request. Args: rule: the route's template; None where the path leads nowhere."""
        route = NO_ROUTE if rule is None else _route(rule)
        self._requests.add(method if method in METHODS else OTHER, route, str(status), kind, seconds=took_s)

    def note_refusal(self, reason: str) -> None:
        """Count a refused request. Args: reason: the bound that was met."""
        self._refusals.add(reason)

    def collect(self) -> Iterator[Metric]:
        """Every metric. Asks no server."""
        yield from self._requests.collect()
        yield from self._refusals.collect()


@cache
def _route(rule: str) -> str:
    """The template as the reference spells it: `/v1/jobs/{public_id}`."""
    return re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule)
