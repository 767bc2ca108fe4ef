"""What a control process tells Prometheus of the queues, live, with and without its servers."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from headrace.broker.admission import Admission
from headrace.config.sections import PoolLaneSettings
from headrace.connections import postgres
from headrace.domain.jobs import JobSpec
from headrace.domain.places import Ask
from headrace.domain.queues import Candidate, Lane, Ticket
from headrace.store import Store
from scheduler.deps import ControlDeps
from scheduler.measuring import QueueMetrics
from scheduler.observe import observe

Serve = Callable[..., Callable[[], list[str]]]
NORMAL = 'lane="normal",pool="chat"'


def value(page: list[str], sample: str) -> float:
    [line] = [line for line in page if line.startswith(f"{sample} ")]
    return float(line.split()[-1])


def names(page: list[str]) -> set[str]:
    """The metrics that have a sample."""
    return {line.partition("{")[0].split()[0] for line in page if line.startswith("headrace_")}


def test_depth_of_a_queue_in_jobs_and_tokens(
    deps: ControlDeps, admission: Admission, make_spec: Callable[..., JobSpec], serve: Serve
) -> None:
    scrape = serve(QueueMetrics(deps))
    assert value(scrape(), f"headrace_queue_depth{{{NORMAL}}}") == 0
    for _ in range(2):
        spec = make_spec()
        candidate = Candidate("chat.normal", 10, 1000, None, "test")
        admission.reserve([Ask(spec.id, spec.app_id, 24, (candidate,), expected_tokens=12)])

    page = scrape()

    assert value(page, f"headrace_queue_depth{{{NORMAL}}}") == 2
    assert value(page, f"headrace_queue_depth_tokens{{{NORMAL}}}") == 24
    assert value(page, 'headrace_queue_depth{lane="high",pool="overflow"}') == 0


def test_oldest_wait_running_jobs_and_the_lanes_max_wait(
    deps: ControlDeps, queued: Callable[..., Ticket], age: Any, running_under: Any, serve: Serve
) -> None:
    old, _, running = (queued(max_wait_s=300) for _ in range(3))
    age(old.job_id, timedelta(seconds=70))
    running_under(running)

    page = serve(QueueMetrics(deps))()

    assert 70 <= value(page, f"headrace_queue_oldest_wait_seconds{{{NORMAL}}}") < 80
    assert value(page, 'headrace_queue_oldest_wait_seconds{lane="low",pool="chat"}') == 0
    assert value(page, f"headrace_jobs_running{{{NORMAL}}}") == 1
    assert value(page, f"headrace_lane_max_wait_seconds{{{NORMAL}}}") == 600


def test_a_pool_s_own_max_wait_is_told_of_its_queues(deps: ControlDeps, serve: Serve) -> None:
    lanes = {Lane.NORMAL: PoolLaneSettings(max_wait_s=60)}
    pools = {"chat": deps.settings.pools["chat"].model_copy(update={"lanes": lanes})}
    page = serve(QueueMetrics(replace(deps, settings=deps.settings.model_copy(update={"pools": pools}))))()

    assert value(page, f"headrace_lane_max_wait_seconds{{{NORMAL}}}") == 60
    assert value(page, 'headrace_lane_max_wait_seconds{lane="normal",pool="overflow"}') == 600


def test_when_the_queues_were_last_sampled(deps: ControlDeps, serve: Serve, query: Any) -> None:
    scrape = serve(QueueMetrics(deps))
    assert "headrace_observed_timestamp_seconds" not in names(scrape())
    observe(deps)
    [(at,)] = query("SELECT extract(epoch FROM max(at)) FROM queue_samples")
    assert value(scrape(), "headrace_observed_timestamp_seconds") == pytest.approx(float(at), abs=0.001)


def test_a_server_that_does_not_answer_is_told_and_the_other_is_read(
    deps: ControlDeps, deps_without_redis: ControlDeps, serve: Serve
) -> None:
    url = "postgresql+psycopg://nobody@127.0.0.1:1/x"
    no_postgres: Any = Store(postgres(deps.settings.model_copy(update={"database_url": url})))
    without_redis = serve(QueueMetrics(deps_without_redis))()
    without_postgres = serve(QueueMetrics(replace(deps, store=no_postgres)))()

    assert value(without_redis, 'headrace_server_up{server="redis"}') == 0
    assert value(without_redis, 'headrace_server_up{server="postgres"}') == 1
    assert "headrace_queue_oldest_wait_seconds" in names(without_redis)
    assert "headrace_queue_depth" not in names(without_redis)
    assert value(without_postgres, 'headrace_server_up{server="redis"}') == 1
    assert value(without_postgres, 'headrace_server_up{server="postgres"}') == 0
    assert "headrace_queue_depth" in names(without_postgres)
    assert "headrace_queue_oldest_wait_seconds" not in names(without_postgres)
