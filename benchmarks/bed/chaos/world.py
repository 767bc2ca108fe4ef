"""A whole system to be broken: real processes behind proxies to servers that can be killed and hung.

The autoscaler orders its two hosts from a supervisor that is behind a proxy of its own. Postgres is a primary and a
standby, Redis a master and a replica: each second one can be promoted.

Knows the system from outside: `headrace up`, the servers' binaries, SQL, Redis. It does not know what breaks when.
"""

import json
import os
import signal
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self
from urllib.parse import urlsplit

import psycopg
from redis import Redis

from bed.chaos.cluster import Cluster, Node
from bed.chaos.host_proxy import HostProxy
from bed.testbed import patched
from headrace.errors import StackError
from headrace.stack.hosts import PREFIX
from headrace.stack.loopback import Receiver
from headrace.stack.stack import Stack
from peers.paid_api import paid_api
from tests.chaos.proxy import Proxy
from tests.chaos.redis_group import Node as RedisNode
from tests.chaos.redis_group import RedisGroup

LEASE_S = 4.0
#: Of a lane's queue: little enough that an outage of seconds fills it.
DEPTH_CAP = 100
LANES = ("high", "normal", "low", "batch")
#: A prompt with this in it kills the engine.
POISON = "hemlock"
#: So many hosts there are to be; and one more for a while, where one is replaced or fell silent.
HOSTS, MOST_HOSTS = 2, 3
#: Observations that are older remove no host.
STALE_S = 3.0
#: The longest time until a process that was killed runs again, or until the hosts are what they are to be.
COMES_BACK_S = 180.0
_LEASES = "SELECT id, ready_at IS NOT NULL AND drain_at IS NULL FROM hosts WHERE ended_at IS NULL"
OFF_FOLDER = Path(__file__).parent / "off"
#: The mechanisms that `off/sitecustomize.py` takes away.
PATCHED = ("fence", "followers")


class World(AbstractContextManager["World"]):
    """Everything, for the length of a `with` block. Start it from a thread that lives as long.

    Attributes:
        cluster: Postgres; `postgres` is its primary, and `postgres_proxy` what stands before that.
        redis_group: Redis; `redis` is its master, with what stands before that.
        web_proxy: what stands before the API; `url` leads to it.
        stack: all processes of Headrace.
        host_proxy: what stands before the supervisor that starts and ends hosts.
        receiver: of webhooks.
    """

    def __init__(self, off: str | None, settings: Mapping[str, str], *, has_batches: bool = False) -> None:
        """Plan it.

        Args:
            off: a mechanism that does not work in this world; see `off/sitecustomize.py`, and `sweep`: no control
                process; `sync`: the standby of Postgres is asynchronous.
            has_batches: the process `batches` runs too.
        """
        self._has_batches = has_batches
        self._off, self._settings = off, settings
        self._exits = ExitStack()
        self._onlookers = dict[str, Redis]()

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._exits.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._exits.close()

    def _start(self) -> None:
        enter = self._exits.enter_context
        self.folder = Path(enter(TemporaryDirectory(prefix="headrace-soak-")))
        self.cluster = enter(Cluster(self.folder, is_synchronous=self._off != "sync"))
        self.redis_group = enter(RedisGroup(self.folder))
        self.receiver = enter(Receiver())
        self.provider = enter(paid_api(self.folder, tokens=12, token_ms=40))
        env = self._env(self.cluster.url, self.redis_group.url)
        without = ["flower", *(() if self._has_batches else ("plugins",)), *(() if self.moves_hosts else ("control",))]
        self.stack = enter(Stack(self.folder / "host", _options(without), env))
        self.host_proxy = enter(HostProxy(self.folder / "host" / "hosts.sock"))
        if not self.moves_hosts:
            self.host_proxy.ask({"verb": "start", "pool": "chat", "host_id": "second"})
        api = urlsplit(self.stack.report.url)
        assert api.port is not None
        self.web_proxy = enter(Proxy(api.port))
        self.url, self.api_key = f"http://{api.hostname}:{self.web_proxy.port}", self.stack.report.api_key

    def _env(self, database_url: str, redis_url: str) -> dict[str, str]:
        return {
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "OPENAI_API_KEY": "sk-stand-in",
            "OPENAI_BASE_URL": f"{self.provider}/v1",
            "HEADRACE_PEPPER": "soak",
            "HEADRACE_LEASE_S": str(LEASE_S),
            "HEADRACE_DRAIN_S": "2",
            "HEADRACE_OBSERVE_EVERY_S": "1",
            "HEADRACE_AUTOSCALE_EVERY_S": "1",
            "HEADRACE_SCALING__POLICY": "fixed",
            "HEADRACE_SCALING__FIXED_HOSTS": str(HOSTS),
            "HEADRACE_SCALING__STALE_AFTER_S": str(STALE_S),
            # A job that is unlucky again and again is none that fails: that is what attempts are for, and not soaked.
            "HEADRACE_MAX_ATTEMPTS": "30",
            "HEADRACE_OVERFLOW__TIMEOUT_S": "4",
            "HEADRACE_BUDGETS__MONTH_USD": "1000",
            "HEADRACE_WEBHOOKS__ALLOW_PRIVATE": "true",
            # The lease of a delivery whose worker died, or lost its answer, is longer by this.
            "HEADRACE_WEBHOOKS__TIMEOUT_S": "3",
            "HEADRACE_WEBHOOKS__RETRY_DELAYS_S": json.dumps([1] * 20),
            "HEADRACE_SIMULATOR__POISON": POISON,
            **{f"HEADRACE_LANES__{lane.upper()}__DEPTH_CAP": str(DEPTH_CAP) for lane in LANES},
            **self._settings,
            **(patched(OFF_FOLDER) | {"SOAK_OFF": self._off} if self._off in PATCHED else {}),
        }

    @property
    def redis(self) -> RedisNode:
        """Redis's master, as it is now."""
        return self.redis_group.master

    @property
    def onlooker(self) -> Redis:
        """A client of the master that no fault on the way meets."""
        url = self.redis.valkey.url
        if url not in self._onlookers:
            self._onlookers[url] = self._exits.enter_context(Redis.from_url(url, decode_responses=True))
        return self._onlookers[url]

    @property
    def postgres(self) -> Node:
        """Postgres's primary, as it is now."""
        return self.cluster.primary

    @property
    def postgres_proxy(self) -> Proxy:
        """What stands before the primary."""
        return self.cluster.primary.proxy

    @property
    def moves_hosts(self) -> bool:
        """Whether a control process orders hosts."""
        return self._off != "sweep"

    @property
    def gpus(self) -> dict[str, int]:
        """The pid of each host's GPU worker that is to run, by the host's id."""
        pids = self.stack.report.pids
        return {name.removeprefix(PREFIX): pid for name, pid in pids.items() if name.startswith(PREFIX)}

    def hosts_agree(self) -> bool:
        """Whether there are as many hosts as there are to be, each with one lease and one process."""
        leases = dict(self.sql(_LEASES)) if self.moves_hosts else dict.fromkeys(self.gpus, True)
        return len(leases) == HOSTS and all(leases.values()) and leases.keys() == self.gpus.keys()

    def until_hosts_agree(self) -> None:
        """Return once they do: they come one after the other, and what was broken is repaired. Raises: StackError."""
        self._until(self.hosts_agree, "The hosts do not come to agree with their leases.")

    def kill(self, name: str, number: int = signal.SIGKILL) -> int:
        """Send a process a signal, once it runs: it may be starting again. Returns: its pid."""
        self._until(lambda: self.is_up(name), f"{name} did not come back.")
        return self.stack.kill(name, number)

    def is_up(self, name: str) -> bool:
        """Whether a process runs."""
        process = self.stack.processes.get(name)
        with suppress(ProcessLookupError):
            if process is not None:
                os.kill(process.pid, 0)
                return True
        return False

    @staticmethod
    def _until(is_so: Callable[[], bool], otherwise: str) -> None:
        until = time.monotonic() + COMES_BACK_S
        while not is_so():
            if time.monotonic() > until:
                raise StackError(otherwise)
            time.sleep(0.1)

    @contextmanager
    def database(self) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
        """A connection that no fault on the way meets, in a transaction."""
        with psycopg.connect(self.cluster.primary.url) as db:
            yield db

    def sql(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """The rows of a query."""
        with self.database() as db:
            return db.execute(query.encode(), values or None).fetchall()

    def order_provider_faults(self, kind: str, calls: int) -> None:
        """Let this number of the next calls to the paid API fail."""
        urllib.request.urlopen(f"{self.provider}/fault/{kind}/{calls}", timeout=5).close()

    def bill(self) -> dict[str, int]:
        """What the paid API has counted."""
        with urllib.request.urlopen(f"{self.provider}/bill", timeout=5) as answer:
            counted: dict[str, int] = json.load(answer)
        return counted

    def open_jobs(self) -> int:
        """Jobs that have not ended, by Postgres."""
        [(number,)] = self.sql("SELECT count(*) FROM jobs WHERE state IN ('waiting', 'queued', 'running')")
        return int(number)

    def log_lines(self) -> Iterator[str]:
        """What the processes have logged."""
        for path in sorted(self.folder.glob("host/logs/*.log")):
            for line in path.read_text(errors="replace").splitlines():
                yield f"{path.name}: {line}"


def _options(without: Sequence[str]) -> tuple[str, ...]:
    scale = ("--scale", "--max-hosts", str(MOST_HOSTS))
    return ("--engine", "simulator", *scale, *(word for name in without for word in ("--without", name)))
