"""Providers behind the actuator `command`: a minimal program, and both examples on stand-ins for `aws` and `ssh`."""

import json
import os
import sys
from pathlib import Path
from typing import Any

from scheduler.actuators.command import CommandActuator
from tests.contracts.providers.provider import MOST, PATIENCE_S, POOLS

HERE = Path(__file__).parent
EXAMPLES = HERE.parents[2] / "examples"


class _Programs:
    """A program with a folder, which has the mode of its provider and the state of its machines."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.work()

    @property
    def argv(self) -> tuple[str, ...]:
        raise NotImplementedError

    def actuator(self, timeout_s: float = PATIENCE_S) -> CommandActuator:
        return CommandActuator(("env", f"PROVIDER={self.folder}", *self.argv), timeout_s)

    def calls(self) -> list[str]:
        """The command lines of the calls so far, oldest first."""
        file = self.folder / "calls"
        return file.read_text().splitlines() if file.exists() else []

    def allow(self, pool: str, most: int) -> None:
        (self.folder / f"most-{pool}").write_text(str(most))

    def _mode(self, mode: str) -> None:
        (self.folder / "mode").write_text(mode)

    def fail(self) -> None:
        self._mode("fail")

    def hang(self) -> None:
        self._mode("hang")

    def lie(self) -> None:
        self._mode("lie")

    def work(self) -> None:
        self._mode("work")

    def stop(self) -> None:
        pass


class MinimalProgram(_Programs):
    """The least that a program of the operator's must do."""

    @property
    def argv(self) -> tuple[str, ...]:
        return (sys.executable, "-S", str(HERE / "minimal_program.py"))

    def live(self, pool: str) -> set[str]:
        file = self.folder / "machines.json"
        machines: list[dict[str, Any]] = json.loads(file.read_text()) if file.exists() else []
        return {each["provider_id"] for each in machines if each["pool"] == pool}


class Ec2Cli(_Programs):
    """examples/scale-ec2-cli on a stand-in for `aws`."""

    @property
    def argv(self) -> tuple[str, ...]:
        cli = f"{sys.executable} -S {HERE / 'aws_cli.py'}"
        return (sys.executable, str(EXAMPLES / "scale-ec2-cli"), "--launch-template", "worker", "--cli", cli)

    def live(self, pool: str) -> set[str]:
        file = self.folder / "instances.json"
        instances: list[dict[str, Any]] = json.loads(file.read_text()) if file.exists() else []
        return {
            each["InstanceId"]
            for each in instances
            if {"Key": "headrace:pool", "Value": pool} in each["Tags"] and each["State"]["Name"] == "running"
        }


class SshHosts(_Programs):
    """examples/scale-ssh-hosts on a stand-in for `ssh`, which runs the commands here, each machine in its folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        (folder / "bin").mkdir()
        for name in ("ssh", "systemctl"):
            (folder / "bin" / name).symlink_to(HERE / "ssh_hosts")
        self.addresses = {pool: [f"user@{pool}-{number}" for number in range(MOST)] for pool in POOLS}
        lines = [f"{pool} {address}" for pool in POOLS for address in self.addresses[pool]]
        for address in (address for addresses in self.addresses.values() for address in addresses):
            (folder / address).mkdir()
        (folder / "machines").write_text("# the pool and the address\n\n" + "\n".join(lines) + "\n")

    @property
    def argv(self) -> tuple[str, ...]:
        path = f"PATH={self.folder / 'bin'}:{os.defpath}"
        script = (sys.executable, str(EXAMPLES / "scale-ssh-hosts"))
        return (path, *script, "--machines", str(self.folder / "machines"), "--unit", "headrace-gpu")

    def live(self, pool: str) -> set[str]:
        return {each for each in self.addresses[pool] if (self.folder / each / "active").exists()}

    def allow(self, pool: str, most: int) -> None:
        """Let as many of the idle machines be silent as are too many."""
        silent = sorted(set(self.addresses[pool]) - self.live(pool))[max(0, most - len(self.live(pool))) :]
        (self.folder / f"silent-{pool}").write_text("\n".join(silent))
