"""What a worker reports of an engine whose figures the test sets: rows in a real Postgres, metrics over a socket."""

import logging
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import httpx2
import pytest
import sqlalchemy as sa
from prometheus_client import REGISTRY, CollectorRegistry, Gauge

from headrace import connections
from headrace.config import Settings
from headrace.domain.attempts import Usage
from headrace.domain.fleet import PoolGpus, WorkerInfo
from headrace.domain.ids import new_id
from headrace.domain.queues import Lane
from headrace.errors import ConfigError, StoreUnavailable
from headrace.metrics import Endpoint
from headrace.stack.ports import free_port
from headrace.store import Store
from headrace.store.fleet import workers
from headrace.tables import worker_samples
from workers.engines.base import EngineLimits, EngineStats, Generation, GpuUse, Progress
from workers.measuring import Sampler, WorkerMetrics
from workers.running.worker_state import WorkerState
from workers.taking.kv_budget import KvBudget

IDLE = EngineStats(kv_use=0.0)
HOST = "127.0.0.1"


class Engine:
    """Says what it is told to."""

    def __init__(self) -> None:
        self.says = IDLE

    def stats(self) -> EngineStats:
        return self.says

    def progress(self) -> dict[str, Progress]:
        return {}


class Bench:
    """A sampler, its engine, its KV budget of ten blocks, and the time."""

    def __init__(self, store: Store) -> None:
        self.engine: Any = Engine()
        self.now = 0.0
        self.kv_budget = KvBudget(self.engine, "expected", 0.0, freed=lambda: None)
        self.kv_budget.open(EngineLimits(None, 8, kv_tokens=160, kv_block_tokens=16))
        self.sampler = Sampler(
            store, self.engine, self.kv_budget, new_id(), "chat", every_s=3600.0, clock=lambda: self.now
        )

    def rows(self, engine: sa.Engine) -> list[Any]:
        with engine.begin() as db:
            return list(db.execute(sa.select(worker_samples).order_by(worker_samples.c.id)))


@pytest.fixture
def bench(store: Store) -> Iterator[Bench]:
    made = Bench(store)
    made.sampler.begin()
    yield made
    made.sampler.end()


def test_a_sample_says_what_was_done_since_the_one_before(bench: Bench, engine: sa.Engine) -> None:
    first = replace(IDLE, running=2, waiting=1, kv_use=0.5, steps=4, kv_use_sum=1.0, running_sum=6, prompt_tokens=30)
    bench.engine.says = replace(first, output_tokens=8, first_tokens=2, first_token_s=0.5)
    assert bench.kv_budget.hold(new_id(), Lane.NORMAL, 16, 64)
    bench.now = 5.0
    bench.sampler.sample()
    bench.engine.says = replace(
        bench.engine.says, steps=6, kv_use_sum=2.5, running_sum=8, output_tokens=11, preemptions=1
    )
    bench.now = 9.0
    bench.sampler.sample()

    one, two = bench.rows(engine)
    assert (one.worker_id, one.pool, one.interval_s) == (bench.sampler.worker_id, "chat", 5.0)
    assert (one.running, one.waiting, one.steps, one.kv_use, one.kv_reserved) == (1.5, 1, 4, 0.25, 0.5)
    assert (one.prompt_tokens, one.output_tokens, one.preemptions, one.first_token_s) == (30, 8, 0, 0.25)
    assert (two.interval_s, two.running, two.steps, two.kv_use) == (4.0, 1.0, 2, 0.75)
    assert (two.prompt_tokens, two.output_tokens, two.preemptions, two.first_token_s) == (0, 3, 1, None)
    assert two.taken_at > one.taken_at


def test_without_a_step_there_is_no_mean_of_the_cache_and_what_runs_is_what_runs_now(
    bench: Bench, engine: sa.Engine
) -> None:
    bench.engine.says = replace(IDLE, running=3, kv_use=0.5)
    bench.sampler.sample()
    [row] = bench.rows(engine)
    assert (row.running, row.steps, row.kv_use, row.kv_reserved, row.first_token_s) == (3.0, 0, None, 0.0, None)


def test_an_engine_without_a_cache_of_its_own_has_no_share_of_it(bench: Bench, engine: sa.Engine) -> None:
    bench.sampler.kv_budget = KvBudget(bench.engine, "expected", 0.0, freed=lambda: None)
    bench.engine.says = EngineStats(running=1, steps=2, running_sum=2)
    bench.sampler.sample()
    [row] = bench.rows(engine)
    assert (row.running, row.kv_use, row.kv_reserved) == (1.0, None, None)


def test_gpus_are_in_the_samples_and_added_up_by_pool(bench: Bench, engine: sa.Engine) -> None:
    bench.sampler.sample()
    with engine.begin() as db:
        assert workers.gpus(db) == {}
    bench.engine.says = replace(IDLE, gpus=GpuUse(0.8, 0.5, 300.0))
    bench.sampler.sample()
    bench.sampler.worker_id = new_id()
    bench.engine.says = replace(IDLE, gpus=GpuUse(0.4, None, 100.0))
    bench.sampler.sample()

    assert [(row.gpu_use, row.gpu_memory, row.gpu_watts) for row in bench.rows(engine)] == [
        (None, None, None),
        (0.8, 0.5, 300.0),
        (0.4, None, 100.0),
    ]
    with engine.begin() as db:
        assert workers.gpus(db) == {"chat": PoolGpus(pytest.approx(0.6), 0.5, 400.0)}


def test_what_an_outage_swallowed_is_in_the_next_sample(bench: Bench, engine: sa.Engine, settings: Settings) -> None:
    whole, down = bench.sampler.store, settings.model_copy(update={"database_url": "postgresql://h@127.0.0.1:1/h"})
    bench.sampler.store = Store(connections.postgres(down))
    bench.engine.says = replace(IDLE, output_tokens=5)
    bench.now = 5.0
    with pytest.raises(StoreUnavailable):
        bench.sampler.sample()
    bench.sampler.store.close()
    bench.sampler.store = whole
    bench.engine.says = replace(IDLE, output_tokens=7)
    bench.now = 10.0
    bench.sampler.sample()
    [row] = bench.rows(engine)
    assert (row.interval_s, row.output_tokens) == (10.0, 7)


def test_the_end_writes_what_is_left_and_an_outage_is_logged(
    bench: Bench, engine: sa.Engine, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    bench.engine.says = replace(IDLE, output_tokens=5)
    bench.sampler.end()
    bench.sampler.end()
    [row] = bench.rows(engine)
    assert row.output_tokens == 5

    down = settings.model_copy(update={"database_url": "postgresql://h@127.0.0.1:1/h"})
    other = Bench(Store(connections.postgres(down)))
    other.sampler.begin()
    with caplog.at_level(logging.WARNING):
        other.sampler.end()
    assert "sample_not_written" in caplog.text
    other.sampler.store.close()


def test_a_fault_ends_no_thread_and_an_end_before_the_beginning_does_nothing(
    store: Store, engine: sa.Engine, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(store)
    bench.sampler.end()
    assert bench.rows(engine) == []

    bench = Bench(store)
    bench.sampler.every_s = 0.005
    bench.sampler.begin()
    bench.engine.says = None
    wait_until(lambda: "sample_fault" in caplog.text)
    bench.engine.says = IDLE
    wait_until(lambda: bench.rows(engine))
    bench.sampler.end()


def wait_until(condition: Callable[[], object]) -> None:
    give_up_at = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < give_up_at


def test_a_worker_says_how_long_its_answers_get(bench: Bench, store: Store) -> None:
    worker = WorkerInfo(bench.sampler.worker_id, "gpu@test", "host-1", "chat", "simulator", "m", 8, 2048, 160, 16)
    with store.begin() as db:
        workers.register(db, worker, 600)
    for _ in range(100):
        job = new_id()
        assert bench.kv_budget.hold(job, Lane.LOW, 16, 64)
        bench.kv_budget.release(job, Generation("text", Usage(16, 24), "stop", "m"))

    bench.sampler.sample()

    with store.begin() as db:
        told = workers.expected_outputs(db)["chat"]
        assert set(told) == {Lane.LOW}
        assert told[Lane.LOW].within(1024) == pytest.approx(28, rel=0.4), "24, in steps of 8, and a little doubt"
        workers.retire(db, worker.id)
        assert workers.expected_outputs(db) == {}


@pytest.fixture
def serve() -> Iterator[Callable[..., Endpoint]]:
    """Begins an endpoint on a port, which ends with the test."""
    begun: list[Endpoint] = []

    def begin(port: int | None, registry: CollectorRegistry = REGISTRY) -> Endpoint:
        engine: Any = Engine()
        engine.says = EngineStats(running=3, output_tokens=200)
        budget = KvBudget(engine, "expected", 0.0, freed=lambda: None)
        budget.open(EngineLimits(None, 8))
        metrics = WorkerMetrics("chat", engine, budget, WorkerState())
        endpoint = Endpoint([metrics], HOST, port, registry)
        endpoint.start()
        begun.append(endpoint)
        return endpoint

    yield begin
    for endpoint in begun:
        endpoint.stop()


def scrape(port: int) -> str:
    answer = httpx2.get(f"http://{HOST}:{port}/metrics")
    assert answer.status_code == 200
    return answer.text


def test_ours_are_beside_what_the_engine_registered_in_the_same_process(serve: Callable[..., Endpoint]) -> None:
    theirs = Gauge("vllm:test_only", "Registered as vLLM registers its own.")
    try:
        port = free_port()
        serve(port)
        text = scrape(port)
    finally:
        REGISTRY.unregister(theirs)
    assert 'headrace_output_tokens_total{pool="chat"} 200.0' in text
    assert "vllm:test_only 0.0" in text


def test_a_port_that_is_taken_is_refused_with_the_setting_s_name(serve: Callable[..., Endpoint]) -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"{HOST}:{port} .*HEADRACE_METRICS_PORT.*in use") as refused:
            serve(port)
    assert refused.value.param == "metrics_port"
    serve(port)


def test_an_end_frees_the_port_and_the_names_and_can_be_repeated(serve: Callable[..., Endpoint]) -> None:
    port = free_port()
    first = serve(port)
    first.stop()
    first.stop()
    serve(port)
    assert "headrace_worker_running" in scrape(port)


def test_two_workers_of_a_host_serve_on_two_ports(serve: Callable[..., Endpoint]) -> None:
    ports = [free_port() for _ in range(2)]
    for port in ports:
        serve(port, CollectorRegistry(auto_describe=True))
    assert all("headrace_worker_running" in scrape(port) for port in ports)


def test_without_a_port_nothing_is_served(serve: Callable[..., Endpoint]) -> None:
    serve(None)
    assert REGISTRY.get_sample_value("headrace_worker_running", {"pool": "chat"}) is None
