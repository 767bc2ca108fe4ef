"""A whole system to be broken: two hosts of real processes, behind proxies to servers that can be killed and hung.

Knows the system from outside: `headrace up`, the servers' binaries, SQL, Redis. It does not know what breaks when.
"""

import json
import os
import signal
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self
from urllib.parse import urlsplit

import psycopg
from paid_api import paid_api
from redis import Redis

from headrace.stack.child import Child
from headrace.stack.ports import free_port
from headrace.stack.postgres import Postgres
from headrace.stack.receiver import Receiver
from headrace.stack.stack import Stack
from headrace.stack.valkey import Valkey
from tests.chaos.proxy import Proxy

SERVER_TIMEOUT_S = 30.0
LEASE_S = 4.0
#: Of a lane's queue: little enough that an outage of seconds fills it.
DEPTH_CAP = 100
LANES = ("high", "normal", "low", "batch")
#: A prompt with this in it kills the engine.
POISON = "hemlock"
#: Each host's processes; the second has its own GPU worker and nothing else.
SECOND_WITHOUT = ("web", "overflow", "webhooks", "control", "beat", "flower")
OFF_FOLDER = Path(__file__).parent / "off"


class Server:
    """Postgres or Valkey, by itself: killed, hung and started again at will."""

    def __init__(self, kind: Postgres | Valkey) -> None:
        self._kind = kind
        self._child: Child | None = None

    def start(self) -> None:
        """Return once it serves. Raises: StackError."""
        self._kind.prepare()
        self._child = Child(self._kind.command(), self._kind.folder / "server.log")
        self._child.wait_until(self._kind.is_ready, SERVER_TIMEOUT_S)

    def signal(self, number: int) -> None:
        """Send a signal to it."""
        assert self._child is not None
        self._child.signal(number)

    def restart(self, number: int) -> None:
        """End it by this signal, and start it again."""
        assert self._child is not None
        self._child.signal(number)
        self._child.wait(SERVER_TIMEOUT_S)
        self._child.kill_group()
        self.start()

    def stop(self) -> None:
        """End it, cleanly."""
        if self._child is not None:
            self._child.signal(signal.SIGCONT)
            self._child.stop()
        self._kind.release()


class World(AbstractContextManager["World"]):
    """Everything, for the length of a `with` block. Start it from a thread that lives as long.

    Attributes:
        postgres, redis: the servers themselves; `postgres_proxy`, `redis_proxy`: what stands before them.
        web_proxy: what stands before the API; `url` leads to it.
        hosts: the stacks; the first has the API.
        onlooker: a client of Redis that no fault on the way meets.
        receiver: of webhooks.
    """

    def __init__(self, off: str | None, settings: Mapping[str, str]) -> None:
        """Plan it.

        Args:
            off: a mechanism that does not work in this world; see `off/sitecustomize.py`, and `sweep`: no control
                process.
        """
        self._off, self._settings = off, settings
        self._exits = ExitStack()

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
        postgres = Postgres(self.folder / "postgres", free_port())
        valkey = Valkey(self.folder / "valkey", free_port())
        self.postgres, self.redis = Server(postgres), Server(valkey)
        for server in (self.postgres, self.redis):
            self._exits.callback(server.stop)
            server.start()
        self.postgres_proxy = enter(Proxy(postgres.port))
        self.redis_proxy = enter(Proxy(valkey.port))
        self._direct_url = postgres.url.replace("+psycopg", "")
        self.onlooker = enter(Redis.from_url(valkey.url, decode_responses=True))
        self.receiver = enter(Receiver())
        self.provider = enter(paid_api(self.folder, tokens=12, token_ms=40))
        env = self._env(
            postgres.url.replace(f":{postgres.port}/", f":{self.postgres_proxy.port}/"),
            valkey.url.replace(f":{valkey.port}/", f":{self.redis_proxy.port}/"),
        )
        first = ("flower", "control") if self._off == "sweep" else ("flower",)
        self.hosts = [enter(Stack(self.folder / "host-1", _options(first), env))]
        # Two Celery workers of one name would answer for each other.
        second = {**env, "CUDA_VISIBLE_DEVICES": "1"}
        self.hosts.append(enter(Stack(self.folder / "host-2", _options(SECOND_WITHOUT), second)))
        api = urlsplit(self.hosts[0].report.url)
        assert api.port is not None
        self.web_proxy = enter(Proxy(api.port))
        self.url, self.api_key = f"http://{api.hostname}:{self.web_proxy.port}", self.hosts[0].report.api_key

    def _env(self, database_url: str, redis_url: str) -> dict[str, str]:
        inherited = os.environ.get("PYTHONPATH", "")  # noqa: TID251 - it is handed on, longer.
        return {
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "OPENAI_API_KEY": "sk-stand-in",
            "OPENAI_BASE_URL": f"{self.provider}/v1",
            "HEADRACE_PEPPER": "soak",
            "HEADRACE_LEASE_S": str(LEASE_S),
            "HEADRACE_DRAIN_S": "2",
            "HEADRACE_OBSERVE_EVERY_S": "1",
            # A job that is unlucky again and again is none that fails: that is what attempts are for, and not soaked.
            "HEADRACE_MAX_ATTEMPTS": "30",
            "HEADRACE_OVERFLOW__TIMEOUT_S": "4",
            "HEADRACE_BUDGETS__MONTH_USD": "1000",
            "HEADRACE_WEBHOOKS__ALLOW_PRIVATE": "true",
            "HEADRACE_WEBHOOKS__RETRY_DELAYS_S": json.dumps([1] * 20),
            "HEADRACE_SIMULATOR__POISON": POISON,
            **{f"HEADRACE_LANES__{lane.upper()}__DEPTH_CAP": str(DEPTH_CAP) for lane in LANES},
            **self._settings,
            **(
                {"PYTHONPATH": os.pathsep.join(filter(None, (str(OFF_FOLDER), inherited))), "SOAK_OFF": self._off}
                if self._off == "fence"
                else {}
            ),
        }

    def pid(self, name: str, host: int = 0) -> int | None:
        """The pid of a process; None while it does not run."""
        process = self.hosts[host].processes.get(name)
        return process.pid if process else None

    @contextmanager
    def database(self) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
        """A connection that no fault on the way meets, in a transaction."""
        with psycopg.connect(self._direct_url) as db:
            yield db

    def sql(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """The rows of a query."""
        with self.database() as db:
            return db.execute(query.encode(), values or None).fetchall()

    def order_provider_faults(self, kind: str, calls: int) -> None:
        """Let so many of the next calls to the paid API fail."""
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
        for path in sorted(self.folder.glob("host-*/logs/*.log")):
            for line in path.read_text(errors="replace").splitlines():
                yield f"{path.parent.parent.name}/{path.name}: {line}"


def _options(without: Sequence[str]) -> tuple[str, ...]:
    return ("--engine", "simulator", *(word for name in without for word in ("--without", name)))
