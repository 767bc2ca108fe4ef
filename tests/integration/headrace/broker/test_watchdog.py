"""A worker that hangs, as its supervisor sees it."""

import os
import subprocess
import sys
from pathlib import Path

from headrace.config import PROJECT_ROOT, Settings

DEADLINE_S = 60


def run(module: str, settings: Settings) -> "subprocess.CompletedProcess[str]":
    """Run this worker of the neighbouring module until it ends."""
    command = [sys.executable, "-m", "celery", "--app", module, "worker", "--without-gossip", "--without-mingle"]
    env = {
        **os.environ,  # noqa: TID251 - it is handed on whole.
        "REDIS_URL": settings.redis_url,
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), str(PROJECT_ROOT)]),
    }
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=DEADLINE_S)


def test_a_worker_whose_event_loop_hangs_ends_with_an_error_and_says_why(settings: Settings) -> None:
    done = run("stalled_worker", settings)
    assert done.returncode == os.EX_SOFTWARE
    assert "consumer_stalled" in done.stderr


def test_a_worker_whose_event_loop_hears_of_its_end_may_take_its_time(settings: Settings) -> None:
    done = run("slow_worker", settings)
    assert done.returncode == os.EX_SOFTWARE
    assert "consumer_stalled" in done.stderr
    assert "drained" in done.stderr
