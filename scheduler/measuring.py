"""A control process's Prometheus metrics: queues, the servers that it reads them from, hosts, budgets and caches."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from headrace.domain.fleet import QueueActivity
from headrace.domain.limits.budgets import share
from headrace.domain.queues import Lane, parts_of
from headrace.errors import BrokerUnavailable, StoreUnavailable
from headrace.store import clock
from headrace.store.fleet import alerts, decisions, demand, observations, presence
from headrace.store.money import budgets
from headrace.store.reuse import figures
from scheduler.deps import ControlDeps

QUEUE = ("pool", "lane")
IDLE = QueueActivity()
#: The most budgets of apps that are reported, those with the largest used share. There may be thousands of apps.
MOST_OF_APPS = 50


@dataclass(eq=False, slots=True)
class QueueMetrics(Collector):
    """Queues and servers: every value is read from Redis and Postgres at the scrape.

    Every control process reports the same. The samples of `observe` are not used, so that the metrics
    are right while it does not run.
    """

    deps: ControlDeps

    def describe(self) -> Iterator[Metric]:
        """Describe the metrics without a call of a server."""
        yield from (_up(), self._max_waits())

    def collect(self) -> Iterator[Metric]:
        """Every metric; those of a server that does not answer are absent."""
        up = _up()
        yield self._max_waits()
        try:
            yield from self._depths()
            up.add_metric(["redis"], 1)
        except BrokerUnavailable:
            up.add_metric(["redis"], 0)
        try:
            yield from self._jobs()
            up.add_metric(["postgres"], 1)
        except StoreUnavailable:
            up.add_metric(["postgres"], 0)
        yield up

    def _max_waits(self) -> GaugeMetricFamily:
        about = "The max_wait of a job in this queue that gives none."
        gauge = GaugeMetricFamily("headrace_lane_max_wait_seconds", about, labels=QUEUE)
        for pool, lane in map(parts_of, self.deps.queues):
            gauge.add_metric([pool, lane], self.deps.settings.lane(Lane(lane), pool).max_wait_s)
        return gauge

    def _depths(self) -> Iterator[Metric]:
        depth = GaugeMetricFamily("headrace_queue_depth", "Jobs that wait in the queue.", labels=QUEUE)
        tokens = GaugeMetricFamily("headrace_queue_depth_tokens", "Tokens that these will likely use.", labels=QUEUE)
        for queue, load in self.deps.admission.loads(self.deps.queues).items():
            depth.add_metric(parts_of(queue), load.jobs)
            tokens.add_metric(parts_of(queue), load.expected_tokens)
        yield from (depth, tokens)

    def _jobs(self) -> Iterator[Metric]:
        with self.deps.store.begin() as db:
            found = demand.present(db, self.deps.queues)
            observed_at = observations.last_sample_at(db, clock.now(db))
        about = "How long the oldest job in the queue has waited; 0 for an empty queue."
        oldest = GaugeMetricFamily("headrace_queue_oldest_wait_seconds", about, labels=QUEUE)
        running = GaugeMetricFamily("headrace_jobs_running", "Jobs of the queue that run.", labels=QUEUE)
        for queue in self.deps.queues:
            activity = found.get(queue, IDLE)
            oldest.add_metric(parts_of(queue), activity.oldest_wait_s)
            running.add_metric(parts_of(queue), activity.running)
        yield from (oldest, running)
        if observed_at is not None:
            about = "When the queues were last sampled, since 1970."
            yield GaugeMetricFamily("headrace_observed_timestamp_seconds", about, observed_at.timestamp())


def _up() -> GaugeMetricFamily:
    return GaugeMetricFamily("headrace_server_up", "1 if the server answered this scrape.", labels=["server"])


@dataclass(eq=False, slots=True)
class ScalingMetrics(Collector):
    """How many hosts there are, how many are wanted, and which alerts last, read from Postgres at the scrape.

    Every control process reports the same. Safe for many threads.
    """

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


@dataclass(eq=False, slots=True)
class BudgetMetrics(Collector):
    """The used share of each budget, read from Postgres at the scrape. Has no samples without Postgres."""

    deps: ControlDeps

    def describe(self) -> Iterator[Metric]:
        """Describe the metric without a query to Postgres."""
        yield self._gauge()

    def collect(self) -> Iterator[Metric]:
        """Yield one sample for each budget with a limit and at least one reservation in its period."""
        gauge = self._gauge()
        with suppress(StoreUnavailable), self.deps.store.begin() as db:
            accounts = budgets.balances(db, self.deps.settings.budgets).accounts
            used = {
                (each.app or "", each.period): share(each.used_usd, each.limit_usd)
                for each in accounts
                if each.limit_usd is not None
            }
            fullest = sorted((key for key in used if key[0]), key=lambda key: -used[key])[:MOST_OF_APPS]
            for key in (*(key for key in used if not key[0]), *fullest):
                gauge.add_metric(key, float(used[key]))
        yield gauge

    def _gauge(self) -> GaugeMetricFamily:
        about = "Share of a budget that is spent and reserved; without an app, of all apps together."
        return GaugeMetricFamily("headrace_budget_used_ratio", about, labels=["app", "period"])


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
