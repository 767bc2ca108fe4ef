"""What the example programs call. `tests/contracts/test_actuator.py` shows that they do what an actuator must."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from scheduler.actuators.base import HostOrder
from tests.contracts.providers.programs import Ec2Cli, SshHosts, _Programs


def run(provider: _Programs, request: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    command = ["env", f"PROVIDER={provider.folder}", *provider.argv]
    return subprocess.run(command, input=json.dumps(request), capture_output=True, text=True, check=False)


def test_an_instance_is_started_with_its_hosts_token_and_tags(tmp_path: Path) -> None:
    provider = Ec2Cli(tmp_path)
    actuator = provider.actuator()
    actuator.order("chat", [HostOrder("h-1", "chat", "g6.xlarge"), HostOrder("h-2", "chat")], [])
    actuator.release("chat", actuator.machines("chat")[:1])

    with_type, without_type, *others = provider.calls()
    assert with_type == (
        "ec2 run-instances --count 1 --client-token h-1 --launch-template LaunchTemplateName=worker "
        "--instance-type g6.xlarge --tag-specifications ResourceType=instance,"
        "Tags=[{Key=headrace:pool,Value=chat},{Key=headrace:host,Value=h-1}] --output json"
    )
    assert "--instance-type" not in without_type
    assert others[-1] == "ec2 terminate-instances --instance-ids i-00000000 --output json"


def test_the_clouds_own_words_reach_the_operator(tmp_path: Path) -> None:
    provider = Ec2Cli(tmp_path)
    provider.allow("chat", 0)
    order = {"version": 1, "do": "order", "pool": "chat", "hosts": [{"host_id": "h-1", "instance_type": None}]}
    done = run(provider, order)

    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("An error occurred (InsufficientInstanceCapacity)")
    assert done.stdout == ""


def test_a_unit_is_started_and_stopped_for_its_host_alone(tmp_path: Path) -> None:
    provider = SshHosts(tmp_path)
    actuator = provider.actuator()
    (machine,) = actuator.order("chat", [HostOrder("h-1", "chat")], [])
    assert (tmp_path / machine.provider_id / "host.env").read_text() == "HEADRACE_HOST_ID=h-1\n"

    # A lease that ended long ago must not stop the host that has the machine now.
    stale = {
        "version": 1,
        "do": "release",
        "pool": "chat",
        "hosts": [{"host_id": "h-0", "provider_id": machine.provider_id}],
    }
    assert run(provider, stale).returncode == 0
    assert provider.live("chat") == {machine.provider_id}


def test_a_unit_that_was_started_by_hand_can_be_released(tmp_path: Path) -> None:
    provider = SshHosts(tmp_path)
    (tmp_path / "user@chat-3" / "active").touch()
    actuator = provider.actuator()
    (machine,) = actuator.machines("chat")
    assert (machine.provider_id, machine.host_id) == ("user@chat-3", None)

    actuator.release("chat", [machine])
    assert provider.live("chat") == set()


def test_a_silent_machine_is_left_out_and_a_silent_network_is_an_error(tmp_path: Path) -> None:
    provider = SshHosts(tmp_path)
    actuator = provider.actuator()
    actuator.order("chat", [HostOrder("h-1", "chat"), HostOrder("h-2", "chat")], [])
    (tmp_path / "silent-chat").write_text("user@chat-0\n")
    assert [machine.host_id for machine in actuator.machines("chat")] == ["h-2"]

    provider.fail()
    done = run(provider, {"version": 1, "do": "list", "pool": "chat", "hosts": []})
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "None of the 8 machines can be reached over SSH."


def test_a_host_type_is_looked_for(tmp_path: Path) -> None:
    provider = SshHosts(tmp_path)
    (tmp_path / "machines").write_text("chat user@chat-0 l4\nchat user@chat-1 h100\n")
    accepted = provider.actuator().order(
        "chat", [HostOrder("h-1", "chat", "h100"), HostOrder("h-2", "chat", "h100")], []
    )
    assert [machine.provider_id for machine in accepted] == ["user@chat-1"]


@pytest.mark.parametrize("host_id", ["h; reboot", "h'", "$(id)", "h\nk"])
def test_a_name_that_a_shell_would_read_is_refused(tmp_path: Path, host_id: str) -> None:
    provider = SshHosts(tmp_path)
    done = run(
        provider, {"version": 1, "do": "order", "pool": "chat", "hosts": [{"host_id": host_id, "instance_type": None}]}
    )
    assert done.returncode == 1
    assert "has characters other than letters" in done.stderr
    assert not any("host.env &&" in call for call in provider.calls())


@pytest.mark.parametrize("make", [Ec2Cli, SshHosts])
def test_a_request_of_another_version_is_refused(tmp_path: Path, make: type[_Programs]) -> None:
    done = run(make(tmp_path), {"version": 2, "do": "list", "pool": "chat", "hosts": []})
    assert (done.returncode, done.stderr) == (1, "This program knows version 1 of the request, and got 2.\n")
