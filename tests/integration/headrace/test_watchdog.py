"""A worker that hangs, as its supervisor sees it."""

import os
import subprocess
import sys
from pathlib import Path

from headrace.config import PROJECT_ROOT, Settings

DEADLINE_S = 30


def test_a_worker_whose_event_loop_hangs_ends_with_an_error_and_says_why(settings: Settings) -> None:
    command = [sys.executable, "-m", "celery", "--app", "stalled_worker", "worker", "--without-gossip"]
    env = {
        **os.environ,  # noqa: TID251 - it is handed on whole.
        "REDIS_URL": settings.redis_url,
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), str(PROJECT_ROOT)]),
    }
    done = subprocess.run([*command, "--without-mingle"], env=env, capture_output=True, text=True, timeout=DEADLINE_S)

    assert done.returncode == os.EX_SOFTWARE
    assert "consumer_stalled" in done.stderr
