"""The operator's own program as an actuator: one JSON request on its standard input, one JSON answer on its output.

docs/actuators.md describes the requests. The program keeps our host ids, so it can tell whether it has started a host.
"""

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from typing import IO, Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from headrace.config import Settings
from headrace.errors import ActuatorUnavailable, ConfigError
from scheduler.actuators.base import Actuator, HostMachine, HostOrder

#: The version of the requests. A request of another version means something else; new fields do not change it.
VERSION = 1
#: The most that is read of an answer. A host takes about 100 bytes.
_LONGEST_ANSWER = 4 * 1024 * 1024
#: The most characters of standard error that an error message quotes.
_LONGEST_QUOTE = 300

_Name = Annotated[str, Field(min_length=1, max_length=200)]


class _Host(BaseModel):
    provider_id: _Name
    host_id: _Name | None = None
    ending: bool = False


class _Answer(BaseModel):
    # Required: an answer that lacks it by mistake must not read as "no machine is left".
    hosts: list[_Host]


def build(settings: Settings) -> "CommandActuator":
    """Make the actuator. Raises: ConfigError: no program is set."""
    command = settings.scaling.command
    if not command.argv:
        message = "The actuator 'command' needs a program: set [scaling.command] argv."
        raise ConfigError(message, param="scaling.command.argv")
    return CommandActuator(command.argv, command.timeout_s)


class CommandActuator(Actuator):
    """Runs the program once for each call."""

    name = "command"
    names_hosts = True

    def __init__(self, argv: Sequence[str], timeout_s: float) -> None:
        self._argv = tuple(argv)
        self.patience_s = self._timeout_s = timeout_s

    def machines(self, pool: str) -> list[HostMachine]:
        return self._hosts(self._ask("list", pool, []))

    def order(self, pool: str, orders: Sequence[HostOrder], present: Sequence[HostMachine]) -> list[HostMachine]:
        """Start the hosts that have no machine yet. The program may answer with fewer than were ordered."""
        if not orders:
            return []
        asked = [{"host_id": each.host_id, "instance_type": each.instance_type} for each in orders]
        machines = self._hosts(self._ask("order", pool, asked))
        ordered = {each.host_id for each in orders}
        for index, machine in enumerate(machines):
            if machine.host_id not in ordered:
                raise self._wrong(f"hosts.{index}.host_id", f"{machine.host_id!r} was not ordered")
        return machines

    def release(self, pool: str, machines: Sequence[HostMachine]) -> None:
        if machines:
            asked = [{"host_id": each.host_id, "provider_id": each.provider_id} for each in machines]
            self._ask("release", pool, asked)

    def _hosts(self, answer: object) -> list[HostMachine]:
        """Check an answer's hosts: no machine and no host may come twice."""
        try:
            hosts = _Answer.model_validate(answer).hosts
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise self._wrong(".".join(map(str, first["loc"])), first["msg"]) from error
        for key in ("provider_id", "host_id"):
            seen: set[str] = set()
            for index, host in enumerate(hosts):
                value = getattr(host, key)
                if value in seen:
                    raise self._wrong(f"hosts.{index}.{key}", f"{value!r} comes twice")
                if value is not None and not host.ending:
                    seen.add(value)
        return [HostMachine(host.provider_id, host.host_id, host.ending) for host in hosts]

    def _wrong(self, field: str, problem: str) -> ActuatorUnavailable:
        where = f" in '{field}'" if field else ""
        return ActuatorUnavailable(f"{self._argv[0]} answered wrongly{where}: {problem}.")

    def _ask(self, do: str, pool: str, hosts: list[dict[str, Any]]) -> object:
        """Run the program once and read its answer."""
        request = {"version": VERSION, "do": do, "pool": pool, "hosts": hosts}
        # Files and not pipes: a process that the program leaves behind, such as the master of an SSH connection, keeps
        # a pipe open, and the end of its output would never come.
        with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
            stdin.write(json.dumps(request).encode() + b"\n")
            stdin.seek(0)
            status = self._run(do, stdin, stdout, stderr)
            if status != 0:
                ended = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
                raise ActuatorUnavailable(f"{self._argv[0]} {ended} at '{do}'{_last_line(stderr)}")
            stdout.seek(0)
            text = stdout.read(_LONGEST_ANSWER + 1)
        if len(text) > _LONGEST_ANSWER:
            raise self._wrong("", f"more than {_LONGEST_ANSWER} bytes")
        try:
            return json.loads(text)
        except ValueError as error:
            raise self._wrong("", f"no JSON ({error})") from error

    def _run(self, do: str, stdin: IO[bytes], stdout: IO[bytes], stderr: IO[bytes]) -> int:
        """Run the program to its end, or kill it with all its children."""
        try:
            process = subprocess.Popen(
                self._argv, stdin=stdin, stdout=stdout, stderr=stderr, start_new_session=True, close_fds=True
            )
        except OSError as error:
            raise ActuatorUnavailable(f"{self._argv[0]} cannot be started: {error.strerror}.") from error
        try:
            return process.wait(self._timeout_s)
        except subprocess.TimeoutExpired as late:
            said = _last_line(stderr)
            raise ActuatorUnavailable(f"{self._argv[0]} did not end '{do}' in {self._timeout_s:g} s{said}") from late
        finally:
            # Also when this process is told to end meanwhile.
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _last_line(stderr: IO[bytes]) -> str:
    """The last line that the program wrote, for the end of an error message."""
    end = stderr.seek(0, os.SEEK_END)
    stderr.seek(max(0, end - 4 * _LONGEST_QUOTE))
    lines = stderr.read().decode(errors="replace").split("\n")
    said = next((line.strip() for line in reversed(lines) if line.strip()), "")
    printable = "".join(character if character.isprintable() else " " for character in said)
    return f": {printable[-_LONGEST_QUOTE:]}" if printable else "."
