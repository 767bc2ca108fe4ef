"""A control process's Prometheus metric of the semantic cache's entries."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from headrace.errors import StoreUnavailable
from headrace.store.reuse import figures
from scheduler.deps import ControlDeps


@dataclass(eq=False, slots=True)
class CacheMetrics(Collector):
    """The entries of each pool with a semantic cache, read from Postgres at the scrape. Has none without Postgres."""

    deps: ControlDeps

    def describe(self) -> Iterator[Metric]:
        """Describe the metric without a query to Postgres."""
        yield self._gauge()

    def collect(self) -> Iterator[Metric]:
        """Yield one sample for each such pool. Without one, Postgres is not asked."""
        gauge = self._gauge()
        pools = [name for name, pool in self.deps.settings.pools.items() if pool.semantic_cache.pool is not None]
        if pools:
            with suppress(StoreUnavailable), self.deps.store.begin() as db:
                found = figures.entries_of_pools(db)
                for pool in pools:
                    gauge.add_metric([pool], found.get(pool, 0))
        yield gauge

    def _gauge(self) -> GaugeMetricFamily:
        return GaugeMetricFamily("headrace_cache_entries", "Entries of the semantic cache.", labels=["pool"])
