"""A control process's Prometheus metrics of hosts: how many there are, what is wanted, and what lasts."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from headrace.errors import StoreUnavailable
from headrace.store.fleet import alerts, decisions, presence
from scheduler.deps import ControlDeps


@dataclass(eq=False, slots=True)
class ScalingMetrics(Collector):
    """Reads every value from Postgres at the scrape: every control process reports the same. Safe for many threads."""

    deps: ControlDeps

    def describe(self) -> Iterator[Metric]:
        """Describe the metrics without a query to Postgres."""
        yield from (_hosts(), _wanted(), _alerts())

    def collect(self) -> Iterator[Metric]:
        """Every metric; without samples while Postgres is away."""
        hosts, wanted, lasting = _hosts(), _wanted(), _alerts()
        with suppress(StoreUnavailable):
            pools = self.deps.settings.own_pools
            with self.deps.store.begin() as db:
                counts, newest = presence.count_hosts(db), decisions.targets(db, pools)
                told = alerts.told(db)
            for pool in pools:
                for state, count in (asdict(counts[pool]) if pool in counts else {}).items():
                    hosts.add_metric([pool, state], count)
            for pool, target in sorted(newest.items()):
                wanted.add_metric([pool], target)
            for key, count in sorted(told.items()):
                lasting.add_metric(key, count)
        yield from (hosts, wanted, lasting)


def _hosts() -> GaugeMetricFamily:
    return GaugeMetricFamily("headrace_hosts", "Hosts of a pool by their state.", labels=["pool", "state"])


def _wanted() -> GaugeMetricFamily:
    return GaugeMetricFamily("headrace_hosts_wanted", "Hosts that the last decision wants.", labels=["pool"])


def _alerts() -> GaugeMetricFamily:
    about = "Conditions of a pool that the autoscaler has alerted to and that last."
    return GaugeMetricFamily("headrace_scaling_alerts", about, labels=["kind", "pool"])
