"""A control process that dies around an order, as it is really started: the next one orders nothing twice."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from headrace.config import PROJECT_ROOT, Settings
from headrace.stack.child import Child, Command
from headrace.startup import KILLED
from scheduler.fleet.move_hosts import FAILPOINT_INTENDED, FAILPOINT_ORDERED
from tests.contracts.providers.programs import MinimalProgram

START_TIMEOUT_S = 60.0
CALL_TIMEOUT_S = "2"


@pytest.fixture
def program(tmp_path: Path) -> MinimalProgram:
    """The operator's program."""
    return MinimalProgram(tmp_path)


@pytest.fixture
def control(settings: Settings, program: MinimalProgram, tmp_path: Path) -> Iterator[Callable[..., Child]]:
    """Starts a control worker that moves hosts; ends it with the test."""
    children: list[Child] = []
    argv = ["env", f"PROVIDER={program.folder}", *program.argv]
    (tmp_path / "headrace.toml").write_text(
        f'[scaling]\nmode = "active"\nactuator = "command"\n'
        f"[scaling.command]\nargv = {json.dumps(argv)}\ntimeout_s = {CALL_TIMEOUT_S}\n"
    )

    def run(**variables: str) -> Child:
        env = {"DATABASE_URL": settings.database_url, "REDIS_URL": settings.redis_url, "PATH": "/usr/bin:/bin"}
        env |= {"HEADRACE_CONFIG": str(tmp_path / "headrace.toml"), "HEADRACE_SWEEP_EVERY_S": "0.1", **variables}
        command = (sys.executable, "-m", "celery", "-A", "scheduler.app", "worker", "-l", "INFO")
        child = Child(Command("worker", command, env, PROJECT_ROOT), tmp_path / f"worker-{len(children)}.log")
        children.append(child)
        return child

    yield run
    for child in children:
        child.stop()


@pytest.mark.parametrize(("failpoint", "ordered"), [(FAILPOINT_INTENDED, 0), (FAILPOINT_ORDERED, 3)])
@pytest.mark.usefixtures("redis")
def test_the_next_process_completes_the_order(
    control: Callable[..., Child], program: MinimalProgram, want: Any, query: Any, failpoint: str, ordered: int
) -> None:
    ids = want(3)
    killed = control(HEADRACE_FAILPOINT=failpoint)
    assert killed.wait(START_TIMEOUT_S)
    assert (killed.poll(), len(program.live("chat"))) == (KILLED, ordered)
    assert query("SELECT count(*) FROM hosts WHERE ordered_at IS NOT NULL") == [(0,)]

    control().wait_until(lambda: query("SELECT applied_at IS NOT NULL FROM decisions") == [(True,)], START_TIMEOUT_S)
    assert program.live("chat") == {f"machine of {host_id}" for host_id in ids}
    assert query("SELECT count(*) FROM hosts WHERE ordered_at IS NOT NULL") == [(3,)]
