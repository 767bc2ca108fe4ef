"""The worker hosts of one machine: each is a GPU worker process with a host id, a node name and a port of its own.

The file follows a request for a host: the autoscaler's settings, the messages, the decision to grant it, and the socket
on which it comes. The supervisor starts and ends the processes. A message is one line of JSON each way:

    {"verb": "list", "pool": "chat"}
    {"verb": "start", "pool": "chat", "host_id": "host-1"}
    {"verb": "stop", "pool": "chat", "host_id": "host-1"}

An answer has the hosts that the request is about, or an error.
"""

import os
import secrets
import socketserver
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock, Thread
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator

from headrace.config import ScalingSettings, Settings
from headrace.errors import ConfigError, StackError
from headrace.stack import ports
from headrace.stack.services import MemberState, Roster, Service

#: The limit where neither the operator nor the settings file sets one: hosts of one machine share its memory.
MAX_HOSTS = 4
_SCALING = "HEADRACE_SCALING"


@dataclass(frozen=True, slots=True)
class ScaleOptions:
    """The options of `headrace up --scale`.

    Attributes:
        max_hosts: the most hosts; None for the settings' own limit, or MAX_HOSTS where they have none.
        provision_s: how long a host waits before its process starts; None for the settings' own value.
    """

    max_hosts: int | None = None
    provision_s: float | None = None


def scaled(settings: Settings, options: ScaleOptions, socket: Path) -> Settings:
    """Settings with which the autoscaler asks this socket for hosts of the served pool. Raises: ConfigError."""
    given, pool = settings.scaling, settings.pool
    own = given.of_pool(pool)
    min_hosts = max(1, own.min_hosts)
    max_hosts = options.max_hosts or (own.max_hosts if _sets(given, pool, "max_hosts") else max(MAX_HOSTS, min_hosts))
    if not _sets(given, pool, "min_hosts"):
        # The default is for hosts that can fail one by one, which the workers of one machine do not.
        min_hosts = min(min_hosts, max_hosts)
    provision_s = given.local.provision_s if options.provision_s is None else options.provision_s
    changed = given.model_dump(by_alias=True)
    changed |= {
        "mode": "active",
        "actuator": "local",
        "local": {"socket": str(socket), "provision_s": provision_s},
        "pools": _without_others(changed["pools"], settings)
        | {pool: changed["pools"].get(pool, {}) | {"min_hosts": min_hosts, "max_hosts": max_hosts}},
    }
    try:
        return settings.model_copy(update={"scaling": ScalingSettings.model_validate(changed)})
    except ValidationError as error:
        raise ConfigError(f"Setting scaling: {error.errors()[0]['msg']}.", param="scaling") from error


def _sets(given: ScalingSettings, pool: str, name: str) -> bool:
    """Whether the operator has set this for the pool or for all pools."""
    of_pool = given.pools.get(pool)
    return name in given.model_fields_set or (of_pool is not None and getattr(of_pool, name) is not None)


def scaling_variables(settings: Settings, inherited: Mapping[str, str]) -> dict[str, str]:
    """The environment, with all of the autoscaler's settings in place of those that it inherited."""
    rest = {name: value for name, value in inherited.items() if not name.upper().startswith(_SCALING)}
    return rest | {_SCALING: settings.scaling.model_dump_json(by_alias=True, exclude_none=True)}


def _without_others(pools: Mapping[str, Mapping[str, object]], settings: Settings) -> dict[str, Mapping[str, object]]:
    """The settings of the other pools: they have no host here, so the autoscaler must want none."""
    none: dict[str, object] = dict.fromkeys(("min_hosts", "max_hosts", "fixed_hosts"), 0)
    return {name: {**pools.get(name, {}), **none} for name in settings.own_pools if name != settings.pool}


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


#: The name of a host's process: as its Celery node is called, and unlike any name of the Procfile.
PREFIX = "gpu@"
#: Logs of ended hosts that are kept. Each host has a log of its own, and hosts come and go for as long as a stack runs.
KEPT_LOGS = 20


@dataclass(frozen=True, slots=True)
class HostBounds:
    """What the operator grants.

    Attributes:
        pools: the pools that hosts may serve. The first host serves the first of them.
        max_hosts: the most hosts at once, draining ones included. Each takes memory.
        provision_s: how long a host waits before its process starts, as if it were ordered from a provider.
        first_port: the metrics port of a first host; others get the next free ones.
        logs: the folder of the hosts' logs.
    """

    pools: tuple[str, ...]
    max_hosts: int
    provision_s: float
    first_port: int
    logs: Path


@dataclass(frozen=True, slots=True)
class HostProcess:
    """What tells the process of one host from those of others."""

    host_id: str
    pool: str
    metrics_port: int

    @property
    def name(self) -> str:
        """Its name for the supervisor."""
        return PREFIX + self.host_id


class LocalHosts:
    """Answers requests for hosts. Safe to call from several threads.

    Attributes:
        roster: the hosts' services, for the supervisor. It begins with one host, which starts without a delay.
    """

    def __init__(
        self, bounds: HostBounds, make_service: Callable[[HostProcess], Service], say: Callable[[str], None]
    ) -> None:
        """Start nothing yet. Args: say: gets each line of progress."""
        self._bounds = bounds
        self._make_service = make_service
        self._lock = Lock()
        self._processes: dict[str, HostProcess] = {}
        # A new id each time: the lease of an earlier run's host has ended.
        first = self._service(f"local-{secrets.token_hex(4)}", bounds.pools[0], present=())
        self.roster = Roster(say, [first])

    @property
    def metrics_ports(self) -> dict[str, int]:
        """The metrics port of each host, by the name of its process."""
        present = self.roster.states()
        return {name: process.metrics_port for name, process in self._processes.items() if name in present}

    def answer(self, request: HostRequest) -> HostAnswer:
        """Do what is requested. Raises: StackError: it is refused."""
        if isinstance(request, StartHost) and request.pool not in self._bounds.pools:
            pools = ", ".join(self._bounds.pools)
            raise StackError(f"This stack has no hosts of pool '{request.pool}', only of: {pools}.")
        with self._lock:
            if isinstance(request, ListHosts):
                return self._listed(request.pool, None)
            if isinstance(request, StartHost):
                self._start(request.host_id, request.pool)
            elif self._is_of(PREFIX + request.host_id, request.pool):
                self.roster.remove(PREFIX + request.host_id)
            return self._listed(request.pool, request.host_id)

    def _start(self, host_id: str, pool: str) -> None:
        present = self.roster.states()
        if PREFIX + host_id in present:
            if not self._is_of(PREFIX + host_id, pool):
                raise StackError(f"Host {host_id} serves another pool than '{pool}'.")
            return
        if len(present) >= self._bounds.max_hosts:
            raise StackError(
                f"{len(present)} hosts run, start or stop on this machine, and no more than "
                f"{self._bounds.max_hosts} may: 'headrace up --scale --max-hosts' sets the limit."
            )
        self.roster.add(self._service(host_id, pool, present), self._bounds.provision_s)

    def _is_of(self, name: str, pool: str) -> bool:
        return name in self._processes and self._processes[name].pool == pool

    def _service(self, host_id: str, pool: str, present: Collection[str]) -> Service:
        processes = {name: process for name, process in self._processes.items() if name in present}
        taken = [process.metrics_port for process in processes.values()]
        process = HostProcess(host_id, pool, ports.pick(self._bounds.first_port, taken))
        self._processes = {**processes, process.name: process}
        return replace(self._make_service(process), after_stop=self._remove_old_logs)

    def _remove_old_logs(self) -> None:
        present = self.roster.states()
        logs = [log for log in self._bounds.logs.glob(f"{PREFIX}*.log*") if log.stem not in present]
        for log in sorted(logs, key=lambda log: log.stat().st_mtime)[:-KEPT_LOGS]:
            log.unlink()

    def _listed(self, pool: str, host_id: str | None) -> HostAnswer:
        """The hosts of the pool, or the one with this id."""
        states = self.roster.states()
        hosts = [
            LocalHost(host_id=process.host_id, state=states[name])
            for name, process in self._processes.items()
            if name in states and process.pool == pool and host_id in (None, process.host_id)
        ]
        return HostAnswer(hosts=tuple(hosts))


#: Seconds that a client may take for each part of its request.
PATIENCE_S = 2.0
#: The most bytes of a socket's path. Linux has room for 108, the last of which is 0.
MAX_PATH_BYTES = 107

Answer = Callable[[HostRequest], HostAnswer]


@contextmanager
def host_socket(path: Path, answer: Answer) -> Iterator[None]:
    """Answer requests on this socket, in threads of their own, for the length of a block.

    Only this user can connect. Raises: StackError: the socket cannot be made.
    """
    if len(os.fsencode(path)) > MAX_PATH_BYTES:
        raise StackError(f"The path of the socket {path} is too long: set HEADRACE_STATE to a folder with a short one.")
    # A killed stack leaves its socket. The state folder's lock says that no other stack uses it.
    path.unlink(missing_ok=True)
    try:
        server = _Server(path, answer)
    except OSError as error:
        raise StackError(f"The socket {path} cannot be made: {error.strerror}.") from error
    with server:
        thread = Thread(target=server.serve_forever, name="hosts", daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
            path.unlink(missing_ok=True)


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, path: Path, answer: Answer) -> None:
        self.answer = answer
        super().__init__(str(path), _Handler)

    def server_bind(self) -> None:
        # The mode must be right from the first moment on: any client that connects can start processes as this user.
        before = os.umask(0o177)
        try:
            super().server_bind()
        finally:
            os.umask(before)


class _Handler(socketserver.StreamRequestHandler):
    timeout = PATIENCE_S
    server: _Server

    def handle(self) -> None:
        # A client that stalls, or has gone, gets no answer.
        with suppress(OSError):
            line = self.rfile.readline(MAX_REQUEST_BYTES + 1)
            self.wfile.write(self._answer(line).model_dump_json(exclude_none=True).encode() + b"\n")

    def _answer(self, line: bytes) -> HostAnswer:
        if not line.endswith(b"\n"):
            return HostAnswer(hosts=(), error=f"A request is one line of at most {MAX_REQUEST_BYTES} bytes.")
        try:
            return self.server.answer(HOST_REQUEST.validate_json(line))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"]))
            return HostAnswer(
                hosts=(), error=f"The request is not valid: {where + ': ' if where else ''}{first['msg']}."
            )
        except StackError as error:
            return HostAnswer(hosts=(), error=str(error))
