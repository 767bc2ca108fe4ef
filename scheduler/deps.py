"""What the control process stands on: its servers, without any rules, and what it has counted. `app.py` wires them."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from headrace.broker.admission import Admission
from headrace.broker.rates import Pace
from headrace.config import Settings
from headrace.domain.fleet import EndedJobs, QueueSample, TimedJobs
from headrace.domain.queues import OVERFLOW, lane_queues, parts_of
from headrace.metrics import Counts, Durations
from headrace.store import Store
from headrace.store.cache.cache_figures import ServedJobs
from headrace.store.money.costs import Charged
from headrace.sweeper import SweepCounts

#: The upper bounds of the buckets of waits and runs, in seconds.
BOUNDS_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 86_400.0)
QUEUE = ("pool", "lane")
#: The most apps that metrics name. There may be thousands.
MOST_OF_APPS = 50


class Tallies(Collector):
    """What this control process has counted since its start, for Prometheus; processes add up.

    Of jobs it counts what its own observations saw: each interval is observed by one process.

    Attributes:
        calls: calls of the providers of hosts, by pool and outcome: `answered` or `failed`.
        decisions: decisions of the autoscaler, by pool and action.
        compared: answers of the semantic cache with those of jobs that ran all the same, by pool, kind and outcome:
            `right` or `wrong`.
    """

    def __init__(self) -> None:
        self.calls = Counts("headrace_provider_calls", "Calls of the provider of a pool's hosts.", ("pool", "outcome"))
        self.decisions = Counts("headrace_scaling_decisions", "Decisions of the autoscaler.", ("pool", "action"))
        about = "Answers of the semantic cache that were compared with those of jobs that ran all the same."
        self.compared = Counts("headrace_cache_comparisons", about, ("pool", "kind", "outcome"))
        about = "Jobs that were given another job's answer."
        self._served = Counts("headrace_cache_served", about, ("pool", "cache"))
        self._saved = Counts("headrace_cache_saved_usd", "What those answers have cost.", ("pool", "cache"))
        self._charged = Counts("headrace_charged_usd", "What attempts cost.", ("app", "kind"))
        self._apps = set[str]()
        self._accepted = Counts("headrace_jobs_accepted", "Jobs accepted into the queue.", QUEUE)
        self._spilled = Counts("headrace_jobs_spilled", "Jobs of the queue that went to the paid API.", QUEUE)
        self._refused = Counts("headrace_jobs_refused", "Jobs refused because the queue lacked room or time.", QUEUE)
        self._waits = Durations("headrace_job_wait_seconds", "From acceptance to the first start.", QUEUE, BOUNDS_S)
        self._runs = Durations("headrace_job_run_seconds", "From the first start to the end.", QUEUE, BOUNDS_S)
        self._ended = Counts("headrace_jobs_ended", "Jobs by how they ended.", (*QUEUE, "state", "error_code"))

    def note_observed(
        self, samples: Sequence[QueueSample], waits: Sequence[TimedJobs], ends: Sequence[EndedJobs]
    ) -> None:
        """Count what one observation found. Call it after its commit."""
        for sample in samples:
            queue = parts_of(sample.queue)
            self._accepted.add(*queue, count=sample.arrivals)
            self._spilled.add(*queue, count=sample.spilled)
            self._refused.add(*queue, count=sample.refused + sample.discounted)
        for each in waits:
            self._waits.add_many(*parts_of(each.queue), bucket=each.bucket, count=each.jobs, seconds=each.seconds)
        for ended in ends:
            queue = parts_of(ended.queue)
            self._ended.add(*queue, ended.state, ended.error_code, count=ended.jobs)
            if ended.bucket is not None:
                self._runs.add_many(*queue, bucket=ended.bucket, count=ended.jobs, seconds=ended.seconds)

    def note_served(self, served: Sequence[ServedJobs]) -> None:
        """Count the jobs that caches served, as one observation found them. Call it after its commit."""
        for each in served:
            self._served.add(each.pool, each.cache, count=each.jobs)
            self._saved.add(each.pool, each.cache, count=float(each.saved_usd))

    def note_charged(self, charged: Sequence[Charged]) -> None:
        """Count what apps were charged, as one observation found it. Call it after its commit."""
        for each in charged:
            if len(self._apps) < MOST_OF_APPS:
                self._apps.add(each.app)
            self._charged.add(each.app if each.app in self._apps else "", each.kind, count=float(each.usd))

    def collect(self) -> Iterator[Metric]:
        """Every metric. Asks no server."""
        for counts in (self.calls, self.decisions, self._accepted, self._spilled, self._refused):
            yield from counts.collect()
        for counts in (self.compared, self._served, self._saved, self._charged):
            yield from counts.collect()
        for each in (self._waits, self._runs, self._ended):
            yield from each.collect()


@dataclass(frozen=True, slots=True)
class ControlDeps:
    """The servers, each behind its own class.

    Attributes:
        tallies, sweeps: what this process has counted for its metrics.
        made_at: when these were made, at the start of the process; seconds on the monotonic clock.
    """

    settings: Settings
    store: Store
    admission: Admission
    pace: Pace
    tallies: Tallies = field(default_factory=Tallies)
    sweeps: SweepCounts = field(default_factory=SweepCounts)
    made_at: float = field(default_factory=time.monotonic)

    @property
    def queues(self) -> tuple[str, ...]:
        """Every queue that jobs wait in."""
        return tuple(queue for pool in (*self.settings.pools, OVERFLOW) for queue in lane_queues(pool))

    def tell_ended(self, job_ids: Sequence[UUID]) -> None:
        """Wake the readers of these jobs, and the workers that send their webhooks. Call it after the commit.

        If it fails, nothing is lost: readers and webhook workers look again by themselves.
        Raises: BrokerUnavailable.
        """
        if job_ids:
            self.admission.announce_ended(job_ids, has_webhooks=True, moved=job_ids)
