"""What a control process and the supervisor say to each other about local hosts: one line of JSON each way.

    {"verb": "list", "pool": "chat"}
    {"verb": "start", "pool": "chat", "host_id": "host-1"}
    {"verb": "stop", "pool": "chat", "host_id": "host-1"}

An answer has the hosts that the request is about, or an error.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, field_validator

from headrace.stack.processes.roster import MemberState

#: The longest request and the longest answer, in bytes.
MAX_REQUEST_BYTES = 4096
MAX_ANSWER_BYTES = 1 << 20

#: A host's id is part of a file's name, of a Celery node's name, and of a process's environment.
HostId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=100)]


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ListHosts(_Message):
    """Names all hosts of a pool."""

    verb: Literal["list"] = "list"
    pool: str


class StartHost(_Message):
    """Starts a host, unless it exists."""

    verb: Literal["start"] = "start"
    pool: str
    host_id: HostId


class StopHost(_Message):
    """Stops a host, if it exists. Its worker finishes its jobs within `drain_s`."""

    verb: Literal["stop"] = "stop"
    pool: str
    host_id: HostId


HostRequest = ListHosts | StartHost | StopHost
#: Reads a request.
HOST_REQUEST: TypeAdapter[HostRequest] = TypeAdapter(Annotated[HostRequest, Field(discriminator="verb")])


class LocalHost(_Message):
    """A host of this machine. WAITING: it is being provisioned. It is listed until its process has ended."""

    host_id: HostId
    state: MemberState


class HostAnswer(_Message):
    """The hosts that the request is about, as they stand after it.

    Attributes:
        hosts: required, so that an answer that lacks them by mistake does not read as "no host is left".
        error: why the request was refused; None if it was not.
    """

    hosts: tuple[LocalHost, ...]
    error: str | None = None

    @field_validator("hosts")
    @classmethod
    def _are_different(cls, hosts: tuple[LocalHost, ...]) -> tuple[LocalHost, ...]:
        if len({host.host_id for host in hosts}) < len(hosts):
            raise ValueError("a host is listed twice")
        return hosts
