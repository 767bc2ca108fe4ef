"""One child process: that it ends with the process that started it, and how it is stopped."""

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from headrace.errors import StackError
from headrace.stack.child import Child, Command

DEADLINE_S = 20.0
PARENT = """
import signal, sys
from pathlib import Path
from headrace.stack.child import Child, Command
child = Child(Command("sleep", ("sleep", "600"), {"PATH": "/usr/bin:/bin"}, Path("/")), Path(sys.argv[1], "log"))
print(child.pid, flush=True)
signal.pause()
"""


def command(*argv: str) -> Command:
    return Command("program", argv, {"PATH": "/usr/bin:/bin", "MARK": "kept"}, Path("/"))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="PDEATHSIG is Linux's")
def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", PARENT, str(tmp_path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        # Until the launcher has become the program; a child that is killed earlier ends as well, by another rule.
        deadline = time.monotonic() + DEADLINE_S
        while b"launch.py" in Path(f"/proc/{pid}/cmdline").read_bytes():
            assert time.monotonic() < deadline
        handle = os.pidfd_open(pid)
        parent.kill()
    try:
        # A pidfd is readable once its process has ended.
        assert select.select([handle], [], [], DEADLINE_S)[0]
    finally:
        os.close(handle)


def test_a_child_gets_its_environment_and_its_output_goes_to_the_log(tmp_path: Path) -> None:
    child = Child(command("sh", "-c", "echo $MARK; echo and errors >&2"), tmp_path / "log")
    assert child.wait(DEADLINE_S)
    assert child.poll() == 0
    assert (tmp_path / "log").read_text() == "kept\nand errors\n"


@pytest.mark.parametrize("cpus", [(), (min(os.sched_getaffinity(0)),)])
def test_a_program_and_what_it_starts_keep_to_the_cpus_of_its_command(cpus: tuple[int, ...], tmp_path: Path) -> None:
    ask = f"{sys.executable} -c 'import os; print(*sorted(os.sched_getaffinity(0)))'"
    child = Child(Command("program", ("sh", "-c", f"{ask}; true"), {}, Path("/"), cpus=cpus), tmp_path / "log")
    assert child.wait(DEADLINE_S)
    assert list(map(int, (tmp_path / "log").read_text().split())) == list(cpus or sorted(os.sched_getaffinity(0)))


def test_a_program_whose_cpus_do_not_exist_runs_where_it_may(tmp_path: Path) -> None:
    child = Child(
        Command("program", ("echo", "ran"), {"PATH": "/usr/bin:/bin"}, Path("/"), cpus=(1000,)), tmp_path / "log"
    )
    assert child.wait(DEADLINE_S)
    assert (tmp_path / "log").read_text() == "ran\n"


def test_a_program_that_is_not_there_says_so_in_the_log(tmp_path: Path) -> None:
    child = Child(command("no-such-program"), tmp_path / "log")
    with pytest.raises(StackError, match="no-such-program: No such file"):
        child.wait_until(lambda: False, DEADLINE_S)


def test_waiting_for_a_child_that_is_never_ready_ends(tmp_path: Path) -> None:
    child = Child(command("sh", "-c", "exec sleep 600"), tmp_path / "log")
    try:
        with pytest.raises(StackError, match="was not ready within 0 s"):
            child.wait_until(lambda: False, 0.2)
    finally:
        child.stop()
    assert child.poll() == -signal.SIGTERM


def test_a_program_does_not_inherit_python_s_ignored_signals(tmp_path: Path) -> None:
    # A writer whose reader has gone must end by SIGPIPE, as it would from a shell.
    child = Child(command("sh", "-c", "kill -PIPE $$; echo survived"), tmp_path / "log")
    assert child.wait(DEADLINE_S)
    assert child.poll() == -signal.SIGPIPE
