"""A process that hangs: the supervisor notices that its signs of life are missing, and starts another."""

import signal
from collections.abc import Callable
from typing import Any

from headrace.domain.ids import parse_id

RUNNING = 4


def test_a_frozen_worker_is_replaced_and_its_jobs_end(
    start: Callable[..., Any], wait_until: Callable[..., None]
) -> None:
    system = start(
        hung_after_s="10",
        lease_s="3",
        simulator__output_tokens="64",
        simulator__decode_tokens_per_s="16",
        pools__chat__max_running=str(RUNNING),
    )
    jobs = system.submit_many(RUNNING)
    wait_until(lambda: system.count("running") == RUNNING, "all run")
    frozen = system.stack.kill("gpu", signal.SIGSTOP)
    system.restarted("gpu", frozen)

    ended = system.all_ended(jobs)
    assert {job["status"] for job in ended} == {"succeeded"}
    lost = system.sql("SELECT DISTINCT outcome FROM attempts WHERE job_id = ANY(%s)", [parse_id(job) for job in jobs])
    assert {row["outcome"] for row in lost} == {"lost", "succeeded"}
    query = "SELECT end_reason FROM processes WHERE pid = %s AND kind = 'gpu'"
    wait_until(lambda: system.sql(query, frozen)[0]["end_reason"], "the reason is noted")
    reason = system.sql(query, frozen)[0]["end_reason"]
    assert reason.startswith("It hung, and its supervisor killed it: no sign of life for ")
    log = (system.stack.state_dir / "logs" / "up.log").read_text()
    assert "gpu hangs and is killed" in log
