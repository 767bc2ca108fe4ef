"""A whole stack of real processes, and the ways to look at it: HTTP, SQL, Redis, and the table of processes."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx2
import psycopg
import pytest
from psycopg.rows import dict_row
from redis import Redis

from headrace.config import PROJECT_ROOT
from headrace.domain.ids import parse_id
from headrace.domain.states import TERMINAL
from headrace.stack.child import read_procfile
from headrace.stack.install import Checkout
from headrace.stack.loopback import Receiver
from headrace.stack.stack import Stack
from tests.waiting import until

DEADLINE_S = 60.0
#: Processes that a test names if it needs them: each takes 1.6 s of processor to start.
SELDOM_ASKED = frozenset({"plugins", "flower", "ops", "webhooks"})
#: Seconds one long poll holds on.
POLL_S = 20


class System:
    """A running stack.

    Attributes:
        stack: its supervisor, for signals and pids.
        redis: the broker, which is not asked by the tests alone: use it as an onlooker.
    """

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        report = stack.report
        headers = {"Authorization": f"Bearer {report.api_key}"}
        self.http = httpx2.Client(base_url=report.url, headers=headers, timeout=POLL_S + 30)
        self.redis = Redis.from_url(report.redis_url, decode_responses=True)
        self._database_url = report.database_url.replace("+psycopg", "")

    def submit(self, **fields: Any) -> str:
        """Submit a job that has a long time to start. Returns: its id."""
        response = self.http.post("/v1/jobs", json={"prompt": "What is a headrace?", "max_wait": 300, **fields})
        assert response.status_code == 202, response.text
        return str(response.json()["id"])

    def submit_many(self, number: int, **fields: Any) -> list[str]:
        """Submit this number of jobs at once, each with a prompt of its own."""
        with ThreadPoolExecutor(8) as threads:
            return list(threads.map(lambda no: self.submit(prompt=f"Number {no}?", **fields), range(number)))

    def ended(self, job_id: str, deadline_s: float = DEADLINE_S) -> dict[str, Any]:
        """The job as the API shows it once it has ended. Holds through a restart of the API."""
        deadline = time.monotonic() + deadline_s
        while True:
            with suppress(httpx2.TransportError):
                job: dict[str, Any] = self.http.get(f"/v1/jobs/{job_id}", params={"wait": POLL_S}).json()
                if job.get("status") in TERMINAL:
                    return job
            assert time.monotonic() < deadline, f"{job_id} has not ended within {deadline_s} s"

    def all_ended(self, job_ids: Sequence[str], deadline_s: float = DEADLINE_S) -> list[dict[str, Any]]:
        """Each of these jobs once all have ended."""
        deadline = time.monotonic() + deadline_s
        return [self.ended(job_id, deadline - time.monotonic()) for job_id in job_ids]

    def sql(self, query: str, *values: Any) -> list[dict[str, Any]]:
        """The rows of a query, from a connection of its own: servers may have been restarted since the last."""
        with psycopg.connect(self._database_url, autocommit=True, row_factory=dict_row) as db:
            return db.execute(query, values).fetchall()

    def operate(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run `headrace` as an operator of this stack does."""
        env = os.environ | {"HEADRACE_STATE": str(self.stack.state_dir)}  # noqa: TID251 - it is handed on whole.
        command = [str(Checkout(PROJECT_ROOT).venv / "bin" / "headrace"), *arguments]
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False, **options)

    def count(self, state: str) -> int:
        """How many jobs are in this state."""
        return int(self.sql("SELECT count(*) AS jobs FROM jobs WHERE state = %s", state)[0]["jobs"])

    def bills(self, job_ids: Sequence[str]) -> list[tuple[str, int]]:
        """Every ledger entry of these jobs as (kind, attempt), sorted."""
        ids = [parse_id(job_id) for job_id in job_ids]
        rows = self.sql("SELECT kind, attempt FROM ledger WHERE job_id = ANY(%s)", ids)
        return sorted((row["kind"], row["attempt"]) for row in rows)

    def paid(self, job_ids: Sequence[str]) -> list[tuple[str, int]]:
        """The entries that the app pays for, in the same form. Raises: AssertionError when it is told another sum."""
        ids = [parse_id(job_id) for job_id in job_ids]
        query = """
            SELECT j.usd AS told, sum(l.usd) AS usd FROM jobs j JOIN ledger l ON l.job_id = j.id
            WHERE j.id = ANY(%s) AND l.kind <> 'waste' GROUP BY j.id
        """
        assert all(row["told"] == row["usd"] > 0 for row in self.sql(query, ids))
        return [(kind, attempt) for kind, attempt in self.bills(job_ids) if kind != "waste"]

    def pid(self, name: str) -> int | None:
        """The pid of a process; None while it does not run."""
        process = self.stack.processes.get(name)
        return process.pid if process else None

    def restarted(self, name: str, old_pid: int) -> None:
        """Return once another process has taken this one's place."""
        until(lambda: self.pid(name) not in (None, old_pid), f"a new {name}")

    def api_is_ready(self) -> bool:
        """True when the API answers and everything it needs answers it."""
        with suppress(httpx2.TransportError):
            return self.http.get("/readyz").status_code == 200
        return False

    def close(self) -> None:
        self.http.close()
        self.redis.close()


class Processes:
    """The machine's processes, as /proc has them."""

    def tree(self, root: int) -> dict[int, str]:
        """A process and everything below it: command line by pid."""
        parents = {}
        for pid in self._pids():
            with suppress(OSError):
                parents[pid] = int(self._stat(pid)[1])
        found, frontier = {root}, {root}
        while frontier := {pid for pid, parent in parents.items() if parent in frontier} - found:
            found |= frontier
        return {pid: self._text(pid, "cmdline") for pid in found}

    def running(self, pids: Sequence[int]) -> list[int]:
        """Those that have not ended; one that was not collected yet has ended."""
        alive = []
        for pid in pids:
            with suppress(OSError):
                if self._stat(pid)[0] != "Z":
                    alive.append(pid)
        return alive

    def of(self, folder: Path) -> list[str]:
        """The command lines of all that run on this state folder, or write their output into it."""
        # Celery overwrites its environment with a title, so that its log alone says where it belongs.
        marked = [pid for pid in self._pids() if str(folder) in self._text(pid, "cmdline") + self._output(pid)]
        return [self._text(pid, "cmdline") for pid in self.running(marked)]

    @staticmethod
    def _pids() -> list[int]:
        return [int(entry.name) for entry in Path("/proc").glob("[0-9]*")]

    @staticmethod
    def _stat(pid: int) -> list[str]:
        """State and parent, and what comes after them."""
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()

    @staticmethod
    def _output(pid: int) -> str:
        with suppress(OSError):
            return os.readlink(f"/proc/{pid}/fd/1")
        return ""

    @staticmethod
    def _text(pid: int, file: str) -> str:
        with suppress(OSError):
            return Path(f"/proc/{pid}/{file}").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        return ""


@pytest.fixture(scope="session")
def processes() -> Processes:
    if not sys.platform.startswith("linux"):
        pytest.skip("reads /proc")
    return Processes()


@pytest.fixture(scope="session")
def wait_until() -> Callable[..., None]:
    """`until(condition, what, deadline_s)`."""
    return until


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., System]]:
    """Starts a stack with these settings, which is stopped at the end of the module if not before."""
    with ExitStack() as stacks:

        def begin(
            *options: str,
            engine: str = "simulator",
            folder: Path | None = None,
            paid_api: str = "",
            paid_key: str = "sk-test",
            tree: Path = PROJECT_ROOT,
            beside: System | None = None,
            also: Sequence[str] = (),
            **env: str,
        ) -> System:
            """Start it.

            Args:
                engine: empty for the settings' own.
                paid_api: its address, if there is one.
                tree: the checkout whose code runs.
                beside: the stack whose servers it uses.
                also: those of `SELDOM_ASKED` that run too.
                env: settings without prefix, such as `lease_s="3"`.
            """
            settings = {f"HEADRACE_{name.upper()}": value for name, value in env.items()}
            budget = {"HEADRACE_BUDGETS__MONTH_USD": "1000" if paid_api else ""}
            changes = {"OPENAI_API_KEY": paid_api and paid_key, "OPENAI_BASE_URL": paid_api, **budget, **settings}
            changes["HEADRACE_WEBHOOKS__ALLOW_PRIVATE"] = "true"
            if beside is not None:
                servers = beside.stack.report
                changes |= {"DATABASE_URL": servers.database_url, "REDIS_URL": servers.redis_url}
            chosen = ("--engine", engine) if engine else ()
            left_out = (SELDOM_ASKED - set(also)) & read_procfile(tree / "Procfile").keys()
            without = [word for name in sorted(left_out) for word in ("--without", name)]
            stack = Stack(folder or tmp_path_factory.mktemp("stack"), (*chosen, *without, *options), changes, tree=tree)
            stacks.enter_context(stack)
            system = System(stack)
            stacks.callback(system.close)
            return system

        yield begin


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Receives webhooks."""
    with Receiver() as receiver:
        yield receiver
