"""What this control process has counted since its start, for Prometheus."""

import time
from collections.abc import Iterator, Mapping, Sequence

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from headrace.domain.fleet import EndedJobs, QueueSample, TimedJobs
from headrace.domain.queues import parts_of
from headrace.metrics import Counts, Durations
from headrace.store.reuse.figures import ServedJobs
from scheduler.sweeper import Outcome, Sweep

#: The upper bounds of the buckets of waits and runs, in seconds.
BOUNDS_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 86_400.0)
QUEUE = ("pool", "lane")


class Tallies(Collector):
    """Counts with labels of few values. Each control process counts what it did itself, so that their counts add up.

    Of jobs it counts what its own observations saw: each interval is observed by one process.

    Attributes:
        calls: of the providers of hosts, by pool and outcome: `answered` or `failed`.
        decisions: of the autoscaler, by pool and action.
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
        self._accepted = Counts("headrace_jobs_accepted", "Jobs accepted into the queue.", QUEUE)
        self._spilled = Counts("headrace_jobs_spilled", "Jobs of the queue that went to the paid API.", QUEUE)
        self._refused = Counts("headrace_jobs_refused", "Jobs refused because the queue lacked room or time.", QUEUE)
        self._waits = Durations("headrace_job_wait_seconds", "From acceptance to the first start.", QUEUE, BOUNDS_S)
        self._runs = Durations("headrace_job_run_seconds", "From the first start to the end.", QUEUE, BOUNDS_S)
        self._ended = Counts("headrace_jobs_ended", "Jobs by how they ended.", (*QUEUE, "state", "error_code"))
        self._sweeps = Counts("headrace_sweep_runs", "Runs of sweeps.", ("sweep", "outcome"))
        self._every_s: dict[str, float] = {}
        self._swept_at: dict[str, float] = {}

    def note_observed(
        self, samples: Sequence[QueueSample], waits: Sequence[TimedJobs], ends: Sequence[EndedJobs]
    ) -> None:
        """Count what one observation found. Call it after its commit."""
        for sample in samples:
            queue = parts_of(sample.queue)
            self._accepted.add(*queue, count=sample.arrivals)
            self._spilled.add(*queue, count=sample.spilled)
            self._refused.add(*queue, count=sample.refused)
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

    def note_sweep(self, sweep: Sweep, outcome: Outcome) -> None:
        """Count a run of a sweep."""
        self._sweeps.add(sweep.name, outcome)
        self._every_s[sweep.name] = sweep.every_s
        if outcome == "done":
            self._swept_at[sweep.name] = time.time()

    def collect(self) -> Iterator[Metric]:
        """Every metric. Asks no server."""
        for counts in (self.calls, self.decisions, self._accepted, self._spilled, self._refused):
            yield from counts.collect()
        for counts in (self.compared, self._served, self._saved):
            yield from counts.collect()
        for each in (self._waits, self._runs, self._ended, self._sweeps):
            yield from each.collect()
        about = "When the sweep last came to its end, since 1970."
        yield _by_sweep("headrace_sweep_done_timestamp_seconds", about, self._swept_at)
        yield _by_sweep("headrace_sweep_interval_seconds", "From one run of the sweep to the next.", self._every_s)


def _by_sweep(name: str, about: str, values: Mapping[str, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, about, labels=["sweep"])
    for sweep, value in sorted(dict(values).items()):
        family.add_metric([sweep], value)
    return family
