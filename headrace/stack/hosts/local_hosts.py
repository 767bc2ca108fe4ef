"""The worker hosts of one machine: each is a GPU worker process with a host id, a node name and a port of its own.

Decides which requests to grant. The supervisor starts and ends the processes.
"""

import secrets
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock

from headrace.errors import StackError
from headrace.stack import ports
from headrace.stack.hosts.messages import HostAnswer, HostRequest, ListHosts, LocalHost, StartHost
from headrace.stack.processes.roster import Roster
from headrace.stack.processes.service import Service

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
