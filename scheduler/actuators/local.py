"""The hosts of one machine: worker processes that the supervisor of `headrace up --scale` starts and ends.

The supervisor keeps them, so that they outlive this process.
"""

import json
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from headrace.config import Settings
from headrace.errors import ActuatorUnavailable, ConfigError
from headrace.stack.hosts import MAX_ANSWER_BYTES, HostAnswer, LocalHost
from headrace.stack.services import MemberState
from scheduler.actuators.base import Actuator, HostMachine, HostOrder

#: Seconds that the supervisor may take to connect, and for each part of its answer. It answers in milliseconds.
TIMEOUT_S = 2.0


def build(settings: Settings) -> "LocalActuator":
    path = settings.scaling.local.socket
    if path is None:
        message = "The actuator 'local' needs a supervisor that starts workers: run 'headrace up --scale'."
        raise ConfigError(message, param="scaling.local.socket")
    return LocalActuator(Path(path))


class LocalActuator(Actuator):
    """Asks the supervisor over its Unix socket. A host's `provider_id` is our own id of it."""

    name = "local"
    names_hosts = True

    def __init__(self, path: Path, timeout_s: float = TIMEOUT_S) -> None:
        self._path, self._timeout_s = path, timeout_s
        # It connects, sends, and reads.
        self.patience_s = 3 * timeout_s

    def machines(self, pool: str) -> list[HostMachine]:
        """List the pool's hosts; a stopped one as long as its process runs."""
        answer = self._ask({"verb": "list", "pool": pool})
        if answer.error is not None:
            raise ActuatorUnavailable(answer.error)
        return [_machine(host) for host in answer.hosts]

    def order(self, pool: str, orders: Sequence[HostOrder], present: Sequence[HostMachine]) -> list[HostMachine]:
        """Start hosts. Raises: ActuatorUnavailable: also if the supervisor accepts none of them."""
        accepted: list[HostMachine] = []
        refusal = None
        for order in orders:
            answer = self._ask({"verb": "start", "pool": pool, "host_id": order.host_id})
            accepted += map(_machine, answer.hosts)
            refusal = answer.error or refusal
        if refusal is not None and not accepted:
            raise ActuatorUnavailable(refusal)
        return accepted

    def release(self, pool: str, machines: Sequence[HostMachine]) -> None:
        """Stop hosts. Their workers finish what they run within `drain_s`."""
        for machine in machines:
            self._ask({"verb": "stop", "pool": pool, "host_id": machine.provider_id})

    def _ask(self, request: Mapping[str, str]) -> HostAnswer:
        """The supervisor's answer, which may be a refusal. Raises: ActuatorUnavailable: there is none."""
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(self._timeout_s)
                connection.connect(str(self._path))
                connection.sendall(json.dumps(request).encode() + b"\n")
                with connection.makefile("rb") as answers:
                    line = answers.readline(MAX_ANSWER_BYTES)
            return HostAnswer.model_validate_json(line)
        except OSError as error:
            message = f"The supervisor of 'headrace up --scale' does not answer on {self._path}: {error}."
            raise ActuatorUnavailable(message) from error
        except ValidationError as error:
            raise ActuatorUnavailable(f"The answer on {self._path} is not a supervisor's: {line[:100]!r}.") from error


def _machine(host: LocalHost) -> HostMachine:
    return HostMachine(host.host_id, host.host_id, is_ending=host.state is MemberState.STOPPING)
