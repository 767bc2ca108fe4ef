"""The short soak: a minute of faults. The long one is `benchmarks/soak.py` with its own defaults; it has all kinds."""

import json
import subprocess
import sys
from pathlib import Path

from headrace.config import PROJECT_ROOT

KINDS = (
    *("kill_web", "kill_gpu", "kill_plugins", "kill_control", "freeze_gpu"),
    *("redis_kill", "redis_wiped", "redis_hang", "redis_drop", "redis_blackhole"),
    *("postgres_restart", "postgres_promoted", "postgres_locked", "postgres_drop", "postgres_blackhole"),
    *("web_drop", "provider_truncated"),
    *("control_killed_ordering", "host_dies_draining", "actuator_fails"),
)
DEADLINE_S = 600


def test_nothing_is_lost_and_nothing_done_twice_while_everything_breaks(tmp_path: Path) -> None:
    options = ["--jobs", "250", "--faults", str(len(KINDS)), "--pause", "0.3", "--outage", "2", "--seed", "3602"]
    options += [word for kind in KINDS for word in ("--kind", kind)]
    command = [sys.executable, "benchmarks/soak.py", *options, "--json", str(tmp_path / "report.json")]
    done = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=DEADLINE_S)

    assert done.returncode == 0, done.stderr[-4000:] + done.stdout
    figures = json.loads((tmp_path / "report.json").read_text())["last_line"]
    assert (figures["lost"], figures["double_effects"], figures["double_billed"]) == (0, 0, 0)
    assert (figures["succeeded_share"], figures["fewest_of_a_kind"]) == (1, 1)
    assert (figures["lines_lost"], figures["lines_twice"], figures["lines_wrong"]) == (0, 0, 0)
    assert 0 < figures["lines_answered"] < figures["lines"] == 50
    # Jobs did share attempts: else the figures of flights would be 0 whatever happens. Whether a leader is cancelled
    # before it ends is chance among so few jobs; the long soak's goals in claims.toml demand such a promotion.
    assert min(figures["shared"], figures["hits"]) > 0
