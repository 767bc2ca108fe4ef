"""Processes that die in the middle of work: every job still ends once, with one answer and one bill."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from headrace.domain.ids import parse_id

LEASE_S = 3
RUNNING = 8
#: A prompt with this in it kills the engine.
POISON = "hemlock"
#: The lease, a sweep of `rescue` and one of `publish_due`, the worker's restart, and room for a busy machine.
RECOVERY_S = LEASE_S + 2 + 30


@pytest.fixture(scope="module")
def system(start: Callable[..., Any]) -> Any:
    """Eight answers at once: 64 tokens, which take 4 s, where the job allows it. A drain hands back after 1 s."""
    return start(
        simulator__output_tokens="64",
        simulator__decode_tokens_per_s="16",
        pools__chat__max_running=str(RUNNING),
        lease_s=str(LEASE_S),
        drain_s="1",
        observe_every_s="0.5",
        simulator__poison=POISON,
        # One app kills the engine again and again here: what becomes of such apps is in test_confinement.py.
        confine_s="0",
    )


def test_jobs_of_a_killed_gpu_worker_run_again_after_its_restart_each_billed_once(
    system: Any, wait_until: Callable[..., None]
) -> None:
    jobs = system.submit_many(RUNNING)
    wait_until(lambda: system.count("running") == RUNNING, "all run")
    killed, killed_at = system.stack.kill("gpu"), time.monotonic()
    query = "SELECT count(*) AS jobs FROM jobs WHERE state = 'running' AND attempt = 2"
    wait_until(lambda: system.sql(query)[0]["jobs"] == RUNNING, "all run again")
    recovered_s = time.monotonic() - killed_at
    ended = system.all_ended(jobs)

    assert {(job["status"], job["attempts"]) for job in ended} == {("succeeded", 2)}
    assert system.bills(jobs) == [("compute", 2)] * RUNNING + [("waste", 1)] * RUNNING
    attempts = "SELECT number, outcome, count(DISTINCT worker_id) AS workers FROM attempts WHERE job_id = ANY(%s)"
    rows = system.sql(attempts + " GROUP BY 1, 2 ORDER BY 1", [parse_id(job) for job in jobs])
    assert [tuple(row.values()) for row in rows] == [(1, "lost", 1), (2, "succeeded", 1)]
    assert system.pid("gpu") != killed
    assert recovered_s < RECOVERY_S, f"{RUNNING} jobs ran again {recovered_s:.1f} s after the kill"


def test_a_gpu_worker_told_to_stop_hands_its_jobs_back_and_they_are_paid_once(
    system: Any, wait_until: Callable[..., None]
) -> None:
    # They run longer than the drain waits; the short ones are behind them.
    jobs = system.submit_many(RUNNING)
    wait_until(lambda: system.count("running") == RUNNING, "all run")
    jobs += system.submit_many(RUNNING, max_tokens=4)
    stopped = system.stack.kill("gpu", signal.SIGTERM)
    system.restarted("gpu", stopped)
    ended = system.all_ended(jobs)

    assert {(job["status"], job["attempts"]) for job in ended} == {("succeeded", 1)}
    assert system.paid(jobs) == [("compute", 1)] * len(jobs)
    # What the worker had produced of those it gave back is waste, at most once for each.
    wasted = system.bills(jobs)[len(jobs) :]
    assert 0 < len(wasted) <= RUNNING
    log = (system.stack.state_dir / "logs" / "up.log").read_text()
    assert "gpu ended with status 0" in log


def test_a_poison_prompt_is_found_and_fails_and_its_neighbours_succeed(
    system: Any, wait_until: Callable[..., None]
) -> None:
    worker = system.pid("gpu")
    neighbours = system.submit_many(19, max_tokens=32)
    wait_until(lambda: system.count("running") >= RUNNING, "the engine is full")
    poison = system.submit(prompt=f"A cup of {POISON}, please.", lane="high")
    ended = system.all_ended([*neighbours, poison])

    assert {(job["status"], job["attempts"]) for job in ended[:-1]} == {("succeeded", 1)}
    assert (ended[-1]["status"], ended[-1]["error"]["code"]) == ("failed", "engine_crash")
    assert system.paid(neighbours) == [("compute", 1)] * len(neighbours)
    assert {kind for kind, _ in system.bills([poison])} == {"waste"}
    assert system.pid("gpu") == worker, "the worker has started its engine again by itself"
    log = system.stack.state_dir / "logs" / "gpu.log"
    # The worker notices a death at its next renewal, which may come after the last job's end.
    wait_until(lambda: log.read_text().count("engine_dead") >= 2, "both deaths are noticed")
    assert log.read_text().count("engine_dead") == 2


def test_a_worker_whose_engine_dies_again_and_again_takes_itself_out_and_its_supervisor_sees_it(
    system: Any, wait_until: Callable[..., None]
) -> None:
    worker = system.pid("gpu")
    # One after the other: of the two crashes of each, one is explained by the job that has failed.
    ended = [system.ended(system.submit(prompt=f"{number} cups of {POISON}, please.")) for number in range(3)]
    system.restarted("gpu", worker)
    assert {(job["status"], job["error"]["code"]) for job in ended} == {("failed", "engine_crash")}
    assert "gpu ended with status 70" in (system.stack.state_dir / "logs" / "up.log").read_text()
    [row] = system.sql("SELECT stop_reason FROM workers WHERE stop_reason IS NOT NULL")
    assert "died 3 times in 10 minutes" in row["stop_reason"]


@pytest.mark.parametrize("accident", ["flush", "kill"])
def test_queued_jobs_outlive_the_loss_of_all_that_valkey_holds(
    system: Any, wait_until: Callable[..., None], accident: str
) -> None:
    jobs = system.submit_many(RUNNING, max_tokens=16) + system.submit_many(50, max_tokens=8)
    waiting = system.redis.llen("{headrace}:chat.normal")
    if accident == "flush":
        system.redis.flushall()
    else:
        system.restarted("valkey", system.stack.kill("valkey"))
    assert waiting > 30, "the jobs were not queued any more"
    ended = system.all_ended(jobs)
    assert {(job["status"], job["attempts"]) for job in ended} == {("succeeded", 1)}
    assert system.bills(jobs) == [("compute", 1)] * len(jobs)


def test_sweeps_go_on_after_the_control_process_was_killed(system: Any, wait_until: Callable[..., None]) -> None:
    busy = system.submit_many(RUNNING)
    wait_until(lambda: system.count("running") == RUNNING, "no slot is free")
    killed = system.stack.kill("control")
    late = system.submit()
    # In SQL: one that must start in half a second is refused where the wait is known, and a reader of the API would end
    # the job by itself.
    system.sql("UPDATE jobs SET start_by = now() WHERE id = %s RETURNING id", parse_id(late))
    query = "SELECT state, usd FROM jobs WHERE id = %s"
    wait_until(lambda: system.sql(query, parse_id(late))[0]["state"] == "expired", "a sweep has ended it")
    assert system.pid("control") != killed
    assert system.bills([late]) == []
    assert {job["status"] for job in system.all_ended(busy)} == {"succeeded"}


def test_ticks_go_on_after_beat_was_killed(system: Any, wait_until: Callable[..., None]) -> None:
    query = "SELECT count(DISTINCT at) AS samples FROM queue_samples"
    wait_until(lambda: system.sql(query)[0]["samples"] > 1, "queues are observed")
    system.restarted("beat", system.stack.kill("beat"))
    before = system.sql(query)[0]["samples"]
    # One tick of the old process may still have been on its way.
    wait_until(lambda: system.sql(query)[0]["samples"] > before + 2, "queues are observed again")


def test_a_job_whose_api_died_between_insert_and_publish_completes_and_a_retry_is_the_same_job(
    start: Callable[..., Any], wait_until: Callable[..., None]
) -> None:
    system = start("--without", "beat", failpoint="api.inserted", simulator__output_tokens="8")
    body = {"prompt": "Who am I?", "max_wait": 300}
    headers = {"Idempotency-Key": "order-17"}
    web = system.pid("web")
    with pytest.raises(httpx2.TransportError):
        system.http.post("/v1/jobs", json=body, headers=headers)
    system.restarted("web", web)
    wait_until(system.api_is_ready, "the API is back")
    restarted = system.pid("web")

    retried = system.http.post("/v1/jobs", json=body, headers=headers)

    assert retried.status_code == 202
    [row] = system.sql("SELECT id FROM jobs")
    assert parse_id(retried.json()["id"]) == row["id"]
    job = system.ended(retried.json()["id"])
    assert (job["status"], job["attempts"]) == ("succeeded", 1)
    assert system.bills([job["id"]]) == [("compute", 1)]
    # The failpoint is armed for every submit: the retry was none.
    assert system.pid("web") == restarted
    other = system.http.post("/v1/jobs", json={**body, "prompt": "Who are you?"}, headers=headers)
    assert (other.status_code, other.json()["error"]["code"]) == (422, "idempotency_key_reused")


def test_nothing_is_left_when_the_supervisor_is_killed_while_jobs_run(
    start: Callable[..., Any], processes: Any, wait_until: Callable[..., None], tmp_path: Path
) -> None:
    also = ["flower", "ops", "webhooks"]
    system = start(also=also, folder=tmp_path, simulator__decode_tokens_per_s="1", pools__chat__max_running="4")
    system.submit_many(4)
    wait_until(lambda: system.count("running") == 4, "all run")
    tree = processes.tree(system.stack.pid)
    assert set(system.stack.report.pids.values()) < set(tree)
    os.kill(system.stack.pid, signal.SIGKILL)
    wait_until(lambda: not processes.running(list(tree)), "nothing runs", 15)
    assert processes.of(tmp_path) == []
