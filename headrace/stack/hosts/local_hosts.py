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
        pool: the one pool that the hosts serve.
        max_hosts: the most hosts at once, draining ones included. Each takes memory.
        provision_s: how long a host waits before its process starts, as if it were ordered from a provider.
        first_port: the metrics port of a first host; others get the next free ones.
        logs: the folder of the hosts' logs.
    """

    pool: str
    max_hosts: int
    provision_s: float
    first_port: int
    logs: Path


class LocalHosts:
    """Answers requests for hosts. Safe to call from several threads.

    Attributes:
        roster: the hosts' services, for the supervisor. It begins with one host, which starts without a delay.
    """

    def __init__(
        self, bounds: HostBounds, make_service: Callable[[str, str, int], Service], say: Callable[[str], None]
    ) -> None:
        """Start nothing yet.

        Args:
            make_service: makes a host's service of its process name, its host id, and its metrics port.
            say: gets each line of progress.
        """
        self._bounds = bounds
        self._make_service = make_service
        self._lock = Lock()
        self._ports: dict[str, int] = {}
        # A new id each time: the lease of an earlier run's host has ended.
        self.roster = Roster(say, [self._service(f"local-{secrets.token_hex(4)}", present=())])

    @property
    def metrics_ports(self) -> dict[str, int]:
        """The metrics port of each host, by the name of its process."""
        return {name: port for name, port in self._ports.items() if name in self.roster.states()}

    def answer(self, request: HostRequest) -> HostAnswer:
        """Do what is requested. Raises: StackError: it is refused."""
        if request.pool != self._bounds.pool:
            raise StackError(f"This stack has hosts of pool '{self._bounds.pool}' alone, not of '{request.pool}'.")
        with self._lock:
            if isinstance(request, ListHosts):
                return self._listed(None)
            if isinstance(request, StartHost):
                self._start(request.host_id)
            else:
                self.roster.remove(PREFIX + request.host_id)
            return self._listed(request.host_id)

    def _start(self, host_id: str) -> None:
        present = self.roster.states()
        if PREFIX + host_id in present:
            return
        if len(present) >= self._bounds.max_hosts:
            raise StackError(
                f"{len(present)} hosts run, start or stop on this machine, and no more than "
                f"{self._bounds.max_hosts} may: 'headrace up --scale --max-hosts' sets the limit."
            )
        self.roster.add(self._service(host_id, present), self._bounds.provision_s)

    def _service(self, host_id: str, present: Collection[str]) -> Service:
        name = PREFIX + host_id
        self._ports = {host: port for host, port in self._ports.items() if host in present}
        self._ports[name] = ports.pick(self._bounds.first_port, taken=self._ports.values())
        return replace(self._make_service(name, host_id, self._ports[name]), after_stop=self._remove_old_logs)

    def _remove_old_logs(self) -> None:
        present = self.roster.states()
        logs = [log for log in self._bounds.logs.glob(f"{PREFIX}*.log*") if log.stem not in present]
        for log in sorted(logs, key=lambda log: log.stat().st_mtime)[:-KEPT_LOGS]:
            log.unlink()

    def _listed(self, host_id: str | None) -> HostAnswer:
        states = {name.removeprefix(PREFIX): state for name, state in self.roster.states().items()}
        hosts = [LocalHost(host_id=each, state=state) for each, state in states.items() if host_id in (None, each)]
        return HostAnswer(hosts=tuple(hosts))
