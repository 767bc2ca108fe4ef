"""EC2 Auto Scaling by moto's server over HTTP, behind a gate."""

import contextlib
import io
import re
from functools import cached_property
from threading import Lock
from typing import Any
from uuid import uuid4

import boto3
import pytest
import requests
from moto.server import ThreadedMotoServer

from headrace.config import PoolSettings, ScalingSettings, Settings
from plugins.batches.tests.contracts.storages import Bucket
from scheduler.actuators import load
from scheduler.actuators.base import Actuator
from tests.contracts.providers.gate import Gate, Mode
from tests.contracts.providers.provider import MOST, PATIENCE_S, POOLS

REGION = "eu-central-1"


class Moto:
    """One server for all tests. Each test has groups of its own."""

    def __init__(self) -> None:
        self._server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        with contextlib.redirect_stdout(io.StringIO()):
            self._server.start()
        host, port = self._server.get_host_and_port()
        self.url = f"http://{host}:{port}"

    @cached_property
    def image(self) -> str:
        """An image that it knows. It takes a second to list them all."""
        return str(self.client("ec2").describe_images(Owners=["amazon"])["Images"][0]["ImageId"])

    def client(self, service: str) -> Any:
        return boto3.client(
            service, REGION, endpoint_url=self.url, aws_access_key_id="test", aws_secret_access_key="test"
        )

    def bucket(self, patch: pytest.MonkeyPatch) -> Bucket:
        """A new bucket, and the environment in which boto3 finds it."""
        for name, value in {"ACCESS_KEY_ID": "test", "SECRET_ACCESS_KEY": "test", "DEFAULT_REGION": REGION}.items():
            patch.setenv(f"AWS_{name}", value)
        return Bucket(self.client("s3"), self.url, CreateBucketConfiguration={"LocationConstraint": REGION})

    def stop(self) -> None:
        self._server.stop()


class _Proxy(Gate):
    """Passes requests on, and keeps the names of the actions."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.actions: list[str] = []
        # moto's threads would each start the machines that a group lacks. AWS makes one change of a group at a time.
        self._one_at_a_time = Lock()
        super().__init__()

    def respond(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, str, bytes]:
        self.actions += re.findall(rb"Action=(\w+)", body)[:1] and [re.findall(rb"Action=(\w+)", body)[0].decode()]
        passed = {name: value for name, value in headers.items() if name.lower() not in ("host", "content-length")}
        with self._one_at_a_time:
            answer = requests.request(method, self.target + path, headers=passed, data=body, timeout=30)
        content = answer.content
        if self.mode == "lie":
            content = re.sub(rb"(<DesiredCapacity>)\d+", rb"\g<1>7", content)
        return answer.status_code, answer.headers["Content-Type"], content


class AutoScaling:
    """The Auto Scaling groups of one test."""

    def __init__(self, moto: Moto, patch: pytest.MonkeyPatch) -> None:
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        self.proxy = _Proxy(moto.url)
        self.client = moto.client("autoscaling")
        name = uuid4().hex[:12]
        self.groups = {pool: f"{pool}-{name}" for pool in POOLS}
        self._ec2 = moto.client("ec2")
        self._ec2.create_launch_template(
            LaunchTemplateName=name, LaunchTemplateData={"ImageId": moto.image, "InstanceType": "g6.xlarge"}
        )
        for group in self.groups.values():
            self.client.create_auto_scaling_group(
                AutoScalingGroupName=group,
                MinSize=0,
                MaxSize=MOST,
                DesiredCapacity=0,
                AvailabilityZones=[f"{REGION}a"],
                LaunchTemplate={"LaunchTemplateName": name},
                NewInstancesProtectedFromScaleIn=True,
            )

    def settings(self, timeout_s: float = PATIENCE_S) -> Settings:
        aws = {
            "groups": self.groups,
            "region": REGION,
            "endpoint_url": self.proxy.url,
            "timeout_s": timeout_s,
        }
        scaling = ScalingSettings.model_validate({"actuator": "aws", "aws": aws})
        return Settings(pools={pool: PoolSettings() for pool in POOLS}, scaling=scaling)

    def actuator(self, timeout_s: float = PATIENCE_S) -> Actuator:
        return load(self.settings(timeout_s))

    def group(self, pool: str) -> Any:
        (group,) = self.client.describe_auto_scaling_groups(AutoScalingGroupNames=[self.groups[pool]])[
            "AutoScalingGroups"
        ]
        return group

    def live(self, pool: str) -> set[str]:
        return {each["InstanceId"] for each in self.group(pool)["Instances"]}

    def allow(self, pool: str, most: int) -> None:
        self.client.update_auto_scaling_group(AutoScalingGroupName=self.groups[pool], MaxSize=most)

    def _set(self, mode: Mode) -> None:
        self.proxy.set(mode)

    def fail(self) -> None:
        self._set("fail")

    def hang(self) -> None:
        self._set("hang")

    def lie(self) -> None:
        self._set("lie")

    def work(self) -> None:
        self._set("work")

    def stop(self) -> None:
        self.proxy.stop()
