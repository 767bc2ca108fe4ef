"""EC2 Auto Scaling groups as an actuator, one group for each pool. The only importer of `boto3`.

A group is told how many instances to have, and names them itself. It never chooses which ones to end: `release` names
the instances. docs/actuators.md says how to set up a group.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from headrace.config import Settings
from headrace.errors import ActuatorUnavailable, ConfigError
from scheduler.actuators.base import Actuator, HostMachine, HostOrder

#: States of instances that count towards the desired capacity. Source: the EC2 Auto Scaling user guide, "instance
#: lifecycle". The others end, or were taken out of service by hand.
_LIVE = frozenset({"Pending", "Pending:Wait", "Pending:Proceed", "InService"})
#: Each request is made so often at most.
TRIES = 2
#: Instances that exist no more, or belong to the group no more.
_GONE = frozenset({"Terminated", "Detached"})
#: Codes of a call for which the role has no right.
_FORBIDDEN = frozenset({"UnauthorizedOperation", "AccessDenied"})


def build(settings: Settings) -> "AwsActuator":
    """Make the actuator. Raises: ConfigError: a pool has no group, or the AWS configuration is wrong."""
    aws = settings.scaling.aws
    for pool in settings.own_pools:
        if pool not in aws.groups:
            message = f"The actuator 'aws' needs the group of pool '{pool}': set [scaling.aws] groups."
            raise ConfigError(message, param="scaling.aws.groups")
    # The sweep calls again after a failure, so that one repetition here is enough.
    config = Config(
        connect_timeout=aws.timeout_s,
        read_timeout=aws.timeout_s,
        retries={"mode": "standard", "total_max_attempts": TRIES},
    )
    try:
        session = boto3.session.Session()
        where = {"region_name": aws.region, "endpoint_url": aws.endpoint_url, "config": config}
        client, ec2 = session.client("autoscaling", **where), session.client("ec2", **where)
    except (BotoCoreError, ValueError) as error:
        raise ConfigError(f"The actuator 'aws' cannot be set up: {error}", param="scaling.aws") from error
    # It waits for a connection and then for an answer, each time.
    return AwsActuator(aws.groups, client, ec2, patience_s=TRIES * 2 * aws.timeout_s)


class AwsActuator(Actuator):
    """Raises the desired capacity of a group, and ends named instances."""

    name = "aws"
    names_hosts = False

    def __init__(self, groups: Mapping[str, str], client: Any, ec2: Any, patience_s: float) -> None:
        """Take the name of each pool's group, and boto3's clients of EC2 Auto Scaling and of EC2."""
        self.patience_s = patience_s
        self._groups = dict(groups)
        self._client, self._ec2 = client, ec2

    def machines(self, pool: str) -> list[HostMachine]:
        """List the group's instances. An instance in standby counts as ending: it serves no more."""
        return [
            HostMachine(each["InstanceId"], is_ending=each["LifecycleState"] not in _LIVE)
            for each in self._describe(pool)["Instances"]
            if each["LifecycleState"] not in _GONE
        ]

    def order(self, pool: str, orders: Sequence[HostOrder], present: Sequence[HostMachine]) -> list[HostMachine]:
        """Raise the desired capacity to the live instances of `present` and one for each order, never lower it."""
        if not orders:
            return []
        group = self._describe(pool)
        wanted = sum(not machine.is_ending for machine in present) + len(orders)
        most = int(group["MaxSize"])
        if (capacity := min(wanted, most)) > int(group["DesiredCapacity"]):
            self._set_capacity(pool, group, capacity)
        if wanted > most:
            raise self._refused(pool, f"has at most {most} instances (MaxSize), and {wanted} are wanted")
        return []

    def withdraw(self, pool: str, awaited: int, present: Sequence[HostMachine]) -> None:
        """Lower the desired capacity to the live instances and `awaited` more, never below an instance that lives."""
        group = self._describe(pool)
        wanted = sum(not machine.is_ending for machine in present) + awaited
        if (capacity := max(wanted, len(_live(group)), int(group["MinSize"]))) < int(group["DesiredCapacity"]):
            self._set_capacity(pool, group, capacity)

    def launch_times(self, pool: str, machines: Sequence[HostMachine]) -> Mapping[str, datetime]:
        """When EC2 launched these instances; none without the right `ec2:DescribeInstances`."""
        ids = [machine.provider_id for machine in machines]
        try:
            found = self._call(pool, self._ec2.describe_instances, Filters=[{"Name": "instance-id", "Values": ids}])
        except ActuatorUnavailable as error:
            if _is_forbidden(error.__cause__):
                return {}
            raise
        instances = [each for reservation in found.get("Reservations", []) for each in reservation["Instances"]]
        return {each["InstanceId"]: each["LaunchTime"] for each in instances}

    def release(self, pool: str, machines: Sequence[HostMachine]) -> None:
        """End these instances, and lower the desired capacity by each of them that still lives."""
        if not machines:
            return
        group = self._describe(pool)
        live = _live(group)
        spare = int(group["DesiredCapacity"]) - int(group["MinSize"])
        ours = [machine.provider_id for machine in machines if machine.provider_id in live]
        for instance in ours[: max(0, spare)]:
            try:
                self._call(
                    pool,
                    self._client.terminate_instance_in_auto_scaling_group,
                    InstanceId=instance,
                    ShouldDecrementDesiredCapacity=True,
                )
            except ActuatorUnavailable:
                # Another process, or the first of two tries, ended it meanwhile.
                if instance in _live(self._describe(pool)):
                    raise
        if len(ours) > spare:
            raise self._refused(pool, f"keeps at least {group['MinSize']} instances (MinSize)")

    def _set_capacity(self, pool: str, group: Mapping[str, Any], capacity: int) -> None:
        self._call(
            pool,
            self._client.set_desired_capacity,
            AutoScalingGroupName=group["AutoScalingGroupName"],
            DesiredCapacity=capacity,
            HonorCooldown=False,
        )

    def _describe(self, pool: str) -> Mapping[str, Any]:
        if pool not in self._groups:
            raise ActuatorUnavailable(f"Pool '{pool}' has no Auto Scaling group: set [scaling.aws] groups.")
        found = self._call(pool, self._client.describe_auto_scaling_groups, AutoScalingGroupNames=[self._groups[pool]])
        groups: list[Mapping[str, Any]] = found.get("AutoScalingGroups", [])
        if len(groups) != 1:
            raise self._refused(pool, "does not exist")
        return {"Instances": [], **groups[0]}

    def _call(self, pool: str, method: Callable[..., Any], **arguments: Any) -> Any:
        try:
            return method(**arguments)
        except (BotoCoreError, ClientError, ResponseParserError) as error:
            raise self._refused(pool, f"failed: {error}") from error

    def _refused(self, pool: str, why: str) -> ActuatorUnavailable:
        return ActuatorUnavailable(f"The Auto Scaling group '{self._groups.get(pool)}' of pool '{pool}' {why}.")


def _is_forbidden(error: BaseException | None) -> bool:
    return isinstance(error, ClientError) and error.response["Error"]["Code"] in _FORBIDDEN


def _live(group: Mapping[str, Any]) -> set[str]:
    return {each["InstanceId"] for each in group["Instances"] if each["LifecycleState"] in _LIVE}
