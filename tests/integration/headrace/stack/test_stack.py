"""`headrace up`, the whole of it: real servers, every process of the Procfile, the simulator as its engine."""

import base64
import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner

from headrace.cli import main
from headrace.errors import StackError
from headrace.stack.stack import Stack
from headrace.stack.state_folder import StackReport
from scheduler.actuators.base import HostMachine, HostOrder
from scheduler.actuators.local import LocalActuator
from tests.waiting import until

DEADLINE_S = 60.0
PROCESSES = {"postgres", "valkey", "web", "ops", "gpu", "webhooks", "plugins", "control", "beat", "flower"}


def get(url: str, auth: str | None = None) -> int:
    host, _, path = url.removeprefix("http://").partition("/")
    connection = http.client.HTTPConnection(host, timeout=10)
    headers = {"Authorization": auth} if auth else {}
    connection.request("GET", f"/{path}", headers=headers)
    status = connection.getresponse().status
    connection.close()
    return status


def tree(root: int) -> set[int]:
    """The pids of a process and of everything below it."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[int(entry.parent.name)] = int(entry.read_text().rpartition(")")[2].split()[1])
    found, frontier = {root}, {root}
    while frontier := {pid for pid, parent in parents.items() if parent in frontier} - found:
        found |= frontier
    return found


def is_running(pid: int) -> bool:
    """True for a process that has not ended; one that was not collected yet has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def live_workers(stack: Stack) -> set[str]:
    query = "SELECT id::text FROM workers WHERE pool = 'chat' AND ready AND lease_until > now()"
    try:
        with psycopg.connect(stack.report.database_url.replace("+psycopg", "")) as db:
            return {row[0] for row in db.execute(query)}
    except psycopg.OperationalError:
        return set()


def hosts(stack: Stack) -> dict[str, str]:
    """The names of the ready workers by their hosts' ids."""
    query = "SELECT host_id, name FROM workers WHERE pool = 'chat' AND ready AND stopped_at IS NULL"
    with psycopg.connect(stack.report.database_url.replace("+psycopg", "")) as db:
        return dict(db.execute(query).fetchall())


def is_ready(stack: Stack) -> bool:
    try:
        return get(f"{stack.report.url}/readyz") == 200
    except OSError:
        return False


def make_stack(folder: Path, *options: str) -> Stack:
    return Stack(folder, ("--engine", "simulator", *options), {"OPENAI_API_KEY": ""})


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = make_stack(tmp_path_factory.mktemp("up"))
    with stack:
        yield stack


def test_everything_runs_and_the_ready_file_says_where(stack: Stack) -> None:
    report = stack.report
    assert report.pids.keys() == PROCESSES
    assert report.engine == "simulator"
    assert report.left_out == {"overflow": "OPENAI_API_KEY is not set"}
    assert get(f"{report.url}/readyz") == 200
    assert get(f"{report.url}/v1/models", f"Bearer {report.api_key}") == 200


def test_the_operators_pages_have_a_process_and_an_address_of_their_own(stack: Stack) -> None:
    report = stack.report
    assert report.pids["ops"] != report.pids["web"]
    assert get(f"{report.ops_url}/ops/login") == 200
    assert get(f"{report.url}/ops/login") == 404

    env = {"HEADRACE_STATE": str(stack.state_dir), "DATABASE_URL": None}
    create = ("operators", "create", "ada", "--role", "viewer")
    done = CliRunner().invoke(main, create, input="correct horse battery\n", env=env)
    assert f"'ada' can log in at {report.ops_url}/ops." in done.output


def test_flower_opens_with_its_password_only(stack: Stack) -> None:
    report = stack.report
    basic = base64.b64encode(report.flower_auth.encode()).decode()
    assert get(f"{report.flower_url}/workers") == 401
    assert get(f"{report.flower_url}/workers", f"Basic {basic}") == 200


def test_analysts_have_a_role_that_reads_figures_only(stack: Stack) -> None:
    assert stack.report.analyst_url is not None
    with psycopg.connect(stack.report.analyst_url) as db:
        assert db.execute("SELECT count(*) FROM cost_per_request").fetchone() == (0,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            db.execute("SELECT * FROM job_texts")


@pytest.mark.parametrize("name", ["web", "gpu", "postgres", "valkey"])
def test_a_killed_process_comes_back(stack: Stack, name: str) -> None:
    before = live_workers(stack)
    killed = stack.kill(name)
    until(lambda: stack.processes.get(name) and stack.processes[name].pid != killed, f"a new {name}")
    # The row of a killed worker stays live until its lease ends; a new one must appear beside it.
    until(lambda: live_workers(stack) - before if name == "gpu" else live_workers(stack), "a live worker")
    until(lambda: is_ready(stack), "the API is ready")


def test_a_second_stack_on_the_same_state_folder_is_refused(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = stack.state_dir
    monkeypatch.setenv("HEADRACE_STATE", str(folder))
    argv = [sys.executable, "-c", "from headrace.cli import main; main()", "up", "--engine", "simulator"]
    second = subprocess.run(argv, capture_output=True, text=True, timeout=DEADLINE_S)
    assert second.returncode == 1
    assert f"Another stack (pid {stack.pid}) uses the state folder {folder}" in second.stderr


def test_two_hosts_come_when_asked_for_and_their_workers_register_under_their_ids(tmp_path: Path) -> None:
    said: list[str] = []
    options = ("--scale", "--max-hosts", "3", "--engine", "simulator", "--without", "flower", "--without", "beat")
    with Stack(tmp_path, options, {"OPENAI_API_KEY": ""}, said.append) as stack:
        [first] = [name for name in stack.processes if name.startswith("gpu@")]
        assert [line for line in said if line.startswith(f"{first} ready")]
        assert hosts(stack) == {first.removeprefix("gpu@"): first}

        actuator = LocalActuator(tmp_path / "hosts.sock")
        actuator.order("chat", [HostOrder("h-1", "chat"), HostOrder("h-2", "chat")], actuator.machines("chat"))
        until(lambda: hosts(stack).items() >= {"h-1": "gpu@h-1", "h-2": "gpu@h-2"}.items(), "two more workers")
        assert stack.processes.keys() >= {"gpu@h-1", "gpu@h-2"}
        assert get(stack.report.metrics_urls["gpu@h-1"]) == get(stack.report.metrics_urls["gpu@h-2"]) == 200

        actuator.release("chat", [HostMachine("h-1", "h-1")])
        until(
            lambda: {each.host_id for each in actuator.machines("chat")} == {first.removeprefix("gpu@"), "h-2"}, "h-1"
        )
        assert "h-1" not in hosts(stack)
        until(lambda: "gpu@h-1" not in stack.processes, "h-1 is not reported")
        assert "gpu@h-1" not in stack.report.metrics_urls
        pids = tree(stack.pid)
        assert stack.stop() == 0
    assert not [pid for pid in pids if is_running(pid)]


def test_a_host_of_the_run_before_takes_no_place_in_the_next(tmp_path: Path) -> None:
    options = ("--scale", "--engine", "simulator", "--without", "flower", "--without", "beat", "--without", "webhooks")

    def leases(stack: Stack, state: str) -> set[str]:
        with psycopg.connect(stack.report.database_url.replace("+psycopg", "")) as db:
            return {row[0] for row in db.execute(f"SELECT id FROM hosts WHERE ended_at IS {state}")}

    with Stack(tmp_path, options, {"OPENAI_API_KEY": ""}) as stack:
        [first] = hosts(stack)
        until(lambda: leases(stack, "NULL") == {first}, "the first host has a lease")
        assert stack.stop() == 0
    with Stack(tmp_path, options, {"OPENAI_API_KEY": ""}) as stack:
        assert first in leases(stack, "NOT NULL")
        assert first not in leases(stack, "NULL")
        [second] = hosts(stack)
        until(lambda: leases(stack, "NULL") == {second}, "the second host has a lease")


def test_it_stops_with_status_0_when_told_to_while_starting(tmp_path: Path) -> None:
    pids: set[int] = set()

    def stop_at_once(line: str) -> None:
        if line.startswith("release done"):
            pids.update(tree(stack.pid))
            os.kill(stack.pid, signal.SIGTERM)

    stack = Stack(tmp_path, ("--engine", "simulator"), {"OPENAI_API_KEY": ""}, stop_at_once)
    with pytest.raises(StackError, match="headrace up ended with status 0"):
        stack.start()
    assert pids
    assert not [pid for pid in pids if is_running(pid)]


def test_a_stack_that_cannot_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="The Procfile has no nothing"):
        make_stack(tmp_path, "--without", "nothing").start()


def test_the_ready_file_is_what_the_design_says(stack: Stack) -> None:
    written = json.loads((stack.state_dir / "ready.json").read_text())
    assert StackReport(**written) == stack.report
