"""A control process's Prometheus metrics of queues, and of the servers that it reads them from."""

from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from headrace.domain.fleet import QueueActivity
from headrace.domain.queues import Lane, parts_of
from headrace.errors import BrokerUnavailable, StoreUnavailable
from headrace.store import clock
from headrace.store.fleet import demand, observations
from scheduler.deps import ControlDeps

QUEUE = ("pool", "lane")
IDLE = QueueActivity()


@dataclass(eq=False, slots=True)
class QueueMetrics(Collector):
    """Reads every value from Redis and Postgres at the scrape: every control process reports the same.

    The samples of `observe` are not used, so that the metrics are right while it does not run.
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
