"""Counters and histograms that a process keeps for Prometheus, from its start to its end. Safe for many threads."""

import threading
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector


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
        """The counter."""
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
        """Add one duration."""
        self.add_many(*values, bucket=bisect_left(self._bounds_s, seconds), count=1, seconds=seconds)

    def add_many(self, *values: str, bucket: int, count: int, seconds: float) -> None:
        """Add durations that are in one bucket. Args: bucket: its index in `bounds_s`. seconds: their sum."""
        with self._lock:
            self._counts[values][bucket] += count
            self._seconds[values] += seconds

    def collect(self) -> Iterator[Metric]:
        """The histogram."""
        family = HistogramMetricFamily(self._name, self._about, labels=self._labels)
        names = [*map(str, map(float, self._bounds_s)), "+Inf"]
        with self._lock:
            found = [(values, list(counts), self._seconds[values]) for values, counts in self._counts.items()]
        for values, counts, seconds in sorted(found):
            family.add_metric(values, list(zip(names, accumulate(counts), strict=True)), seconds)
        yield family
