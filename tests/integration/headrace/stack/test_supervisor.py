"""The supervisor, with small real processes: order, restarts, and that nothing is ever left running."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headrace.stack.watchdog import GRACE_S
from tests.waiting import until

DEADLINE_S = 20.0

#: A supervisor over the services that a test describes. It prints each line it says, and its pids on each change.
SUPERVISE = """
import json, os, signal, sys
from pathlib import Path
from headrace.errors import StackError
from headrace.stack.child import Command
from headrace.stack.state_folder import state_lock
from headrace.stack import supervisor as of_stack
from headrace.stack.services import Service
from headrace.stack.supervisor import Supervisor

of_stack.STILL_S = 0.2
folder = Path(sys.argv[1])

def service(spec):
    argv = (sys.executable, "-c", spec.pop("code"), str(folder), spec["name"])
    command = Command(spec.pop("name"), argv, dict(os.environ), folder)
    ready = spec.pop("ready", None)
    is_ready = (lambda: (folder / ready).exists()) if ready else (lambda: True)
    # It hangs while the file says so.
    why_hung = lambda pid: "no sign" if (folder / f"{command.name}-hangs").exists() else None
    note_end = lambda pid, reason: say(f"{pid}: {reason}")
    return Service(command, is_ready, why_hung=why_hung, note_end=note_end, **spec)

def say(line):
    print(line, flush=True)

stages = [[service(spec) for spec in stage] for stage in json.loads(sys.argv[2])]
try:
    with state_lock(folder) as lock:
        supervisor = Supervisor(stages, folder / "logs", lock, say)
        supervisor.run(lambda: not say("PIDS " + json.dumps(supervisor.pids)))
except StackError as error:
    sys.exit(str(error))
"""

#: Programs. Each gets the folder and its own name as arguments.
START = "import os, pathlib, signal, sys; folder, name = pathlib.Path(sys.argv[1]), sys.argv[2]; "
LOG_END = (
    "note = lambda *_: ((folder / 'ends').open('a').write(name + '\\n'), sys.exit()); "
    "signal.signal(signal.SIGTERM, note); (folder / name).touch(); signal.pause()"
)
OBEDIENT = START + LOG_END
STUBBORN = START + (
    "signal.signal(signal.SIGTERM, signal.SIG_IGN); child = os.fork(); "
    '(folder / f\'{name}-{"parent" if child else "child"}\').write_text(str(os.getpid())); '
    "(folder / name).touch(); [signal.pause() for _ in iter(int, 1)]"
)
#: Its grandchild leaves its group and its session, and does not obey.
RUNAWAY = START + (
    "os.fork() or (os.setsid(), signal.signal(signal.SIGTERM, signal.SIG_IGN), "
    "(folder / 'runaway').write_text(str(os.getpid())), signal.alarm(600), signal.pause()); "
    "(folder / name).touch(); signal.pause()"
)


def is_running(pid: int) -> bool:
    """True for a process that has not ended; one that was not collected yet has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def pid_in(path: Path) -> int:
    until(lambda: path.exists() and path.read_text(), f"{path.name} says its pid")
    return int(path.read_text())


class Run:
    """A supervisor under test."""

    def __init__(self, folder: Path, stages: list[list[dict[str, object]]]) -> None:
        self.folder = folder
        self.output = folder / "output"
        with self.output.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-c", textwrap.dedent(SUPERVISE), str(folder), json.dumps(stages)],
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def says(self, text: str) -> None:
        until(lambda: text in self.output.read_text(), f"{text!r} in {self.output.read_text()!r}")

    @property
    def pids(self) -> dict[str, int]:
        self.says("PIDS")
        lines = [line for line in self.output.read_text().splitlines() if line.startswith("PIDS ")]
        pids: dict[str, int] = json.loads(lines[-1].removeprefix("PIDS "))
        return pids

    def wait(self) -> int:
        return self.process.wait(DEADLINE_S)


Start = Callable[..., Run]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    runs: list[Run] = []

    def start(*stages: list[dict[str, object]]) -> Run:
        runs.append(Run(tmp_path, list(stages)))
        return runs[-1]

    yield start
    for run in runs:
        if run.process.poll() is None:
            run.process.kill()
            run.process.wait()


def service(name: str, code: str = OBEDIENT, **more: object) -> dict[str, object]:
    return {"name": name, "code": code, "ready": name, **more}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_stages_stop_in_reverse_order_and_the_status_is_0(start: Start, tmp_path: Path, number: int) -> None:
    run = start([service("database")], [service("broker")], [service("worker")])
    pids = run.pids
    run.process.send_signal(number)
    assert run.wait() == 0
    assert (tmp_path / "ends").read_text().split() == ["worker", "broker", "database"]
    assert not any(map(is_running, pids.values()))


def test_a_stage_starts_only_when_the_one_before_is_ready(start: Start, tmp_path: Path) -> None:
    run = start([service("database", ready="open")], [service("worker")])
    until((tmp_path / "database").exists, "database runs")
    assert not (tmp_path / "worker").exists()
    (tmp_path / "open").touch()
    assert run.pids.keys() == {"database", "worker"}


def test_what_is_not_ready_yet_is_named_again_and_again(start: Start, tmp_path: Path) -> None:
    run = start([service("database"), service("worker", ready="open")])
    run.says("database ready (")
    until(lambda: run.output.read_text().count("still starting worker (") > 1, "it says so twice")
    (tmp_path / "open").touch()
    assert run.pids.keys() == {"database", "worker"}


def test_a_step_that_runs_once_must_succeed_before_the_next_stage(start: Start, tmp_path: Path) -> None:
    run = start([service("release", "print('no such table'); raise SystemExit(3)", once=True)], [service("worker")])
    assert run.wait() == 1
    assert "release ended with status 3" in run.output.read_text()
    assert "no such table" in run.output.read_text()
    assert not (tmp_path / "worker").exists()


def test_a_process_that_dies_while_the_stack_comes_up_ends_it_with_its_last_words(start: Start, tmp_path: Path) -> None:
    dying = "print('the reason'); raise SystemExit(7)"
    run = start([service("database")], [service("worker", dying)])
    assert run.wait() == 1
    assert "worker ended with status 7" in run.output.read_text()
    assert "the reason" in run.output.read_text()
    assert (tmp_path / "ends").read_text().split() == ["database"]


def test_a_killed_worker_is_started_again_and_what_it_left_is_killed(start: Start, tmp_path: Path) -> None:
    run = start([service("worker", STUBBORN)])
    first, grandchild = run.pids["worker"], pid_in(tmp_path / "worker-child")
    os.kill(first, signal.SIGKILL)
    until(lambda: run.pids.get("worker", first) != first, "a new worker")
    until(lambda: not is_running(grandchild), "the grandchild is gone")


def test_a_worker_that_hangs_is_killed_with_its_group_and_started_again(start: Start, tmp_path: Path) -> None:
    run = start([service("worker", STUBBORN)])
    first, grandchild = run.pids["worker"], pid_in(tmp_path / "worker-child")
    os.kill(first, signal.SIGSTOP)
    (tmp_path / "worker-hangs").touch()
    run.says("worker hangs and is killed: no sign")
    (tmp_path / "worker-hangs").unlink()
    until(lambda: run.pids.get("worker", first) != first, "a new worker")
    until(lambda: not is_running(grandchild), "the grandchild is gone")
    run.says(f"{first}: It hung, and its supervisor killed it: no sign")


def test_up_says_when_what_ended_is_ready_again(start: Start, tmp_path: Path) -> None:
    run = start([service("worker")])
    first = run.pids["worker"]
    # The next life is ready when it says so, and not because the first one was.
    (tmp_path / "worker").rename(tmp_path / "earlier")
    os.kill(first, signal.SIGKILL)
    run.says("worker ended with")
    run.says("worker is ready again")
    lines = [line for line in run.output.read_text().splitlines() if "worker" in line and "PIDS" not in line]
    assert [line.partition(",")[0].split(" with")[0] for line in lines[-2:]] == [
        "worker ended",
        "worker is ready again",
    ]
    assert (tmp_path / "worker").exists()


def test_a_server_that_keeps_dying_ends_the_stack(start: Start) -> None:
    code = START + "(folder / name).exists() and sys.exit('broken'); " + LOG_END
    run = start([service("database", code, give_up_after=3)], [service("worker")])
    os.kill(run.pids["database"], signal.SIGKILL)
    assert run.wait() == 1
    assert "database ended with status 1, 3 times in a row" in run.output.read_text()
    assert "broken" in run.output.read_text()


def test_a_signal_while_starting_stops_what_runs(start: Start, tmp_path: Path) -> None:
    run = start([service("database")], [service("worker", ready="never")])
    until((tmp_path / "worker").exists, "worker runs")
    run.process.terminate()
    assert run.wait() == 0
    assert (tmp_path / "ends").read_text().split() == ["worker", "database"]
    assert "PIDS" not in run.output.read_text()


def test_a_process_that_does_not_obey_is_killed_with_its_children(start: Start, tmp_path: Path) -> None:
    run = start([service("worker", STUBBORN, stop_timeout_s=0.2)])
    pids = [run.pids["worker"], pid_in(tmp_path / "worker-child")]
    run.process.terminate()
    assert run.wait() == 0
    assert "worker did not stop in time and is killed" in run.output.read_text()
    assert not any(map(is_running, pids))


def test_a_second_signal_shortens_the_wait_and_leaves_nothing(start: Start, tmp_path: Path) -> None:
    run = start([service("database")], [service("worker", STUBBORN, stop_timeout_s=600)])
    pids = [*run.pids.values(), pid_in(tmp_path / "worker-child")]
    run.process.send_signal(signal.SIGINT)
    run.says("stopping worker")
    run.process.send_signal(signal.SIGINT)
    assert run.wait() == 0
    assert (tmp_path / "ends").read_text().split() == ["database"]
    assert not any(map(is_running, pids))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux gives orphans to a chosen ancestor")
def test_a_grandchild_that_left_its_group_does_not_outlive_the_stack(start: Start, tmp_path: Path) -> None:
    run = start([service("worker", RUNAWAY)])
    assert run.pids
    runaway = pid_in(tmp_path / "runaway")
    run.process.terminate()
    assert run.wait() == 0
    assert not is_running(runaway)


def test_nothing_is_left_when_the_supervisor_is_killed(start: Start, tmp_path: Path) -> None:
    run = start([service("database")], [service("worker", STUBBORN)])
    pids = [*run.pids.values(), pid_in(tmp_path / "worker-child")]
    run.process.kill()
    run.process.wait()
    until(lambda: not any(map(is_running, pids)), "all have ended", GRACE_S + 5)
    # The kernel and the watchdog may both have asked it to end.
    assert set((tmp_path / "ends").read_text().split()) == {"database"}


def test_nothing_is_left_when_the_supervisor_is_killed_while_starting(start: Start, tmp_path: Path) -> None:
    run = start([service("database")], [service("worker", STUBBORN, ready="never")])
    pids = [pid_in(tmp_path / "worker-parent"), pid_in(tmp_path / "worker-child")]
    run.process.kill()
    run.process.wait()
    until(lambda: not any(map(is_running, pids)), "all have ended", GRACE_S + 5)


def test_a_second_stack_on_the_same_state_folder_is_refused(start: Start) -> None:
    first = start([service("worker")])
    assert first.pids
    second = subprocess.run(
        [sys.executable, "-c", SUPERVISE, str(first.folder), "[]"], capture_output=True, text=True, timeout=DEADLINE_S
    )
    assert second.returncode == 1
    assert f"Another stack (pid {first.process.pid}) uses the state folder" in second.stderr


def test_a_new_stack_waits_for_the_watchdog_of_a_killed_one(start: Start, tmp_path: Path) -> None:
    first = start([service("worker", STUBBORN)])
    old = [first.pids["worker"], pid_in(tmp_path / "worker-child")]
    first.process.kill()
    first.process.wait()
    second = start([service("worker")])
    assert second.pids
    assert not any(map(is_running, old))
