"""A control process's Prometheus metrics: the hosts, what is wanted of them, and the calls of their provider."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from headrace.errors import StoreUnavailable
from headrace.store.fleet import decisions, presence
from scheduler.deps import ControlDeps


@dataclass(eq=False, slots=True)
class ScalingMetrics(Collector):
    """Reads every value at the scrape. Hosts are absent without Postgres. Safe for many threads."""

    deps: ControlDeps

    def describe(self) -> Iterator[Metric]:
        """Describe the metrics without a query to Postgres."""
        yield self._calls()

    def collect(self) -> Iterator[Metric]:
        """The calls of this process; then the hosts, which every control process reports alike."""
        calls = self._calls()
        for (pool, outcome), count in sorted(self.deps.calls.snapshot().items()):
            calls.add_metric([pool, outcome], count)
        yield calls
        with suppress(StoreUnavailable):
            yield from self._hosts()

    def _hosts(self) -> Iterator[Metric]:
        pools = self.deps.settings.own_pools
        with self.deps.store.begin() as db:
            counts, newest = presence.count_hosts(db), decisions.targets(db, pools)
        hosts = GaugeMetricFamily("headrace_hosts", "Hosts of a pool by their state.", labels=["pool", "state"])
        for pool in pools:
            for state, count in (asdict(counts[pool]) if pool in counts else {}).items():
                hosts.add_metric([pool, state], count)
        wanted = GaugeMetricFamily("headrace_hosts_wanted", "Hosts that the last decision wants.", labels=["pool"])
        for pool, target in sorted(newest.items()):
            wanted.add_metric([pool], target)
        yield from (hosts, wanted)

    def _calls(self) -> CounterMetricFamily:
        about = "Calls of the provider of a pool's hosts, by outcome."
        return CounterMetricFamily("headrace_provider_calls", about, labels=["pool", "outcome"])
