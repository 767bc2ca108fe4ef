"""Counters and histograms that a process keeps for Prometheus, and the endpoint that serves them."""

import logging
import threading
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import accumulate
from wsgiref.simple_server import WSGIServer

from prometheus_client import REGISTRY, CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from headrace.errors import ConfigError

log = logging.getLogger(__name__)


class Counts(Collector):
    """A counter with labels. A combination of labels is absent until something is added to it.

    The library's own counter also exports the time of each combination's first use, which nothing here needs.
    """

    def __init__(self, name: str, about: str, labels: Sequence[str]) -> None:
        self._name, self._about, self._labels = name, about, tuple(labels)
        self._lock = threading.Lock()
        self._counts: defaultdict[tuple[str, ...], float] = defaultdict(float)

    def add(self, *values: str, count: float = 1) -> None:
        """Add to the counter with these values of its labels."""
        with self._lock:
            self._counts[values] += count

    def snapshot(self) -> dict[tuple[str, ...], float]:
        """The counts by the values of the labels."""
        with self._lock:
            return dict(self._counts)

    def collect(self) -> Iterator[Metric]:
        family = CounterMetricFamily(self._name, self._about, labels=self._labels)
        for values, count in sorted(self.snapshot().items()):
            family.add_metric(values, count)
        yield family


class Durations(Collector):
    """A histogram of seconds with labels. A combination of labels is absent until something is added to it."""

    def __init__(self, name: str, about: str, labels: Sequence[str], bounds_s: Sequence[float]) -> None:
        """Args: bounds_s: the buckets' upper bounds, ascending; the last bucket has none."""
        self._name, self._about, self._labels, self._bounds_s = name, about, tuple(labels), tuple(bounds_s)
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, ...], list[int]] = defaultdict(lambda: [0] * (len(self._bounds_s) + 1))
        self._seconds: dict[tuple[str, ...], float] = defaultdict(float)

    def add(self, *values: str, seconds: float) -> None:
        self.add_many(*values, bucket=bisect_left(self._bounds_s, seconds), count=1, seconds=seconds)

    def add_many(self, *values: str, bucket: int, count: int, seconds: float) -> None:
        """Add durations that are in one bucket. Args: bucket: its index in `bounds_s`. seconds: their sum."""
        with self._lock:
            self._counts[values][bucket] += count
            self._seconds[values] += seconds

    def snapshot(self) -> dict[tuple[str, ...], list[int]]:
        """The number of durations in each bucket, by the values of the labels."""
        with self._lock:
            return {values: list(counts) for values, counts in self._counts.items()}

    def collect(self) -> Iterator[Metric]:
        family = HistogramMetricFamily(self._name, self._about, labels=self._labels)
        names = [*map(str, map(float, self._bounds_s)), "+Inf"]
        with self._lock:
            found = [(values, list(counts), self._seconds[values]) for values, counts in self._counts.items()]
        for values, counts, seconds in sorted(found):
            family.add_metric(values, list(zip(names, accumulate(counts), strict=True)), seconds)
        yield family


class Endpoint:
    """Serves a process's metrics, and everything else in the registry, over HTTP from `start` to `stop`."""

    def __init__(
        self, collectors: Sequence[Collector], host: str, port: int | None, registry: CollectorRegistry = REGISTRY
    ):
        """Args: port: None serves nothing. registry: the default also holds vLLM's metrics."""
        self._collectors, self._host, self._port, self._registry = collectors, host, port, registry
        self._serving: tuple[WSGIServer, threading.Thread] | None = None

    def start(self) -> None:
        """Start to listen. Raises: ConfigError when the address cannot be bound."""
        if self._port is None:
            return
        try:
            self._serving = start_http_server(self._port, self._host, self._registry)
        except OSError as error:
            message = (
                f"Metrics cannot be served on {self._host}:{self._port} (HEADRACE_METRICS_HOST, HEADRACE_METRICS_PORT):"
                f" {error.strerror}. Each process of a host needs a port of its own."
            )
            raise ConfigError(message, param="metrics_port") from error
        for collector in self._collectors:
            self._registry.register(collector)
        log.info("metrics_served", extra={"host": self._host, "port": self._port})

    def stop(self) -> None:
        """Stop listening. Does nothing before `start`."""
        if self._serving is None:
            return
        (server, thread), self._serving = self._serving, None
        for collector in self._collectors:
            self._registry.unregister(collector)
        server.shutdown()
        server.server_close()
        thread.join()
