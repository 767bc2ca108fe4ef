"""A real supervisor with hosts, in a process of its own. Its hosts are small programs in place of workers."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

from scheduler.actuators.base import HostMachine, HostOrder
from scheduler.actuators.local import LocalActuator
from tests.waiting import until

DEADLINE_S = 20.0
POOL = "chat"

#: Prints each line that it says, and its pids on each change.
SUPERVISE = """
import json, os, sys
from pathlib import Path
from headrace.errors import StackError
from headrace.stack.hosts import host_socket
from headrace.stack.hosts import ListHosts, StartHost
from headrace.stack.hosts import HostBounds, LocalHosts
from headrace.stack.state_folder import state_lock
from headrace.stack.child import Command
from headrace.stack.services import Service
from headrace.stack.supervisor import Supervisor

folder, options = Path(sys.argv[1]), json.loads(sys.argv[2])
bounds = HostBounds(tuple(options["pools"]), options["max_hosts"], options["provision_s"], 20_464, folder / "logs")

def say(line):
    print(line, flush=True)

def make_service(process):
    argv = (sys.executable, "-c", options["code"], str(folder), process.host_id)
    command = Command(process.name, argv, dict(os.environ), folder)
    return Service(command, (folder / process.host_id).exists, stop_timeout_s=options["stop_timeout_s"])

def answer(request):
    limit = folder / f"most-{request.pool}"
    if isinstance(request, StartHost) and limit.exists():
        if len(hosts.answer(ListHosts(pool=request.pool)).hosts) >= int(limit.read_text()):
            raise StackError("There is no room for another host.")
    return hosts.answer(request)

hosts = LocalHosts(bounds, make_service, say)
with state_lock(folder) as lock, host_socket(folder / "hosts.sock", answer):
    supervisor = Supervisor([[]], folder / "logs", lock, say, hosts.roster)
    supervisor.run(lambda: not say("PIDS " + json.dumps(supervisor.pids)))
"""

#: Programs. Each gets the folder and its host's id as arguments, and is ready once it has made its file.
START = "import os, pathlib, signal, sys; folder, name = pathlib.Path(sys.argv[1]), sys.argv[2]; "
READY = "(folder / name).write_text(str(os.getpid())); "
OBEDIENT = START + READY + "signal.pause()"
#: Drains for as long as the file `drain` exists, then says that it ended by itself.
DRAINING = START + (
    "drain = lambda *_: ([signal.sigtimedwait([], 0.02) for _ in iter((folder / 'drain').exists, False)], "
    "(folder / f'{name}-drained').touch(), sys.exit()); "
    "signal.signal(signal.SIGTERM, drain); " + READY + "signal.pause()"
)
STUBBORN = START + "signal.signal(signal.SIGTERM, signal.SIG_IGN); " + READY + "[signal.pause() for _ in iter(int, 1)]"


def is_running(pid: int) -> bool:
    """True for a process that has not ended; an uncollected one has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


class HostStack:
    """A supervisor with hosts.

    Attributes:
        actuator: asks it for hosts.
    """

    def __init__(self, folder: Path, code: str = OBEDIENT, **options: Any) -> None:
        """Start it. Args: options: `pools`, `max_hosts`, `provision_s` and `stop_timeout_s`."""
        self.folder = folder
        self.output = folder / "output"
        self.actuator = LocalActuator(folder / "hosts.sock")
        values = {"code": code, "pools": [POOL], "max_hosts": 4, "provision_s": 0.0, "stop_timeout_s": DEADLINE_S}
        with self.output.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-c", SUPERVISE, str(folder), json.dumps(values | options)],
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        self.says("PIDS")
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def says(self, text: str) -> None:
        """Return once it has said this."""
        until(lambda: text in self.output.read_text(), f"{text!r} in {self.output.read_text()!r}")

    @property
    def pids(self) -> dict[str, int]:
        """The pid of each host, as last reported."""
        lines = [line for line in self.output.read_text().splitlines() if line.startswith("PIDS ")]
        pids: dict[str, int] = json.loads(lines[-1].removeprefix("PIDS "))
        return {name.removeprefix("gpu@"): pid for name, pid in pids.items()}

    @property
    def first(self) -> str:
        """The id of the host that was not asked for."""
        return next(machine.provider_id for machine in self.machines if machine.provider_id.startswith("local-"))

    @property
    def machines(self) -> list[HostMachine]:
        """The listed hosts."""
        return self.actuator.machines(POOL)

    @property
    def ids(self) -> set[str]:
        """Their ids."""
        return {machine.provider_id for machine in self.machines}

    def order(self, *host_ids: str) -> list[HostMachine]:
        """Order hosts."""
        return self.actuator.order(POOL, [HostOrder(host_id, POOL) for host_id in host_ids], self.machines)

    def release(self, *host_ids: str) -> None:
        """Release hosts."""
        self.actuator.release(POOL, [HostMachine(host_id, host_id) for host_id in host_ids])

    def allow(self, pool: str, most: int) -> None:
        """Have no more than this many hosts of the pool."""
        (self.folder / f"most-{pool}").write_text(str(most))

    def is_ready(self, host_id: str) -> bool:
        """Whether its program runs."""
        return (self.folder / host_id).exists() and host_id in self.pids

    def kill(self, host_id: str, number: int) -> int:
        """Send a signal to a host's process. Returns: the pid that got it."""
        pid = self.pids[host_id]
        (self.folder / host_id).unlink()
        os.kill(pid, number)
        return pid
