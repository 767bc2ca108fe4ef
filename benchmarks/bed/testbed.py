"""What the benchmarks stand on: a stack of its own in a temporary folder, more processes beside it, counts in SQL.

Knows the system from outside: the Procfile's lines, HTTP, SQL, Redis. It does not know what is measured.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self, TypeVar

import click
import psycopg
from redis import Redis
from rich.console import Console

from bed.weigh import cpu_s
from headrace.config import PROJECT_ROOT
from headrace.stack import readiness
from headrace.stack.child import Child, Command, read_procfile, shell
from headrace.stack.ports import LOOPBACK, free_port
from headrace.stack.stack import Stack
from peers import python_path

START_TIMEOUT_S = 60.0
#: How often a condition is looked at that is waited for, in seconds.
LOOK_EVERY_S = 0.05
#: Everything but the servers, the tables and what a benchmark adds by itself.
BARE = ("web", "ops", "gpu", "overflow", "webhooks", "control", "beat", "flower")
#: How a bare Flask is served: by granian. It stays when the API's line changes.
BARE_LINE = (
    "granian --interface wsgi --http 1 --no-ws --host $HEADRACE_HOST --port $PORT --workers 1 "
    "--blocking-threads {threads} --backpressure 2112 --backlog 4096 --workers-kill-timeout 10 --no-access-log "
    "peers.bare_app:app"
)
#: Threads of one of its processes, on one CPU. With a thread for each request, `submit.py`'s views take 3 to 8 % more
#: processor time.
BARE_THREADS = 8

Found = TypeVar("Found")

#: The width of what goes into a file, in columns: the widest table, uncut.
FILE_COLUMNS = 200

console = Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else FILE_COLUMNS)

#: Without a budget nothing is sent to the paid API: a script that measures none sets one that is never used up.
_ANY_AMOUNT = {"HEADRACE_BUDGETS__MONTH_USD": "1000000"}


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of every job that was accepted, as Postgres has it."""

    accepted: int
    succeeded: int
    expired: int
    failed: int


class Testbed(AbstractContextManager["Testbed"]):
    """A running stack on the simulator engine, for the length of a `with` block.

    Attributes:
        redis: the broker's, as an onlooker.
    """

    def __init__(
        self,
        env: Mapping[str, str],
        without: Sequence[str] = BARE,
        options: Sequence[str] = (),
        *,
        has_batches: bool = False,
    ) -> None:
        """Plan it.

        Args:
            env: settings, for the stack and for every process that is added to it.
            without: processes of the Procfile that are left out.
            options: more of them, of `headrace up`.
            has_batches: the process `batches` runs too.
        """
        # Empty stands for not set: whatever servers the caller's environment names are left alone.
        self._env = {"DATABASE_URL": "", "REDIS_URL": "", "OPENAI_API_KEY": "", **_ANY_AMOUNT, **env}
        absent = (*without, *(() if has_batches else ("plugins",)))
        self._options = ("--engine", "simulator", *(word for name in absent for word in ("--without", name)), *options)
        self._lines = read_procfile(PROJECT_ROOT / "Procfile")
        self._exits = ExitStack()
        self._pids: dict[str, int] = {}
        self._number = 0

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
        self.folder = Path(self._exits.enter_context(TemporaryDirectory(prefix="headrace-benchmark-")))
        self.stack = self._exits.enter_context(Stack(self.folder, self._options, self._env))
        report = self.stack.report
        self.api_key = report.api_key
        self.url = report.url
        self._database_url = report.database_url.replace("+psycopg", "")
        self.redis = self._exits.enter_context(Redis.from_url(report.redis_url, decode_responses=True))
        self._process_env = {
            **os.environ,  # noqa: TID251 - it is handed on whole; nothing is read from it here.
            **self._env,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.defpath}",
            "PYTHONUNBUFFERED": "1",
            "DATABASE_URL": report.database_url,
            "REDIS_URL": report.redis_url,
            "HEADRACE_STATE": str(self.folder),
            "HEADRACE_PEPPER": (self.folder / "pepper").read_text().strip(),
            "HEADRACE_ENGINE": report.engine,
            "HEADRACE_HOST": LOOPBACK,
        }

    def start_web(self, number: int, *, is_kept: bool = True, env: Mapping[str, str] | None = None) -> list[str]:
        """Start this number of further API processes; returns their addresses.

        Args:
            is_kept: each keeps to one CPU, as `headrace up` has it, and as the peers do.
            env: their own, such as that of `patched`.
        """
        line = self._lines["web"]
        return [self._serve(line, "/readyz", self._cpu(no) if is_kept else (), env=env)[0] for no in range(number)]

    def start_ops(self) -> str:
        """Start a process of the operators' pages; returns its address."""
        return self._serve(self._lines["ops"], "/healthz")[0]

    def start_bare(self, number: int, threads: int = BARE_THREADS) -> list[str]:
        """Start this number of `bare_app` processes, each on a CPU as `start_web` has it; returns their addresses."""
        line = BARE_LINE.format(threads=threads)
        return [self._serve(line, "/hello", self._cpu(no))[0] for no in range(number)]

    def _cpu(self, number: int) -> tuple[int]:
        """A CPU for the process of this number. Servers count from 0 up, workers from -1 down."""
        cpus = sorted(os.sched_getaffinity(0))
        return (cpus[number % len(cpus)],)

    def start_line(self, line: str, root: Path = PROJECT_ROOT) -> tuple[str, int]:
        """Start the API by this line, which finds HEADRACE_HOST and PORT, on the first CPU; its address and its pid.

        Args: root: the files that it runs.
        """
        url, child = self._serve(line, "/readyz", self._cpu(0), root)
        return url, child.pid

    def _serve(
        self,
        line: str,
        path: str,
        cpus: tuple[int, ...] = (),
        root: Path = PROJECT_ROOT,
        env: Mapping[str, str] | None = None,
    ) -> tuple[str, Child]:
        port, own = free_port(), {**self._process_env, **(env or {})}
        ports = {"PORT": str(port), "OPS_PORT": str(port)}
        child = self._run(line, {**(env or {}), **ports, "PYTHONPATH": python_path(own)}, cpus, root)
        child.wait_until(lambda: readiness.answers(port, path), START_TIMEOUT_S)
        url = f"http://{LOOPBACK}:{port}"
        self._pids[url] = child.pid
        return url, child

    def cpu_s(self, urls: Sequence[str]) -> dict[str, float]:
        """Processor seconds that these servers, Postgres and Valkey have used so far."""
        pids = self.stack.report.pids
        servers = {name: cpu_s(pids[name]) for name in ("postgres", "valkey")}
        return {"server": sum(cpu_s(self._pids[url]) for url in urls), **servers}

    def start_worker(self, kind: str = "gpu", env: Mapping[str, str] | None = None) -> Child:
        """Start one more worker of a kind beside the stack's; returns once its row says that it takes jobs.

        Args:
            env: its own, such as the pool that it serves.
        """
        return self.start_workers(1, kind, env)[0]

    def start_workers(self, number: int, kind: str = "gpu", env: Mapping[str, str] | None = None) -> list[Child]:
        """Start this number of workers at once; returns once the rows of all of them say that they take jobs."""
        before, children = self._live_workers(), list[Child]()
        for no in range(number):
            # Two Celery workers of one name would answer for each other.
            line = self._lines[kind].replace(f"--hostname {kind}", f"--hostname {kind}{self._number + 2}")
            children.append(self._run(line, env or {}, self._cpu(-1 - no)))
        for child in children:
            child.wait_until(lambda: self._live_workers() >= before + number, START_TIMEOUT_S)
        return children

    def start_bare_worker(self, concurrency: int, number: int = 0) -> Child:
        """Start a Celery worker of `bare_app` in threads; it takes tasks as soon as it can.

        Args: number: of those beside it. It keeps to a CPU as Headrace's worker of this number does.
        """
        name = f"--hostname bare{self._number + 2}@%h --loglevel WARNING"
        line = f"celery --app peers.bare_app:celery worker --pool threads --concurrency {concurrency} {name}"
        plain = f"{line} --without-gossip --without-mingle --without-heartbeat"
        env = {"PYTHONPATH": python_path(self._process_env), "BARE_CONNECTIONS": str(concurrency)}
        return self._run(plain, env, self._cpu(-1 - number))

    def start_dramatiq_worker(self, concurrency: int, number: int = 0) -> Child:
        """Start a worker of `dramatiq_app` in threads of one process; it takes messages as soon as it can."""
        line = f"dramatiq peers.dramatiq_app --processes 1 --threads {concurrency}"
        return self._run(line, {"PYTHONPATH": python_path(self._process_env)}, self._cpu(-1 - number))

    def _live_workers(self) -> int:
        rows = self.sql("SELECT count(*) FROM workers WHERE ready AND stopped_at IS NULL AND lease_until > now()")
        return int(rows[0][0])

    def _run(self, line: str, env: Mapping[str, str], cpus: tuple[int, ...] = (), root: Path = PROJECT_ROOT) -> Child:
        self._number += 1
        name = f"extra-{self._number}"
        command = Command(name, shell(line), {**self._process_env, **env}, root, cpus=cpus)
        child = Child(command, self.folder / "logs" / f"{name}.log")
        self._exits.callback(child.stop)
        return child

    def make_key(self, app: str) -> str:
        """A new API key of this app, which is made if need be, as an operator makes one."""
        if not self.sql("SELECT id FROM apps WHERE name = %s", app):
            self._headrace("apps", "create", app)
        return self._headrace("keys", "create", app).split()[-1]

    def make_operator(self, name: str) -> str:
        """The password of a new operator of the pages at /ops, who may see and change everything."""
        return self._headrace("operators", "create", name, "--role", "admin", "--generate").strip()

    def _headrace(self, *arguments: str) -> str:
        """What `headrace` prints."""
        command = [sys.executable, "-c", "from headrace.cli import main; main()", *arguments]
        done = subprocess.run(command, env=self._process_env, cwd=PROJECT_ROOT, capture_output=True, text=True)
        if done.returncode:
            raise click.ClickException(f"headrace {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def sql(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """The rows of a query, committed; none for a statement that returns none."""
        with psycopg.connect(self._database_url, autocommit=True) as db:
            found = db.execute(query.encode(), values or None)
            return found.fetchall() if found.description else []

    @contextmanager
    def watching(self) -> Iterator[Callable[..., list[tuple[Any, ...]]]]:
        """`sql` on one connection, for who asks often: to log in costs Postgres as much as fifteen jobs do."""
        with psycopg.connect(self._database_url, autocommit=True) as db:
            yield lambda query, *values: db.execute(query.encode(), values or None).fetchall()

    def sql_together(self, statements: Sequence[str]) -> None:
        """Run these in one transaction."""
        with psycopg.connect(self._database_url) as db:
            for statement in statements:
                db.execute(statement.encode())

    def open_jobs(self) -> int:
        """Jobs that have not ended."""
        return int(self.sql("SELECT count(*) FROM jobs WHERE state IN ('waiting', 'queued', 'running')")[0][0])

    def wait_until_all_ended(self, longest_s: float) -> None:
        """Return once no job is open. Raises: ClickException."""
        wait_until(lambda: not self.open_jobs(), longest_s, "Jobs do not end.")

    def count(self) -> Counts:
        """What became of all jobs."""
        return count_jobs(self._database_url)


def wait_until(look: Callable[[], Found], longest_s: float, otherwise: str | None) -> Found:
    """What a look finds, as soon as it finds something.

    Args:
        otherwise: the error if it finds nothing for so long; None if that is not an error.
    Raises: ClickException.
    """
    until = time.monotonic() + longest_s
    while not (found := look()) and time.monotonic() < until:
        time.sleep(LOOK_EVERY_S)
    if not found and otherwise is not None:
        raise click.ClickException(otherwise)
    return found


def count_jobs(database_url: str) -> Counts:
    """Ask Postgres, not the client, what became of all jobs."""
    states = ", ".join(f"count(*) FILTER (WHERE state = '{name}')" for name in ("succeeded", "expired", "failed"))
    with psycopg.connect(database_url.replace("+psycopg", "")) as db:
        row = db.execute(f"SELECT count(*), {states} FROM jobs".encode()).fetchone()
    assert row is not None
    return Counts(*row)


def bearer(key: str) -> dict[str, str]:
    """The header that shows an API key."""
    return {"Authorization": f"Bearer {key}"}


def lanes(**changes: object) -> dict[str, str]:
    """Settings in the environment that are the same for every lane, such as `depth_cap=500`."""
    return {
        f"HEADRACE_LANES__{lane}__{name}".upper(): str(value)
        for lane in ("high", "normal", "low", "batch")
        for name, value in changes.items()
    }


def line_of(figures: Mapping[str, object]) -> str:
    """The last line of a benchmark: `name=value` pairs, fractions in three digits that count."""
    return " ".join(f"{name}={_shown(value)}" for name, value in figures.items())


def _shown(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def patched(folder: Path) -> dict[str, str]:
    """The environment of processes that run this folder's `sitecustomize` at their start, before all else."""
    inherited = os.environ.get("PYTHONPATH", "")  # noqa: TID251 - it is handed on, longer.
    return {"PYTHONPATH": os.pathsep.join(filter(None, (str(folder), inherited)))}


def rounds(number: int, say: Callable[[int], str]) -> Iterator[int]:
    """Count from 1, telling on standard error which turn it is."""
    for each in range(1, number + 1):
        console.print(say(each), style="dim")
        yield each
