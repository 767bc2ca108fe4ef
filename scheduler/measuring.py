"""A control process's Prometheus metrics: queues, the servers that it reads them from, hosts, budgets,
caches and batches.
"""

from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from decimal import Decimal

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import Connection

from headrace.domain.fleet import QueueActivity
from headrace.domain.limits import share
from headrace.domain.queues import Lane, parts_of
from headrace.errors import BrokerUnavailable, StoreUnavailable
from headrace.policies.health import processes_of
from headrace.store import Glance, clock
from headrace.store.cache import cache_figures
from headrace.store.fleet import decisions, observations, processes, status, workers
from headrace.store.money import budgets
from headrace.store.money.host_hours import HostTerms, bills_so_far
from scheduler.deps import MOST_OF_APPS, ControlDeps
from scheduler.hooks import of_plugins

QUEUE = ("pool", "lane")
IDLE = QueueActivity()
HOUR = timedelta(hours=1)


@dataclass(eq=False, slots=True)
class QueueMetrics(Collector):
    """Queues and servers: every value is read from Redis and Postgres at the scrape.

    Every control process reports the same. The samples of `observe` are not used, so that the metrics are right while
    it does not run.
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
            is_up = yield from self._jobs()
            up.add_metric(["postgres"], is_up)
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

    def _jobs(self) -> Generator[Metric, None, bool]:
        """Returns: whether Postgres answers: also where another session does not let it read a table."""
        with self.deps.store.read() as db:
            glance = Glance(db)
            found = glance.read("jobs", self._activity, dict[str, QueueActivity]())
            observed_at = glance.read("samples", lambda db: observations.last_sample_at(db, clock.now(db)), None)
            blockers = status.blockers(db)
        about = "Sessions of Postgres that hold locks for long which others wait for."
        yield GaugeMetricFamily("headrace_postgres_blockers", about, len(blockers))
        about = "How long the oldest job in the queue has waited; 0 for an empty queue."
        oldest = GaugeMetricFamily("headrace_queue_oldest_wait_seconds", about, labels=QUEUE)
        running = GaugeMetricFamily("headrace_jobs_running", "Jobs of the queue that run.", labels=QUEUE)
        for queue, activity in found.items():
            oldest.add_metric(parts_of(queue), activity.oldest_wait_s)
            running.add_metric(parts_of(queue), activity.running)
        yield from (oldest, running)
        if observed_at is not None:
            about = "When the queues were last sampled, since 1970."
            yield GaugeMetricFamily("headrace_observed_timestamp_seconds", about, observed_at.timestamp())
        return bool(blockers) or not glance.unread

    def _activity(self, db: Connection) -> dict[str, QueueActivity]:
        found = observations.present(db, self.deps.queues)
        return {queue: found.get(queue, IDLE) for queue in self.deps.queues}


def _up() -> GaugeMetricFamily:
    return GaugeMetricFamily("headrace_server_up", "1 if the server answered this scrape.", labels=["server"])


#: The gauges of `StoreMetrics`: name, meaning and labels.
STORE_GAUGES = (
    ("headrace_hosts", "Hosts of a pool by their state.", ("pool", "state")),
    ("headrace_processes", "Processes by their own signs of life: live, lost or stopped.", ("kind", "state")),
    ("headrace_hosts_wanted", "Hosts that the last decision wants.", ("pool",)),
    ("headrace_hosts_usd_per_hour", "What a pool's hosts with a price cost in the last hour.", ("pool",)),
    (
        "headrace_scaling_alerts",
        "Conditions of a pool that the autoscaler has alerted to and that last.",
        ("kind", "pool"),
    ),
    (
        "headrace_budget_used_ratio",
        "Share of a budget that is spent and reserved; without an app, of all apps together.",
        ("app", "period"),
    ),
    (
        "headrace_budget_used_up",
        "1 if nothing is left of a budget, or too little for a call that was refused in its period; else 0.",
        ("app", "period"),
    ),
    ("headrace_cache_entries", "Entries of the semantic cache.", ("pool",)),
)


def _store_gauges() -> list[GaugeMetricFamily]:
    added = (gauge for part in of_plugins() for gauge in part.gauges)
    return [GaugeMetricFamily(name, about, labels=labels) for name, about, labels in (*STORE_GAUGES, *added)]


@dataclass(eq=False, slots=True)
class StoreMetrics(Collector):
    """Hosts, alerts, budgets, caches, batches, and what plugins measure, read from Postgres at the scrape.

    Without Postgres they have no samples.
    Every control process reports the same. Safe for many threads.
    """

    deps: ControlDeps

    def describe(self) -> Iterator[Metric]:
        """Describe the metrics without a query to Postgres."""
        yield from _store_gauges()

    def collect(self) -> Iterator[Metric]:
        gauges = {each.name: each for each in _store_gauges()}
        with suppress(StoreUnavailable), self.deps.store.begin() as db:
            for name, labels, value in self._values(db):
                gauges[name].add_metric(labels, value)
        yield from gauges.values()

    def _values(self, db: Connection) -> Iterator[tuple[str, Sequence[str], float]]:
        """The name of each gauge, the values of its labels, and its own."""
        pools = self.deps.settings.own_pools
        for pool, counts in workers.count_hosts(db).items():
            if pool in pools:
                yield from (("headrace_hosts", [pool, state], count) for state, count in asdict(counts).items())
        found = Counter((each.newest.kind, each.state) for each in processes_of(processes.lives(db)))
        yield from (("headrace_processes", key, count) for key, count in sorted(found.items()))
        for pool, target in sorted(decisions.targets(db, pools).items()):
            yield "headrace_hosts_wanted", [pool], target
        now = clock.now(db)
        usd = bills_so_far(db, HostTerms.of(self.deps.settings), now - HOUR, now)
        yield from (("headrace_hosts_usd_per_hour", [pool], float(usd.get(pool, 0))) for pool in pools)
        yield from (("headrace_scaling_alerts", key, n) for key, n in sorted(decisions.alerts_told(db).items()))
        for budget, (ratio, is_used_up) in self._budgets(db).items():
            yield "headrace_budget_used_ratio", budget, float(ratio)
            yield "headrace_budget_used_up", budget, is_used_up
        yield from (("headrace_cache_entries", [pool], count) for pool, count in self._entries(db).items())
        for part in of_plugins():
            yield from part.values(db)

    def _budgets(self, db: Connection) -> dict[tuple[str, str], tuple[Decimal, bool]]:
        """Of each budget with a limit and at least one reservation in its period, the used share, and if it is used
        up.
        """
        accounts = budgets.balances(db, self.deps.settings.budgets).accounts
        used = {
            (each.app or "", each.period): (share(each.used_usd, each.limit_usd), each.is_used_up)
            for each in accounts
            if each.limit_usd is not None
        }
        # Those with the largest used share.
        fullest = sorted((key for key in used if key[0]), key=used.__getitem__, reverse=True)[:MOST_OF_APPS]
        return {key: used[key] for key in (*(key for key in used if not key[0]), *fullest)}

    def _entries(self, db: Connection) -> dict[str, int]:
        """The entries of each pool with a semantic cache. Without one, Postgres is not asked."""
        pools = [name for name, pool in self.deps.settings.pools.items() if pool.semantic_cache.pool is not None]
        found = cache_figures.entries_of_pools(db) if pools else {}
        return {pool: found.get(pool, 0) for pool in pools}
