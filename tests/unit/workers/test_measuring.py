"""What a scrape finds, with an engine that says what it is told to. No socket is opened."""

from typing import Any
from uuid import UUID

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from headrace.domain.ids import new_id
from headrace.domain.queues import Lane
from workers.engines.base import EngineLimits, EngineStats, GpuUse, Progress
from workers.measuring import WorkerMetrics
from workers.running.worker_state import WorkerState
from workers.taking.kv_budget import KvBudget


class Engine:
    """Says what it is told to."""

    def __init__(self, stats: EngineStats) -> None:
        self.says = stats

    def stats(self) -> EngineStats:
        return self.says

    def progress(self) -> dict[str, Progress]:
        return {}


class Bench:
    """A worker's parts, and a registry of its own that has their metrics."""

    def __init__(self, stats: EngineStats, limits: EngineLimits) -> None:
        self.engine: Any = Engine(stats)
        self.kv_budget = KvBudget(self.engine, "expected", 0.0, freed=lambda: None)
        self.kv_budget.open(limits)
        self.state = WorkerState()
        self.registry = CollectorRegistry(auto_describe=True)
        self.unseen_s: float | None = None
        self.registry.register(
            WorkerMetrics("chat", self.engine, self.kv_budget, self.state, control_unseen_s=lambda: self.unseen_s)
        )

    def value(self, name: str) -> float | None:
        return self.registry.get_sample_value(f"headrace_{name}", {"pool": "chat"})


BUSY = EngineStats(
    running=3,
    waiting=2,
    kv_use=0.25,
    steps=70,
    prompt_tokens=100,
    output_tokens=200,
    preemptions=4,
    first_tokens=5,
    first_token_s=0.5,
)


@pytest.fixture
def bench() -> Bench:
    return Bench(BUSY, EngineLimits(None, 8, kv_tokens=160, kv_block_tokens=16))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("engine_running", 3),
        ("engine_waiting", 2),
        ("kv_used_ratio", 0.25),
        ("engine_steps_total", 70),
        ("prompt_tokens_total", 100),
        ("output_tokens_total", 200),
        ("preemptions_total", 4),
        ("first_token_seconds_count", 5),
        ("first_token_seconds_sum", 0.5),
    ],
)
def test_the_engine_is_asked_at_each_scrape(bench: Bench, name: str, value: float) -> None:
    assert bench.value(name) == value
    bench.engine.says = EngineStats(kv_use=0.0)
    assert bench.value(name) == 0


def test_what_runs_and_whether_it_takes_work(bench: Bench) -> None:
    assert (bench.value("worker_running"), bench.value("worker_ready")) == (0, 0)
    bench.state.ready.set()
    with bench.state.attempts.running("a"):
        assert (bench.value("worker_running"), bench.value("worker_ready")) == (1, 1)


def test_how_long_control_was_not_seen(bench: Bench) -> None:
    assert bench.value("control_unseen_seconds") is None
    bench.unseen_s = 90.0
    assert bench.value("control_unseen_seconds") == 90.0


def test_how_many_apps_are_confined(bench: Bench) -> None:
    assert bench.value("confined_apps") == 0
    bench.state.confined.set({UUID(int=1): None})
    assert bench.value("confined_apps") == 1


def test_a_worker_whose_host_drains_takes_no_work_and_says_so(bench: Bench) -> None:
    bench.state.ready.set()
    assert bench.value("worker_draining") == 0
    bench.state.host_drains.set()
    assert (bench.value("worker_ready"), bench.value("worker_draining")) == (0, 1)


def test_answers_that_could_not_be_checked_are_counted(bench: Bench) -> None:
    assert bench.value("unchecked_answers_total") == 0
    bench.state.unchecked.add()
    assert bench.value("unchecked_answers_total") == 1


def test_what_the_ledger_keeps_and_how_careful_it_is(bench: Bench) -> None:
    assert bench.value("kv_reserved_ratio") == 0
    assert bench.kv_budget.hold(new_id(), Lane.NORMAL, 16, 64)
    assert bench.value("kv_reserved_ratio") == 0.5
    assert bench.value("ledger_headroom") == 2.0


def test_an_engine_without_a_cache_of_its_own_has_no_share_of_it() -> None:
    bench = Bench(EngineStats(running=1), EngineLimits(None, 8))
    assert bench.value("engine_running") == 1
    for name in ("kv_used_ratio", "kv_reserved_ratio", "ledger_headroom"):
        assert bench.value(name) is None


def test_gpus_are_as_their_driver_says_and_absent_without_it(bench: Bench) -> None:
    names = ("gpu_busy_ratio", "gpu_memory_used_ratio", "gpu_watts")
    assert [bench.value(name) for name in names] == [None] * 3
    bench.engine.says = EngineStats(gpus=GpuUse(0.85, 0.9, 640.5))
    assert [bench.value(name) for name in names] == [0.85, 0.9, 640.5]


def test_the_text_is_what_prometheus_reads(bench: Bench) -> None:
    text = generate_latest(bench.registry).decode()
    assert 'headrace_output_tokens_total{pool="chat"} 200.0' in text
    assert "# TYPE headrace_first_token_seconds summary" in text
