"""What a worker reports of itself: samples to Postgres, metrics to Prometheus.

vLLM registers its own metrics in the same process.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from uuid import UUID

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import Connection

from headrace.domain.fleet import WorkerSample
from headrace.errors import PayloadTooNew, PayloadUnreadable, StoreUnavailable
from headrace.policies.answers import ExpectedOutputs
from headrace.store import Store, deliveries
from headrace.store.fleet import observations, workers
from workers.delivering.deliver import DeliverySlots
from workers.engines.base import Engine, EngineStats
from workers.running.worker_state import WorkerState
from workers.taking.kv_budget import KvBudget

log = logging.getLogger(__name__)

#: Seconds that `end` waits for the last sample. A worker that stops while Postgres hangs loses that sample.
END_TIMEOUT_S = 5.0


@dataclass(slots=True)
class Sampler:
    """Samples one worker's engine until `end`.

    Attributes: also: what else is done in the transaction of each sample.
    """

    store: Store
    engine: Engine
    kv_budget: KvBudget
    worker_id: UUID
    pool: str
    every_s: float
    clock: Callable[[], float] = time.monotonic
    also: Callable[[Connection], None] = lambda _: None
    _ended: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    _before: EngineStats = field(default_factory=EngineStats)
    _since: float = 0.0
    _outputs: ExpectedOutputs | None = None

    def begin(self) -> None:
        """Start sampling; the first interval begins now."""
        self._before, self._since = self.engine.stats(), self.clock()
        self._thread = threading.Thread(target=self._sample_until_ended, name="sampler", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Stop after a last sample, so that a short-lived worker has one too. Does nothing before `begin`."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(END_TIMEOUT_S)

    def _sample_until_ended(self) -> None:
        while not self._ended.wait(self.every_s):
            self._try_to_sample()
        self._try_to_sample()

    def _try_to_sample(self) -> None:
        try:
            self.sample()
        except StoreUnavailable as error:
            log.warning("sample_not_written", extra={"worker_id": str(self.worker_id), "error": str(error)})
        except Exception:
            # A fault here must not end the thread: the worker would write no more samples.
            log.exception("sample_fault", extra={"worker_id": str(self.worker_id)})

    def sample(self) -> None:
        """Write one sample. After an outage the next sample covers the gap with a longer interval.

        Raises: StoreUnavailable.
        """
        stats, now, reserved = self.engine.stats(), self.clock(), self.kv_budget.reserved()
        with self.store.begin() as db:
            kv_reserved = None if reserved is None else reserved.share
            sample = self._sample_to(stats, now - self._since, kv_reserved)
            observations.add_worker_sample(db, sample)
            outputs = self.kv_budget.expected_outputs()
            if outputs and outputs != self._outputs:
                workers.learn(db, self.worker_id, outputs)
            self.also(db)
        self._before, self._since, self._outputs = stats, now, outputs

    def _sample_to(self, after: EngineStats, interval_s: float, kv_reserved: float | None) -> WorkerSample:
        """The sample of the engine's work since the last one."""
        before = self._before
        steps, first_tokens = after.steps - before.steps, after.first_tokens - before.first_tokens
        return WorkerSample(
            worker_id=self.worker_id,
            pool=self.pool,
            interval_s=interval_s,
            running=(after.running_sum - before.running_sum) / steps if steps else after.running,
            waiting=after.waiting,
            steps=steps,
            kv_use=(after.kv_use_sum - before.kv_use_sum) / steps if steps and after.kv_use is not None else None,
            kv_reserved=kv_reserved,
            prompt_tokens=after.prompt_tokens - before.prompt_tokens,
            output_tokens=after.output_tokens - before.output_tokens,
            preemptions=after.preemptions - before.preemptions,
            first_token_s=(after.first_token_s - before.first_token_s) / first_tokens if first_tokens else None,
            gpu_use=after.gpus.busy,
            gpu_memory=after.gpus.memory,
            gpu_watts=after.gpus.watts,
        )


@dataclass(eq=False, slots=True)
class WorkerMetrics(Collector):
    """Reads every value at the scrape. Safe for many threads."""

    pool: str
    engine: Engine
    kv_budget: KvBudget
    state: WorkerState
    control_unseen_s: Callable[[], float | None] = lambda: None

    def collect(self) -> Iterator[Metric]:
        """Every metric, each with the pool as its label."""
        yield self._gauge("worker_running", "Attempts that this worker runs.", len(self.state.attempts))
        yield self._gauge("worker_ready", "1 while the worker takes jobs.", self.state.takes())
        yield self._gauge("worker_draining", "1 while the worker's host drains.", self.state.host_drains.is_set())
        if (unseen_s := self.control_unseen_s()) is not None:
            about = "Since a control process last showed itself, as of the last 10 s."
            yield self._gauge("control_unseen_seconds", about, unseen_s)
        about = "Answers of a cascade whose JSON could not be checked, and passed."
        yield self._counter("unchecked_answers", about, self.state.unchecked.snapshot().get((), 0))
        about = "Apps whose jobs of this pool run one at a time, because their prompts killed engines."
        yield self._gauge("confined_apps", about, len(self.state.confined))
        yield self._unread()
        yield from self._of_engine(self.engine.stats())
        if (reserved := self.kv_budget.reserved()) is not None:
            about = "Share of the KV blocks that the jobs are expected to take at their peak, head-room included."
            yield self._gauge("kv_reserved_ratio", about, reserved.share)
            about = "Standard deviations of KV cache that are left free; learned from preemptions."
            yield self._gauge("ledger_headroom", about, reserved.headroom)

    def _unread(self) -> Metric:
        about = "Claimed jobs whose prompts this release does not read: written by a newer one, or malformed."
        metric = CounterMetricFamily("headrace_payloads_unread", about, labels=["pool", "code"])
        counts = self.state.unread.snapshot()
        for code in (PayloadTooNew.code, PayloadUnreadable.code):
            metric.add_metric([self.pool, code], counts.get((code,), 0))
        return metric

    def _of_engine(self, stats: EngineStats) -> Iterator[Metric]:
        yield self._gauge("engine_running", "Requests in the engine's batch.", stats.running)
        yield self._gauge("engine_waiting", "Requests that the engine has and does not run.", stats.waiting)
        yield self._gauge("kv_used_ratio", "Share of the KV blocks that are in use.", stats.kv_use)
        gpus = stats.gpus
        yield self._gauge("gpu_busy_ratio", "Share of the time in which the engine's GPUs ran a kernel.", gpus.busy)
        yield self._gauge(
            "gpu_memory_used_ratio", "Share of the memory of the engine's GPUs that is taken.", gpus.memory
        )
        yield self._gauge("gpu_watts", "Power of the engine's GPUs.", gpus.watts)
        yield self._counter("engine_steps", "Steps of the whole batch.", stats.steps)
        yield self._counter("prompt_tokens", "Prompt tokens read, cached ones included.", stats.prompt_tokens)
        yield self._counter("output_tokens", "Tokens made.", stats.output_tokens)
        yield self._counter("preemptions", "Requests whose KV blocks were taken away.", stats.preemptions)
        first_token = SummaryMetricFamily(
            "headrace_first_token_seconds",
            "Time from a request's arrival in the engine to its first token.",
            labels=["pool"],
        )
        first_token.add_metric([self.pool], stats.first_tokens, stats.first_token_s)
        yield first_token

    def _gauge(self, name: str, about: str, value: float | None) -> Metric:
        """Args: value: None: it has no sample."""
        metric = GaugeMetricFamily(f"headrace_{name}", about, labels=["pool"])
        if value is not None:
            metric.add_metric([self.pool], value)
        return metric

    def _counter(self, name: str, about: str, value: float) -> Metric:
        metric = CounterMetricFamily(f"headrace_{name}", about, labels=["pool"])
        metric.add_metric([self.pool], value)
        return metric


#: Due deliveries are counted up to this number, because the count reads each row.
MOST_COUNTED = 10_000
OUTCOMES = ("delivered", "failed", "given_up")


@dataclass(eq=False, slots=True)
class DeliveryMetrics(Collector):
    """Reads every value at the scrape. Due deliveries are absent without Postgres. Safe for many threads."""

    store: Store
    slots: DeliverySlots
    _tries: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, outcome: str) -> None:
        """Count a try by its outcome, one of `OUTCOMES`."""
        with self._lock:
            self._tries[outcome] += 1

    def describe(self) -> Iterator[Metric]:
        """Describe the metrics without a query to Postgres."""
        yield CounterMetricFamily("headrace_webhook_tries", "Tries, by how they ended.")

    def collect(self) -> Iterator[Metric]:
        """Every metric."""
        about = "Tries by outcome: `failed` is tried again, `given_up` was the last, or needed no try."
        tries = CounterMetricFamily("headrace_webhook_tries", about, labels=["outcome"])
        with self._lock:
            for outcome in OUTCOMES:
                tries.add_metric([outcome], self._tries[outcome])
        yield tries
        in_hand = sum(self.slots.held().of_receiver.values())
        yield GaugeMetricFamily("headrace_webhooks_running", "Tries in hand, slots held.", in_hand)
        with suppress(StoreUnavailable), self.store.begin() as db:
            number, late_s = deliveries.oldest_due(db, MOST_COUNTED)
            yield GaugeMetricFamily("headrace_webhooks_due", f"Deliveries due, up to {MOST_COUNTED:,}.", number)
            yield GaugeMetricFamily(
                "headrace_webhooks_late_seconds", "How long the first of them has been due.", late_s
            )
