"""Hosts of a real supervisor, with small real processes, asked for over its socket."""

import os
import signal
import time
from pathlib import Path

import pytest

from headrace.errors import ActuatorUnavailable
from headrace.stack.watchdog import GRACE_S
from scheduler.actuators.local import LocalActuator
from tests.integration.headrace.stack.host_stack import (
    DEADLINE_S,
    DRAINING,
    OBEDIENT,
    POOL,
    START,
    STUBBORN,
    HostStack,
    is_running,
    until,
)


def test_the_supervisor_is_ready_when_its_first_host_is(tmp_path: Path) -> None:
    with HostStack(tmp_path) as stack:
        assert stack.is_ready(stack.first)
        lines = stack.output.read_text().splitlines()
        assert lines[0] == f"starting gpu@{stack.first}"
        assert lines[1].startswith(f"gpu@{stack.first} ready")


def test_a_host_comes_when_it_is_ordered_and_goes_when_it_is_released(tmp_path: Path) -> None:
    with HostStack(tmp_path) as stack:
        [machine] = stack.order("h-1")
        assert (machine.provider_id, machine.host_id, machine.is_ending) == ("h-1", "h-1", False)
        until(lambda: stack.is_ready("h-1"), "h-1 runs")
        stack.says("gpu@h-1 ready (")
        pid = stack.pids["h-1"]

        stack.release("h-1")
        until(lambda: "h-1" not in stack.ids, "h-1 is not listed")
        assert not is_running(pid)
        stack.says("gpu@h-1 stopped")
        until(lambda: "h-1" not in stack.pids, "h-1 is not reported")
        assert (tmp_path / "logs" / "gpu@h-1.log").exists()


def test_an_order_that_is_repeated_starts_nothing_twice(tmp_path: Path) -> None:
    with HostStack(tmp_path) as stack:
        stack.order("h-1")
        until(lambda: stack.is_ready("h-1"), "h-1 runs")
        pid = stack.pids["h-1"]
        assert stack.order("h-1", "h-1") == stack.order("h-1", "h-1")
        stack.order("h-2")
        until(lambda: stack.is_ready("h-2"), "h-2 runs")
        assert stack.pids["h-1"] == pid
        assert len(stack.pids) == 3


def test_a_host_is_on_its_way_for_as_long_as_a_provider_would_take(tmp_path: Path) -> None:
    with HostStack(tmp_path, provision_s=0.5) as stack:
        began = time.monotonic()
        stack.order("h-1")
        assert "h-1" in stack.ids
        until(lambda: stack.is_ready("h-1"), "h-1 runs")
        assert time.monotonic() - began >= 0.5


def test_a_host_that_is_released_on_its_way_never_starts(tmp_path: Path) -> None:
    with HostStack(tmp_path, provision_s=3600) as stack:
        stack.order("h-1")
        stack.release("h-1")
        until(lambda: "h-1" not in stack.ids, "h-1 is not listed")
        assert not (tmp_path / "h-1").exists()
        assert not (tmp_path / "logs" / "gpu@h-1.log").exists()


def test_a_host_that_dies_is_started_again_and_stays_listed(tmp_path: Path) -> None:
    with HostStack(tmp_path) as stack:
        stack.order("h-1")
        stack.says("gpu@h-1 ready (")
        first = stack.kill("h-1", signal.SIGKILL)
        until(lambda: stack.is_ready("h-1") and stack.pids["h-1"] != first, "h-1 runs again")
        stack.says("gpu@h-1 is ready again")
        assert [machine.is_ending for machine in stack.machines if machine.host_id == "h-1"] == [False]


def test_a_host_that_keeps_dying_does_not_end_the_stack_and_can_be_released(tmp_path: Path) -> None:
    with HostStack(tmp_path, f"{START}name == 'h-1' and sys.exit('broken'); {OBEDIENT.removeprefix(START)}") as stack:
        stack.order("h-1")
        until(lambda: stack.output.read_text().count("gpu@h-1 ended with status 1") >= 3, "three lives")
        stack.release("h-1")
        until(lambda: "h-1" not in stack.ids, "h-1 is not listed")
        assert stack.process.poll() is None
        assert stack.is_ready(stack.first)


def test_a_released_host_is_listed_as_ending_while_it_drains(tmp_path: Path) -> None:
    (tmp_path / "drain").touch()
    with HostStack(tmp_path, DRAINING) as stack:
        stack.order("h-1")
        until(lambda: stack.is_ready("h-1"), "h-1 runs")
        stack.release("h-1")
        stack.release("h-1")
        assert [machine.is_ending for machine in stack.machines if machine.host_id == "h-1"] == [True]
        # Other hosts come meanwhile.
        stack.order("h-2")
        until(lambda: stack.is_ready("h-2"), "h-2 runs")
        assert is_running(stack.pids["h-1"])

        (tmp_path / "drain").unlink()
        until(lambda: "h-1" not in stack.ids, "h-1 is not listed")


def test_a_host_that_does_not_obey_is_killed_after_its_time(tmp_path: Path) -> None:
    with HostStack(tmp_path, STUBBORN, stop_timeout_s=0.3) as stack:
        stack.order("h-1")
        until(lambda: stack.is_ready("h-1"), "h-1 runs")
        pid = stack.pids["h-1"]
        stack.release("h-1")
        until(lambda: "h-1" not in stack.ids, "h-1 is not listed")
        assert not is_running(pid)
        stack.says("gpu@h-1 did not stop in time and is killed")


def test_a_host_beyond_the_limit_is_refused_and_the_rest_is_started(tmp_path: Path) -> None:
    with HostStack(tmp_path, max_hosts=2) as stack:
        assert [machine.host_id for machine in stack.order("h-1", "h-2")] == ["h-1"]
        with pytest.raises(ActuatorUnavailable, match="no more than 2 may"):
            stack.order("h-2")
        assert stack.ids == {stack.first, "h-1"}


def test_a_second_control_process_finds_the_hosts(tmp_path: Path) -> None:
    with HostStack(tmp_path) as stack:
        stack.order("h-1")
        assert {machine.host_id for machine in LocalActuator(tmp_path / "hosts.sock").machines(POOL)} == stack.ids


def test_every_host_ends_with_the_stack(tmp_path: Path) -> None:
    with HostStack(tmp_path, DRAINING) as stack:
        stack.order("h-1")
        until(lambda: stack.is_ready("h-1"), "h-1 runs")
        pids, first = stack.pids.values(), stack.first
        stack.process.terminate()
        assert stack.process.wait(DEADLINE_S) == 0
        assert not any(map(is_running, pids))
        assert (tmp_path / "h-1-drained").exists()
        assert (tmp_path / f"{first}-drained").exists()
        assert not (tmp_path / "hosts.sock").exists()


def test_nothing_is_left_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    with HostStack(tmp_path, STUBBORN) as stack:
        stack.order("h-1")
        until(lambda: stack.is_ready("h-1"), "h-1 runs")
        pids = stack.pids.values()
        os.kill(stack.process.pid, signal.SIGKILL)
        until(lambda: not any(map(is_running, pids)), "all have ended", GRACE_S + 5)
        with pytest.raises(ActuatorUnavailable, match=r"does not answer on .*hosts.sock"):
            stack.machines  # noqa: B018 - the question is what matters.
