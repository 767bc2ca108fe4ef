"""Everything that runs on one machine: the servers, the Procfile's processes, and each one's readiness check.

Decides which processes run, and with which environment. The supervisor runs them.
"""

import json
import os
import sys
import weakref
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType

from pydantic import SecretStr

from headrace import connections
from headrace.broker.messages import make_celery
from headrace.config import PROJECT_ROOT, PoolSettings, Settings
from headrace.domain.queues import OVERFLOW
from headrace.errors import StackError
from headrace.installed import plugins
from headrace.policies.cpus import CpuPlace, give_out
from headrace.stack import ports, readiness
from headrace.stack.child import STOP_TIMEOUT_S, Command, read_procfile, shell
from headrace.stack.hosts import HostBounds, HostProcess, LocalHosts, ScaleOptions, scaled, scaling_variables
from headrace.stack.model import PreparedModel
from headrace.stack.postgres import Postgres
from headrace.stack.services import Service
from headrace.stack.state_folder import persistent_secret
from headrace.stack.valkey import Valkey
from headrace.store import Store
from headrace.store.fleet import hosts, workers
from headrace.store.fleet.hosts import removed_pools

#: The Procfile's process of a GPU worker. Here it serves the first pool, or the one that `HEADRACE_POOL` names.
GPU = "gpu"
#: The metrics port of the first worker beside `gpu`.
MORE_METRICS_PORT = 17_464
_POOLS = "HEADRACE_POOLS"
#: What overrides the served pool's settings, and would override those of another pool in its own worker.
_OF_THE_SERVED_POOL = ("HEADRACE_MODEL", "HEADRACE_MODEL_DIR", "HEADRACE_ENGINE")


@dataclass(frozen=True, slots=True)
class GpuWorkers:
    """The workers' processes by name.

    Attributes:
        pools: by process name, the pool that it serves: `gpu`, and `gpu-POOL` for each other pool.
    """

    pools: Mapping[str, str]

    @classmethod
    def of(cls, settings: Settings) -> "GpuWorkers":
        """One for each pool that is not the paid API's."""
        return cls({GPU if pool == settings.pool else f"{GPU}-{pool}": pool for pool in settings.own_pools})

    @property
    def others(self) -> tuple[str, ...]:
        """The processes beside `gpu`."""
        return tuple(name for name in self.pools if name != GPU)

    def among(self, lines: Iterable[str]) -> list[str]:
        """The Procfile's processes, with the workers of other pools behind `gpu`."""
        return [each for name in lines for each in ((GPU, *self.others) if name == GPU else (name,))]

    def metrics_ports(self, apart: int) -> dict[str, int]:
        """The preferred metrics port of each other worker. Args: apart: between one and the next."""
        return {name: MORE_METRICS_PORT + no * apart for no, name in enumerate(self.others)}

    def left_out(self, without: Collection[str], *, is_scaled: bool) -> dict[str, str]:
        """The other workers that do not run, and why.

        Args:
            without: processes that are left out as asked.
            is_scaled: hosts come and go in place of `gpu`.
        """
        if GPU in without:
            return dict.fromkeys(self.others, f"as {GPU} is")
        if is_scaled:
            return dict.fromkeys(self.others, "--scale runs hosts of the served pool alone")
        return {}

    def env(self, name: str) -> dict[str, str]:
        """What tells this process its pool."""
        return {"HEADRACE_POOL": self.pools[name]} if name in self.others else {}


def pool_variables(
    settings: Settings, models: Mapping[str, PreparedModel], inherited: Mapping[str, str]
) -> dict[str, str]:
    """The environment, with every pool as it is served here, so that all processes know all pools alike.

    Args:
        models: by pool, the model that its engine loads.
        inherited: the environment. Its variables of single pools are in the settings already.
    """
    rest = {name: value for name, value in inherited.items() if not name.upper().startswith(_POOLS)}
    pools = {
        name: pool.model_dump(mode="json", exclude_unset=True)
        | ({"model_dir": str(models[name].folder)} if name in models else {})
        for name, pool in settings.pools.items()
    }
    return rest | dict.fromkeys(_OF_THE_SERVED_POOL, "") | {_POOLS: json.dumps(pools)}


WEB_PORT, OPS_PORT, FLOWER_PORT, POSTGRES_PORT, VALKEY_PORT = 8000, 8600, 5555, 15_432, 16_379
#: The port of each process's metrics.
METRICS_PORTS = MappingProxyType(
    {
        **{"plugins": 7464, "gpu": 9464, "overflow": 10_464, "webhooks": 11_464},
        **{"control": 12_464, "web": 13_464, "ops": 14_464},
    }
)
#: The metrics port of a stack's first host. Each stack has HOSTS_APART of these ports, so that the hosts of stacks
#: beside each other meet no port that another one was promised. The highest is below the kernel's own choices.
HOST_METRICS_PORT, HOSTS_APART = 20_464, 20
#: The most stacks beside each other. Must be less than the distance between any two of the ports above.
PORTS_APART = 500
FLOWER_USER = "operator"
#: vLLM's variable that names the CPUs of an engine's threads.
ENGINE_CPUS = "VLLM_CPU_OMP_THREADS_BIND"
#: With one of these, an engine is several processes, and vLLM wants a list for each.
_PARALLEL = frozenset({"tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size"})
#: A server that ends this often in a row, each time after a short life, ends the whole stack.
SERVER_GIVES_UP_AFTER = 5
SERVER_TIMEOUT_S = 30.0
RELEASE_TIMEOUT_S = 120.0
ENGINE_TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True)
class StackOptions:
    """The caller's options for a machine.

    Attributes:
        without: processes of the Procfile that are left out.
        port: the API's port; None for the usual one or the next free one.
        models: by pool, the model that its vLLM engine loads.
        scale: the autoscaler adds and removes hosts in place of the one `gpu` process; None for that process.
    """

    without: frozenset[str] = frozenset()
    port: int | None = None
    models: Mapping[str, PreparedModel] = field(default_factory=dict)
    scale: ScaleOptions | None = None


class Machine:
    """One machine's services, stage by stage, and their addresses.

    Attributes:
        hosts: the hosts that come and go; None without `scale`.
    """

    def __init__(
        self, settings: Settings, options: StackOptions, say: Callable[[str], None] = lambda line: None
    ) -> None:
        """Choose ports and passwords. Starts nothing.

        Args:
            say: gets a line when a host comes or goes.

        Raises: ConfigError, StackError.
        """
        self._lines = read_procfile(PROJECT_ROOT / "Procfile")
        self._workers, self._options = GpuWorkers.of(settings), options
        self._check_names()
        self._holds: dict[int, weakref.finalize[..., Machine]] = {}
        state = settings.state_dir.resolve()
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        given = settings.model_fields_set
        self.web_port = self._web_port(options.port)
        settings.check_paid_api(self.url)
        # The ports of granian's processes are held as long as they run, and those of Postgres and Valkey until they
        # start: making Postgres' data takes seconds. The rest stay free until their process listens: a stack that
        # starts at the same time has another API port, and so searches elsewhere.
        shift = (self.web_port - WEB_PORT) % PORTS_APART
        self.ops_port = ports.pick(OPS_PORT + shift, is_free=self._hold)
        postgres_port = ports.pick(POSTGRES_PORT + shift, is_free=self._hold)
        valkey_port = ports.pick(VALKEY_PORT + shift, is_free=self._hold)
        self._postgres = None if "database_url" in given else Postgres(state / "postgres", postgres_port)
        self._valkey = None if "redis_url" in given else Valkey(state / "valkey", valkey_port)
        self.flower_port = ports.pick(FLOWER_PORT + shift, taken={self.web_port, self.ops_port})
        metrics_ports = METRICS_PORTS | self._workers.metrics_ports(PORTS_APART)
        self._metrics_ports = {name: ports.pick(port + shift) for name, port in metrics_ports.items()}
        self.settings = settings.model_copy(
            update={
                "state_dir": state,
                "database_url": self._postgres.url if self._postgres else settings.database_url,
                "redis_url": self._valkey.url if self._valkey else settings.redis_url,
                "pepper": settings.pepper if "pepper" in given else SecretStr(persistent_secret(state / "pepper")),
            }
        )
        if options.scale is not None:
            self.settings = scaled(self.settings, options.scale, self.host_socket)
        self._signs = readiness.SignsOfLife(self.settings)
        self._env = self._environment()
        self.hosts = None if options.scale is None else self._local_hosts(shift, say)

    def _check_names(self) -> None:
        """Raises: StackError: the Procfile has no process that is to be left out."""
        known = self._workers.among(self._lines)
        if unknown := self._options.without.difference(known):
            raise StackError(f"The Procfile has no {', '.join(sorted(unknown))}; it has {', '.join(known)}.")

    @property
    def has_postgres(self) -> bool:
        """Whether the stack runs Postgres itself."""
        return self._postgres is not None

    @property
    def logs(self) -> Path:
        """The folder with the output of each process."""
        return self.settings.state_dir / "logs"

    @property
    def host_socket(self) -> Path:
        """Where the supervisor is asked for hosts."""
        return self.settings.state_dir / "hosts.sock"

    @property
    def url(self) -> str:
        """The API's address."""
        return f"http://{ports.LOOPBACK}:{self.web_port}"

    @property
    def ops_url(self) -> str:
        """The address of the operators' pages."""
        return f"http://{ports.LOOPBACK}:{self.ops_port}"

    @property
    def flower_url(self) -> str:
        return f"http://{ports.LOOPBACK}:{self.flower_port}"

    @property
    def flower_auth(self) -> str:
        """Flower's login, as `USER:PASSWORD`."""
        return self._env["FLOWER_BASIC_AUTH"]

    @property
    def left_out(self) -> dict[str, str]:
        """The Procfile's processes that do not run, and why."""
        reasons = dict.fromkeys(sorted(self._options.without), "as asked")
        if self.settings.openai_api_key is None:
            reasons.setdefault("overflow", "OPENAI_API_KEY is not set")
        if self.settings.served_pool.is_paid:
            reasons.setdefault(GPU, f"the paid API alone answers pool '{self.settings.pool}'")
        return self._workers.left_out(self._options.without, is_scaled=self._options.scale is not None) | reasons

    @property
    def metrics_urls(self) -> dict[str, str]:
        """The URL of each process's metrics."""
        running = {name: port for name, port in self._metrics_ports.items() if name in self._names}
        if self.hosts is not None:
            running |= self.hosts.metrics_ports
        return {name: f"http://{ports.LOOPBACK}:{port}/metrics" for name, port in running.items()}

    def stages(self) -> list[list[Service]]:
        """The services to start, in order: each server, the release step, then all others at once."""
        stages = [[self._server(server)] for server in (self._postgres, self._valkey) if server]
        names = self._names
        if "release" in names:
            names.remove("release")
            release = Service(self._command("release"), once=True, ready_timeout_s=RELEASE_TIMEOUT_S)
            stages.append([release])
        return [*stages, [self._watched(self._process(name)) for name in names]]

    @property
    def _names(self) -> list[str]:
        """The Procfile's processes that always run. Hosts come and go in place of `gpu`."""
        absent = [*self.left_out, *([GPU] if self.hosts is not None else [])]
        return [name for name in self._workers.among(self._lines) if name not in absent]

    def _local_hosts(self, shift: int, say: Callable[[str], None]) -> LocalHosts:
        if reason := self.left_out.get("gpu"):
            raise StackError(f"There are no hosts to scale, because gpu is left out: {reason}.")
        scaling = self.settings.scaling
        bounds = HostBounds(
            (self.settings.pool,),
            scaling.of_pool(self.settings.pool).max_hosts,
            scaling.local.provision_s,
            HOST_METRICS_PORT + shift * HOSTS_APART,
            self.logs,
        )
        return LocalHosts(bounds, self._host, say)

    def _web_port(self, asked: int | None) -> int:
        if asked is None:
            return ports.pick(WEB_PORT, is_free=self._hold)
        if not self._hold(asked):
            raise StackError(f"Port {asked} is taken. Leave --port out to take the next free one.")
        return asked

    def _hold(self, port: int) -> bool:
        """Keep the port for a process as long as this machine lives. False if it is taken."""
        held = ports.hold(port)
        if held is None:
            return False
        self._holds[port] = weakref.finalize(self, held.close)
        return True

    def _server(self, server: Postgres | Valkey) -> Service:
        def prepare() -> None:
            server.prepare()
            if let_go := self._holds.get(server.port):
                let_go()

        service = Service(
            server.command(),
            server.is_ready,
            SERVER_TIMEOUT_S,
            give_up_after=SERVER_GIVES_UP_AFTER,
            before_start=prepare,
        )
        return replace(service, after_stop=server.release) if isinstance(server, Postgres) else service

    def _process(self, name: str) -> Service:
        """A process of the Procfile with its readiness check. A process not named here is ready once it runs."""
        service = Service(self._command(name))
        if name in (*self._workers.pools, "overflow"):
            row = readiness.WorkerRow(self.settings, self._workers.pools.get(name, OVERFLOW))
            return replace(self._worker(service.command, row), before_start=row.mark)
        match name:
            case "web":
                return replace(service, is_ready=lambda: readiness.answers(self.web_port, "/readyz"))
            case "ops":
                return replace(service, is_ready=lambda: readiness.answers(self.ops_port, "/healthz"))
            case "flower":
                return replace(service, is_ready=lambda: readiness.answers(self.flower_port, "/healthcheck"))
            case "webhooks" | "control":
                celery = make_celery("headrace.stack", self.settings)
                service = replace(service, is_ready=lambda: readiness.pongs(celery, name))
                return self._without_former_hosts(service) if name == "control" else service
            case "plugins":
                return replace(service, is_ready=readiness.Said(self.logs / "plugins.log", '"plugins_ready"').is_new)
            case "beat":
                return replace(service, is_ready=readiness.Said(self.logs / "beat.log", "beat: Starting").is_new)
            case _:
                return service

    def _without_former_hosts(self, control: Service) -> Service:
        """The control process, which finds no host of an earlier run. Hosts in another Postgres may be others'."""
        if self.hosts is None or self._postgres is None:
            return control
        return replace(control, before_start=lambda: end_former_hosts(self.settings))

    def _host(self, process: HostProcess) -> Service:
        """A host: the Procfile's `gpu` under another name. No earlier worker had its id, so that any row is its own."""
        env = self._env | {"HEADRACE_HOST_ID": process.host_id, "HEADRACE_METRICS_PORT": str(process.metrics_port)}
        command = Command(process.name, shell(self._lines["gpu"]), env, PROJECT_ROOT)
        settings = self.settings.model_copy(update={"host_id": process.host_id})
        return self._watched(self._worker(command, readiness.WorkerRow(settings, process.pool)))

    def _watched(self, service: Service) -> Service:
        """The service, killed if it gives no signs of life, with its ends noted in Postgres."""
        host_id = service.command.env.get("HEADRACE_HOST_ID") or self.settings.host_id
        hung, note = partial(self._signs.why_hung, host_id), partial(self._signs.note_end, host_id)
        return replace(service, why_hung=hung, note_end=note)

    def _worker(self, command: Command, row: readiness.WorkerRow) -> Service:
        return Service(
            command,
            row.is_live,
            ENGINE_TIMEOUT_S,
            # Twice `drain_s`: once to let its jobs finish, once to hand the rest back.
            stop_timeout_s=STOP_TIMEOUT_S + 2 * self.settings.drain_s,
        )

    def _command(self, name: str) -> Command:
        env = self._env | self._workers.env(name)
        if name in self._metrics_ports:
            env = env | {"HEADRACE_METRICS_PORT": str(self._metrics_ports[name])}
        place = self._places.get(name, CpuPlace())
        if place.of_engine:
            env = env | {ENGINE_CPUS: ",".join(map(str, place.of_engine))}
        line = self._lines[GPU if name in self._workers.pools else name]
        return Command(name, shell(line), env, PROJECT_ROOT, cpus=place.cpus)

    @property
    def _places(self) -> dict[str, CpuPlace]:
        """Where the processes of Python run that requests and jobs pass through. Stacks begin with different CPUs."""
        cpus = sorted(os.sched_getaffinity(0))
        start = (self.web_port - WEB_PORT) % len(cpus)
        busy = [name for name in ("web", *self._workers.pools, "overflow") if name in self._names]
        engines = {name: self._computes(pool) for name, pool in self._vllm_pools.items() if name in busy}
        return give_out(cpus[start:] + cpus[:start], busy, engines)

    @property
    def _vllm_pools(self) -> dict[str, PoolSettings]:
        pools = {name: self.settings.pools[pool] for name, pool in self._workers.pools.items()}
        return {name: pool for name, pool in pools.items() if pool.engine == "vllm"}

    def _computes(self, pool: PoolSettings) -> bool:
        """Whether vLLM computes on CPUs, and on how many is not the operator's choice."""
        is_chosen = not self._env.keys().isdisjoint({ENGINE_CPUS, "OMP_NUM_THREADS"})
        with suppress(PackageNotFoundError):
            return bool(version("vllm-cpu")) and not is_chosen and _PARALLEL.isdisjoint(pool.engine_options)
        return False

    def _environment(self) -> dict[str, str]:
        """The environment of the Procfile's processes: this process's own, with every address and secret added."""
        inherited = dict(os.environ)  # noqa: TID251 - it is passed on as a whole; nothing is read from it here.
        settings = self.settings
        of_plugins = {name: text for each in plugins() for name, text in each.variables(settings).items()}
        ours = {
            **{name: inherited.get(name, text) for name, text in of_plugins.items()},
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{inherited.get('PATH', os.defpath)}",
            "PYTHONUNBUFFERED": "1",
            "DATABASE_URL": settings.database_url,
            "REDIS_URL": settings.redis_url,
            "HEADRACE_STATE": str(settings.state_dir),
            "HEADRACE_PEPPER": settings.pepper.get_secret_value(),
            "HEADRACE_ENGINE": settings.pools[settings.pool].engine,
            "HEADRACE_HOST": ports.LOOPBACK,
            "HEADRACE_METRICS_HOST": ports.LOOPBACK,
            "PORT": str(self.web_port),
            "OPS_HOST": ports.LOOPBACK,
            "OPS_PORT": str(self.ops_port),
            "FLOWER_PORT": str(self.flower_port),
            "FLOWER_BASIC_AUTH": inherited.get(
                "FLOWER_BASIC_AUTH", f"{FLOWER_USER}:{persistent_secret(settings.state_dir / 'flower-password')}"
            ),
        }
        if model := self._options.models.get(settings.pool):
            ours["HEADRACE_MODEL_DIR"] = str(model.folder)
        env = inherited | ours
        if self._workers.others:
            env = pool_variables(settings, self._options.models, env)
        return scaling_variables(settings, env) if self._options.scale else env


def end_former_hosts(settings: Settings) -> None:
    """End the leases of the hosts of an earlier run, and of their workers. None is left: the folder's lock says so.

    Otherwise each would take the place of a new host for a minute: a silent host may only have lost its network.
    Raises: StoreUnavailable.
    """
    store = Store(connections.postgres(settings, pool_size=1))
    try:
        with store.begin() as db:
            # A pool that was removed from the settings has no hosts any more either.
            for pool in (*settings.own_pools, *removed_pools(db, settings.own_pools)):
                workers.retire_all(db, pool, "the stack was started again")
                hosts.end_all(db, pool)
    finally:
        store.close()
