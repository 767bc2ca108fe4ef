import subprocess
import sys
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from celery import Celery

from headrace.config import PoolSettings, Settings
from headrace.config.sections import PoolLaneSettings
from headrace.domain.attempts import Outcome
from headrace.domain.ids import new_id, show_id
from headrace.domain.queues import DELIVER, EXECUTE, OVERFLOW, WEBHOOKS, Lane, lane_queues
from headrace.domain.states import JobState
from workers import app
from workers.running.worker_state import ConfinedInPool


def own_tasks(celery: Celery) -> set[str]:
    return {name for name in celery.tasks if name.startswith("headrace.")}


@pytest.mark.parametrize(
    ("celery", "queues", "tasks"),
    [
        (app.gpu, lane_queues("chat"), {EXECUTE}),
        (app.overflow, lane_queues(OVERFLOW), {EXECUTE}),
        (app.webhooks, (WEBHOOKS,), {DELIVER}),
    ],
    ids=["gpu", "overflow", "webhooks"],
)
def test_each_role_takes_from_its_queues_and_knows_its_task_alone(
    celery: Celery, queues: tuple[str, ...], tasks: set[str]
) -> None:
    assert tuple(celery.amqp.queues.consume_from) == queues
    assert own_tasks(celery) == tasks


def test_one_roles_task_is_not_another_roles() -> None:
    assert app.gpu.tasks[EXECUTE].app is app.gpu
    assert app.gpu.tasks[EXECUTE].run is not app.overflow.tasks[EXECUTE].run


def test_a_gpu_worker_takes_by_the_shares_of_its_own_pool() -> None:
    pools = {"chat": PoolSettings(), "fast": PoolSettings(lanes={Lane.LOW: PoolLaneSettings(takes=7)})}
    for pool, takes in (("fast", 7), ("chat", 1)):
        celery = app._make_gpu_app(Settings.load(pools=pools, pool=pool))
        shares = celery.conf.broker_transport_options["queue_order_strategy"].takes
        assert (tuple(celery.amqp.queues.consume_from), shares[Lane.LOW]) == (lane_queues(pool), takes)


def test_task_fails_in_the_open_while_there_is_no_engine() -> None:
    with pytest.raises(RuntimeError, match="while this process has no engine"):
        app.gpu.tasks[EXECUTE].run("job_" + "0" * 32, 1)


def test_a_worker_that_stops_runs_the_jobs_whose_threads_come_up_during_its_stop() -> None:
    ran, stops = list[tuple[UUID, int]](), list[str]()
    job_id = new_id()

    class Stopping:
        """Its last claimed job gets a thread while it stops."""

        kv_budget = None

        def __init__(self) -> None:
            state = SimpleNamespace(confined=ConfinedInPool())
            self.execute = SimpleNamespace(takes=None, expect=None, run=self.run, state=state)

        def run(self, *job: Any) -> Outcome:
            ran.append(job)
            return Outcome(JobState.SUCCEEDED)

        def start(self, _node: str) -> None: ...

        def stop(self) -> None:
            stops.append("worker")
            process.run(show_id(job_id), 1)

    taker = SimpleNamespace(open=lambda *_: None)
    process = app._EngineProcess(Stopping, taker)  # type: ignore[arg-type]
    process.start("gpu@test", lambda: 1)

    process.stop()
    process.stop()

    assert (ran, stops) == ([(job_id, 1)], ["worker"])
    with pytest.raises(RuntimeError, match="while this process has no engine"):
        process.run(show_id(job_id), 1)


def test_a_process_makes_the_app_of_its_own_role_alone() -> None:
    script = """
import workers.app
from celery.app.utils import find_app
from headrace.broker import transport
assert not workers.app._app.cache_info().currsize, "the import has made an app"
assert not transport._readable.cache_info().currsize, "the import has opened a pipe"
app = find_app("workers.app:overflow")
assert app.main == "headrace.overflow"
assert find_app("workers.app:overflow") is app
assert workers.app._app.cache_info().currsize == 1, "another role's app was made"
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True)


def test_a_role_that_is_not_there_is_an_attribute_that_is_not_there() -> None:
    with pytest.raises(AttributeError, match="no attribute 'cpu'"):
        _ = app.cpu
