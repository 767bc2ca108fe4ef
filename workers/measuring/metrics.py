"""A worker's Prometheus metrics, beside those that vLLM registers in the same process."""

from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.registry import Collector

from headrace.errors import PayloadTooNew, PayloadUnreadable
from workers.engines.base import Engine, EngineStats
from workers.running.worker_state import WorkerState
from workers.taking.kv_budget import KvBudget


@dataclass(eq=False, slots=True)
class WorkerMetrics(Collector):
    """Reads every value at the scrape. Safe for many threads."""

    pool: str
    engine: Engine
    kv_budget: KvBudget
    state: WorkerState

    def collect(self) -> Iterator[Metric]:
        """Every metric, each with the pool as its label."""
        yield self._gauge("worker_running", "Attempts that this worker runs.", len(self.state.attempts))
        yield self._gauge("worker_ready", "1 while the worker takes jobs.", self.state.takes())
        yield self._gauge("worker_draining", "1 while the worker's host drains.", self.state.host_drains.is_set())
        about = "Answers of a cascade whose JSON could not be checked, and passed."
        yield self._counter("unchecked_answers", about, self.state.unchecked.total)
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
        if stats.kv_use is not None:
            yield self._gauge("kv_used_ratio", "Share of the KV blocks that are in use.", stats.kv_use)
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

    def _gauge(self, name: str, about: str, value: float) -> Metric:
        metric = GaugeMetricFamily(f"headrace_{name}", about, labels=["pool"])
        metric.add_metric([self.pool], value)
        return metric

    def _counter(self, name: str, about: str, value: float) -> Metric:
        metric = CounterMetricFamily(f"headrace_{name}", about, labels=["pool"])
        metric.add_metric([self.pool], value)
        return metric
