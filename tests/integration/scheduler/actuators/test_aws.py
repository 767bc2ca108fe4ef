"""The actuator `aws` on moto's server. The rules of AWS that moto does not know are checked by what was called."""

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest
from botocore.exceptions import ClientError

from headrace.config import PoolSettings, ScalingSettings, Settings
from headrace.errors import ActuatorUnavailable, ConfigError
from scheduler.actuators import load
from scheduler.actuators.aws import AwsActuator
from scheduler.actuators.base import HostMachine, HostOrder
from tests.contracts.providers.aws import AutoScaling, Moto

CHANGES = {"SetDesiredCapacity", "TerminateInstanceInAutoScalingGroup"}


@pytest.fixture(scope="module")
def moto() -> Iterator[Moto]:
    moto = Moto()
    yield moto
    moto.stop()


@pytest.fixture
def cloud(moto: Moto, monkeypatch: pytest.MonkeyPatch) -> Iterator[AutoScaling]:
    cloud = AutoScaling(moto, monkeypatch)
    yield cloud
    cloud.stop()


def orders(count: int) -> list[HostOrder]:
    return [HostOrder(f"h-{number}", "chat") for number in range(count)]


def changes(cloud: AutoScaling) -> list[str]:
    return [action for action in cloud.proxy.actions if action in CHANGES]


def test_a_repeated_order_calls_for_nothing(cloud: AutoScaling) -> None:
    for _ in range(3):
        cloud.actuator().order("chat", orders(2), [])
    assert changes(cloud) == ["SetDesiredCapacity"]


def test_an_order_beyond_the_groups_maximum_is_filled_as_far_as_possible_and_reported(cloud: AutoScaling) -> None:
    cloud.allow("chat", 3)
    actuator = cloud.actuator()
    for _ in range(2):
        with pytest.raises(ActuatorUnavailable, match=r"at most 3 instances \(MaxSize\), and 5 are wanted"):
            actuator.order("chat", orders(5), [])
    assert cloud.group("chat")["DesiredCapacity"] == 3
    assert changes(cloud) == ["SetDesiredCapacity"]


def test_a_release_below_the_groups_minimum_is_reported(cloud: AutoScaling) -> None:
    actuator = cloud.actuator()
    actuator.order("chat", orders(3), [])
    cloud.client.update_auto_scaling_group(AutoScalingGroupName=cloud.groups["chat"], MinSize=2)
    with pytest.raises(ActuatorUnavailable, match=r"keeps at least 2 instances \(MinSize\)"):
        actuator.release("chat", actuator.machines("chat"))
    assert len(cloud.live("chat")) == 2


def test_a_release_lowers_the_desired_capacity_only_through_the_instances(cloud: AutoScaling) -> None:
    actuator = cloud.actuator()
    actuator.order("chat", orders(3), [])
    machines = actuator.machines("chat")
    actuator.release("chat", machines[:2])

    assert changes(cloud) == ["SetDesiredCapacity", *["TerminateInstanceInAutoScalingGroup"] * 2]
    assert cloud.group("chat")["DesiredCapacity"] == 1


class Group:
    """A group that lacks instances, as boto3's client shows it: moto starts them at once."""

    def __init__(self, instances: int, desired: int, least: int = 0) -> None:
        live = [{"InstanceId": f"i-{number}", "LifecycleState": "InService"} for number in range(instances)]
        ending = {"InstanceId": "i-ending", "LifecycleState": "Terminating"}
        sizes = {"DesiredCapacity": desired, "MinSize": least, "MaxSize": 20}
        self._group = {"AutoScalingGroupName": "group", "Instances": [*live, ending], **sizes}
        self.capacities: list[int] = []

    def describe_auto_scaling_groups(self, **_: Any) -> Any:
        return {"AutoScalingGroups": [self._group]}

    def set_desired_capacity(self, **arguments: Any) -> None:
        self.capacities.append(arguments["DesiredCapacity"])


@pytest.mark.parametrize(
    ("group", "awaited", "capacities"),
    [
        pytest.param(Group(2, desired=5), 0, [2], id="written off"),
        pytest.param(Group(2, desired=5), 1, [3], id="one is awaited"),
        pytest.param(Group(2, desired=3), 1, [], id="nothing is missing"),
        pytest.param(Group(2, desired=2), 1, [], id="never raised"),
        pytest.param(Group(2, desired=5, least=4), 0, [4], id="not below MinSize"),
        pytest.param(Group(4, desired=5), 0, [4], id="two came meanwhile"),
    ],
)
def test_the_desired_capacity_follows_the_leases(group: Group, awaited: int, capacities: list[int]) -> None:
    present = [HostMachine("i-0"), HostMachine("i-1"), HostMachine("i-ending", is_ending=True)]
    AwsActuator({"chat": "group"}, group, None, patience_s=1.0).withdraw("chat", awaited, present)
    assert group.capacities == capacities


def test_ec2_says_when_instances_were_launched(cloud: AutoScaling) -> None:
    actuator = cloud.actuator()
    actuator.order("chat", orders(2), [])
    machines = actuator.machines("chat")
    times = actuator.launch_times("chat", [*machines, HostMachine("i-0123456789abcdef0")])
    assert times.keys() == {machine.provider_id for machine in machines}


@pytest.mark.parametrize(("code", "raised"), [("UnauthorizedOperation", False), ("RequestLimitExceeded", True)])
def test_without_the_right_no_launch_time_is_known(code: str, raised: bool) -> None:
    class Ec2:
        def describe_instances(self, **_: Any) -> Any:
            raise ClientError({"Error": {"Code": code, "Message": "no"}}, "DescribeInstances")

    actuator = AwsActuator({"chat": "group"}, None, Ec2(), patience_s=1.0)
    with pytest.raises(ActuatorUnavailable) if raised else nullcontext():
        assert actuator.launch_times("chat", [HostMachine("i-1")]) == {}


def test_what_the_cloud_says_reaches_the_operator(cloud: AutoScaling) -> None:
    cloud.client.delete_auto_scaling_group(AutoScalingGroupName=cloud.groups["chat"])
    with pytest.raises(ActuatorUnavailable, match=rf"'{cloud.groups['chat']}' of pool 'chat' does not exist"):
        cloud.actuator().machines("chat")


def test_a_pool_without_a_group_is_named_with_the_setting_that_it_lacks(cloud: AutoScaling) -> None:
    said = r"Pool 'removed' has no Auto Scaling group: set \[scaling.aws\] groups"
    with pytest.raises(ActuatorUnavailable, match=said):
        cloud.actuator().machines("removed")


@pytest.mark.parametrize(
    ("state", "machines"),
    [
        ("Pending", [HostMachine("i-1")]),
        ("Pending:Wait", [HostMachine("i-1")]),
        ("InService", [HostMachine("i-1")]),
        ("Standby", [HostMachine("i-1", is_ending=True)]),
        ("Terminating:Wait", [HostMachine("i-1", is_ending=True)]),
        ("Terminated", []),
    ],
)
def test_an_instances_state_says_whether_it_serves(state: str, machines: list[HostMachine]) -> None:
    # moto has no states between an instance's start and its service.
    class Client:
        def describe_auto_scaling_groups(self, **_: Any) -> Any:
            return {"AutoScalingGroups": [{"Instances": [{"InstanceId": "i-1", "LifecycleState": state}]}]}

    assert AwsActuator({"chat": "group"}, Client(), None, patience_s=1.0).machines("chat") == machines


def test_each_pool_needs_a_group(cloud: AutoScaling) -> None:
    settings = cloud.settings()
    pools = {**settings.pools, "more": PoolSettings()}
    with pytest.raises(ConfigError, match="needs the group of pool 'more'"):
        load(settings.model_copy(update={"pools": pools}))


def test_a_region_must_be_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    scaling = ScalingSettings.model_validate({"actuator": "aws", "aws": {"groups": {"chat": "group"}}})
    with pytest.raises(ConfigError, match=r"cannot be set up: You must specify a region"):
        load(Settings(scaling=scaling))
