"""The actuator `command` on real programs."""

import json
import os
import sys
from pathlib import Path

import pytest

from headrace.config import ScalingSettings, Settings
from headrace.errors import ActuatorUnavailable, ConfigError
from scheduler.actuators import load
from scheduler.actuators.base import HostMachine, HostOrder
from scheduler.actuators.command import CommandActuator


def program(text: str, timeout_s: float = 30.0) -> CommandActuator:
    """An actuator whose program is this Python text."""
    return CommandActuator((sys.executable, "-S", "-c", text), timeout_s)


def answering(answer: str) -> CommandActuator:
    return program(f"print({answer!r})")


def test_the_program_gets_the_request_and_says_what_there_is(tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    answer = '{"hosts": [{"provider_id": "m-1", "host_id": "h-1"}, {"provider_id": "m-2", "ending": true}]}'
    actuator = program(f"import sys; open({str(asked)!r}, 'a').write(sys.stdin.read()); print({answer!r})")

    machines = actuator.machines("chat")
    actuator.release("chat", machines)

    assert machines == [HostMachine("m-1", "h-1"), HostMachine("m-2", is_ending=True)]
    assert [json.loads(line) for line in asked.read_text().splitlines()] == [
        {"version": 1, "do": "list", "pool": "chat", "hosts": []},
        {
            "version": 1,
            "do": "release",
            "pool": "chat",
            "hosts": [{"host_id": "h-1", "provider_id": "m-1"}, {"host_id": None, "provider_id": "m-2"}],
        },
    ]


def test_an_order_names_hosts_and_their_type() -> None:
    actuator = program(
        "import json, sys; asked = json.load(sys.stdin)['hosts'][0]; "
        "print(json.dumps({'hosts': [{'provider_id': asked['instance_type'], 'host_id': asked['host_id']}]}))"
    )
    assert actuator.order("chat", [HostOrder("h-1", "chat", "l4")], []) == [HostMachine("l4", "h-1")]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("", "no JSON"),
        ("fine", "no JSON"),
        ("[]", "answered wrongly: "),
        ("{}", "in 'hosts': Field required"),
        ('{"hosts": null}', "in 'hosts': "),
        ('{"hosts": [{}]}', "in 'hosts.0.provider_id': Field required"),
        ('{"hosts": [{"provider_id": ""}]}', "in 'hosts.0.provider_id': "),
        ('{"hosts": [{"provider_id": "m", "host_id": 7}]}', "in 'hosts.0.host_id': "),
        ('{"hosts": [{"provider_id": "m", "ending": "perhaps"}]}', "in 'hosts.0.ending': "),
        ('{"hosts": [{"provider_id": "m"}, {"provider_id": "m"}]}', "in 'hosts.1.provider_id': 'm' comes twice"),
        (
            '{"hosts": [{"provider_id": "m", "host_id": "h"}, {"provider_id": "n", "host_id": "h"}]}',
            "in 'hosts.1.host_id': 'h' comes twice",
        ),
    ],
)
def test_a_wrong_answer_is_refused_by_its_field(answer: str, said: str) -> None:
    with pytest.raises(ActuatorUnavailable) as refused:
        answering(answer).machines("chat")
    assert said in str(refused.value)


def test_a_host_that_nobody_ordered_is_no_answer_to_an_order() -> None:
    with pytest.raises(ActuatorUnavailable, match=r"in 'hosts\.0\.host_id': 'h-9' was not ordered"):
        answering('{"hosts": [{"provider_id": "m", "host_id": "h-9"}]}').order("chat", [HostOrder("h-1", "chat")], [])


def test_an_answer_without_end_is_not_read_into_memory() -> None:
    with pytest.raises(ActuatorUnavailable, match="more than 4194304 bytes"):
        program("print('x' * 5_000_000)").machines("chat")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "import sys; print('first', file=sys.stderr); sys.exit('no quota for l4\\n\\n')",
            "status 1 at 'list': no quota for l4",
        ),
        ("import sys; sys.exit(3)", "ended with status 3 at 'list'."),
        ("import os; os.kill(os.getpid(), 9)", "was killed by signal 9 at 'list'."),
        ("import sys; print('{\"hosts\": []}'); sys.exit('late')", "status 1 at 'list': late"),
    ],
)
def test_a_program_that_fails_says_why(text: str, said: str) -> None:
    with pytest.raises(ActuatorUnavailable) as failed:
        program(text).machines("chat")
    assert said in str(failed.value)


def test_a_program_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ActuatorUnavailable, match=r"scale cannot be started: No such file or directory"):
        CommandActuator((str(tmp_path / "scale"),), 5.0).machines("chat")


def test_a_late_program_is_killed_with_its_children(tmp_path: Path) -> None:
    alive = tmp_path / "alive"
    os.mkfifo(alive)
    # Every process of the group holds the pipe's writing end, so that its end shows that all of them are dead.
    reader = os.open(alive, os.O_RDONLY | os.O_NONBLOCK)
    child = "import signal; signal.pause()"
    text = (
        f"import signal, subprocess, sys; held = open({str(alive)!r}, 'wb', buffering=0); held.write(b'x'); "
        f"print('waiting for the cloud', file=sys.stderr, flush=True); "
        f"subprocess.Popen([sys.executable, '-S', '-c', {child!r}], pass_fds=[held.fileno()]); signal.pause()"
    )
    with pytest.raises(ActuatorUnavailable, match=r"did not end 'list' in 2 s: waiting for the cloud"):
        program(text, timeout_s=2.0).machines("chat")

    os.set_blocking(reader, True)
    assert os.read(reader, 10) == b"x"
    assert os.read(reader, 10) == b""
    os.close(reader)


def test_a_process_that_is_left_behind_holds_up_nothing(tmp_path: Path) -> None:
    stop = tmp_path / "stop"
    os.mkfifo(stop)
    # As the master of an SSH connection does, it keeps the standard output open.
    left = f"open({str(stop)!r}).read()"
    text = (
        f"import subprocess, sys; subprocess.Popen([sys.executable, '-S', '-c', {left!r}]); print('{{\"hosts\": []}}')"
    )
    try:
        assert program(text).machines("chat") == []
    finally:
        stop.open("w").close()


def test_without_a_program_there_is_no_actuator() -> None:
    with pytest.raises(ConfigError, match=r"set \[scaling\.command\] argv"):
        load(Settings(scaling=ScalingSettings(actuator="command")))
