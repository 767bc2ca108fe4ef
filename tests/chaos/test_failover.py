"""A replica is promoted under load. The long run is `benchmarks/failover.py` with its own defaults."""

import json
import subprocess
import sys
from pathlib import Path

from headrace.config import PROJECT_ROOT

DEADLINE_S = 500
#: Of a machine that other tests share; the product's own part is some tenths of a second.
RECOVERY_S = 30


def test_nothing_is_lost_or_billed_twice_when_postgres_s_synchronous_standby_is_promoted_under_load(
    tmp_path: Path,
) -> None:
    """And an asynchronous one does lose jobs in the same death, or the death would prove nothing."""
    options = ["--server", "postgres", "--promotions", "2", "--seed", "17", "--off", "sync"]
    command = [sys.executable, "benchmarks/failover.py", *options, "--json", str(tmp_path / "report.json")]
    done = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=DEADLINE_S)

    assert done.returncode == 0, done.stderr[-4000:] + done.stdout
    figures = json.loads((tmp_path / "report.json").read_text())["last_line"]
    assert (figures["lost"], figures["double_billed"]) == (0, 0)
    assert figures["lost_without_sync"] > 0
    assert figures["pg_recovery_s"] < RECOVERY_S


def test_nothing_is_lost_or_billed_twice_when_redis_s_replica_is_promoted_by_its_sentinel_under_load(
    tmp_path: Path,
) -> None:
    options = ["--server", "redis", "--promotions", "2", "--seed", "17"]
    command = [sys.executable, "benchmarks/failover.py", *options, "--json", str(tmp_path / "report.json")]
    done = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=DEADLINE_S)

    assert done.returncode == 0, done.stderr[-4000:] + done.stdout
    figures = json.loads((tmp_path / "report.json").read_text())["last_line"]
    assert (figures["lost"], figures["double_billed"], figures["garbled"]) == (0, 0, 0)
    assert figures["streams_under_way"] > 0
    assert figures["redis_recovery_s"] < RECOVERY_S
