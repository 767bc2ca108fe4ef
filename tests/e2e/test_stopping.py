"""Stopping a stack: in reverse order, with status 0, nothing left running and nothing lost."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

from headrace.config import PROJECT_ROOT

DEMO = (sys.executable, "-c", "from headrace.cli import main; main()", "demo", "--engine", "simulator")
DEMO_TIMEOUT_S = 120


def test_a_stop_ends_what_started_last_first_and_the_next_start_finishes_the_jobs(
    start: Callable[..., Any], processes: Any, wait_until: Callable[..., None], tmp_path: Path
) -> None:
    slow = {"simulator__output_tokens": "64", "pools__chat__max_running": "4", "drain_s": "1"}
    also = ["flower", "ops", "webhooks"]
    system = start(also=also, folder=tmp_path, simulator__decode_tokens_per_s="4", **slow)
    jobs = system.submit_many(4) + system.submit_many(4)
    wait_until(lambda: system.count("running") >= 4, "the engine is full")
    tree, key = processes.tree(system.stack.pid), system.stack.report.api_key

    assert system.stack.stop() == 0

    assert not processes.running(list(tree))
    assert processes.of(tmp_path) == []
    log = (tmp_path / "logs" / "up.log").read_text()
    stopped = [line.split(", ") for line in re.findall(r"^stopping (.*)$", log, re.MULTILINE)]
    assert stopped == [["flower", "beat", "control", "webhooks", "gpu", "ops", "web"], ["valkey"], ["postgres"]]
    assert "killed" not in log
    assert not (tmp_path / "stack.json").exists()

    again = start(folder=tmp_path, simulator__decode_tokens_per_s="1000", **slow)
    assert again.stack.report.api_key == key
    assert {(job["status"], job["attempts"]) for job in again.all_ended(jobs)} == {("succeeded", 1)}
    assert again.paid(jobs) == [("compute", 1)] * len(jobs)


@contextmanager
def demo(folder: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """`headrace demo` on a state folder of its own."""
    env = os.environ | {"HEADRACE_STATE": str(folder), "OPENAI_API_KEY": ""}  # noqa: TID251 - it is handed on whole.
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    # A shell's job in the background ignores Ctrl-C, and so would all that it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen([*DEMO, *options], env=env, cwd=PROJECT_ROOT, **pipes) as process:  # type: ignore[call-overload]
        try:
            yield process
        finally:
            process.kill()


def test_the_demo_ends_with_a_complete_report_and_leaves_nothing_running(processes: Any, tmp_path: Path) -> None:
    state, file = tmp_path / "state", tmp_path / "report.json"
    with demo(state, "--exit", "--json", str(file)) as process:
        said = process.communicate(timeout=DEMO_TIMEOUT_S)[0]
    assert process.returncode == 0, said
    assert processes.of(state) == []
    assert "These answers are made up" in said
    assert "go on by hand" not in said

    report = json.loads(file.read_text())
    assert (report["engine"], report["complete"]) == ("simulator", True)
    assert report["start"] == "cold"
    assert (report["paid"]["status"], report["paid"]["engine"]) == ("succeeded", "openai")
    assert Decimal(report["bills_usd"]) > 0
    assert abs(Decimal(report["ledger_usd"]) / Decimal(report["bills_usd"]) - 1) < Decimal("0.001")
    assert 0 < report["first_answer_s"] <= report["total_s"]
    assert report["webhooks_received"] == report["webhooks_verified"] == len(report["jobs"]) > 0
    assert {job["lane"] for job in report["jobs"]} == {"high", "normal", "low", "batch"}
    for job in report["jobs"]:
        assert job["id"].startswith("job_")
        assert (job["status"], job["engine"], job["model_source"]) == ("succeeded", "simulator", None)
        assert job["text"].startswith("[simulated] ")
        assert job["tokens"]["output_tokens"] > 0
        assert job["wait_s"] >= 0
        assert job["run_s"] > 0
        assert Decimal(job["usd"]) > 0


def test_the_demo_stays_up_until_ctrl_c_and_then_leaves_nothing_running(processes: Any, tmp_path: Path) -> None:
    with demo(tmp_path) as process:
        assert process.stdout is not None
        assert any("Everything stays up" in line for line in process.stdout)
        # Servers and Procfile, so that an empty list below says something.
        assert len(processes.of(tmp_path)) >= 8
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=DEMO_TIMEOUT_S)[0]
    assert process.returncode == 0, said
    assert processes.of(tmp_path) == []
