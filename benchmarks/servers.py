"""Which HTTP server holds thousands of requests open without starving submits: gunicorn (threads, gevent) or granian.

Knows the system from outside: HTTP to submit, wait and stream, /proc to weigh. No worker runs, so that nothing that
waits ever ends.
"""

import json
import select
import socket
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import repeat
from pathlib import Path
from urllib.parse import urlsplit

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from bed.load import LoadError, drive, request
from bed.testbed import API_APP, Testbed, bearer, console, lanes
from bed.weigh import cpu_s, total

#: Threads beyond those that wait: for submits.
SPARE = 64
#: Longer than any run.
WAIT_S = 3600
OPEN_TIMEOUT_S = 60.0
#: How long the open requests are left alone to see what they cost: each stream is kept alive once.
IDLE_S = 10.0
#: A server that takes less of a core than this is done with what it was asked.
QUIET_CPU = 0.05


@dataclass(frozen=True, slots=True)
class Server:
    """A way to serve the API; `line` takes the threads or connections it must carry."""

    name: str
    line: Callable[[int], str]
    threads_per_open: float = 1


def granian(threads: int) -> str:
    """As the Procfile does it."""
    options = "--interface wsgi --http 1 --no-ws --workers 1 --no-access-log"
    limits = f"--blocking-threads {threads} --backlog 4096 --backpressure {threads}"
    return f"granian {options} {limits} --host $HEADRACE_HOST --port $PORT {API_APP}"


def gunicorn(kind: str) -> Callable[[int], str]:
    """One worker of this kind."""

    def line(threads: int) -> str:
        limits = f"--threads {threads} " if kind == "gthread" else ""
        # Keep-alive, as granian has it: without it, each request costs a connection.
        limits += f"--keep-alive 60 --worker-connections {2 * threads} --backlog 4096"
        where = f"--bind $HEADRACE_HOST:$PORT --log-level error --timeout 0 {API_APP}"
        return f"gunicorn --workers 1 --worker-class {kind} {limits} {where}"

    return line


SERVERS = {
    server.name: server
    for server in (
        Server("granian", granian),
        Server("granian_4x", granian, 4),
        Server("gthread", gunicorn("gthread")),
        Server("gevent", gunicorn("gevent")),
    )
}
KINDS = ("none", "polls", "streams")


@dataclass(frozen=True, slots=True)
class Figures:
    """One server under submits, while it holds requests open.

    Attributes:
        held: of the open requests, those that were still open after the load.
        open_s: until all of them were open and the server was quiet.
        idle_cpu: share of one core that the server takes while nothing but they is there.
    """

    submits_per_s: float
    p95_ms: float
    failed: int
    held: int
    open_s: float
    idle_cpu: float
    rss_mib: float
    threads: int


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured."""

    rounds: int
    seconds: float
    opened: int
    clients: int

    @property
    def settings(self) -> dict[str, str]:
        """Neither a cap nor a slot nor a time limit is in the way."""
        slots = str(self.opened + SPARE)
        return lanes(depth_cap=10**9, backlog_cap_tokens=10**9) | {
            "HEADRACE_WAIT_LIMIT_S": str(WAIT_S),
            "HEADRACE_WAIT_SLOTS": slots,
            "HEADRACE_STREAM_SLOTS": slots,
            "HEADRACE_KEEP_ALIVE_S": str(IDLE_S),
        }


class Held:
    """Requests that a server holds open."""

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        self._address = (address.hostname or "", address.port or 80)
        self._sockets: list[socket.socket] = []

    def open(self, data: bytes) -> None:
        """Send one more."""
        connection = socket.create_connection(self._address, timeout=OPEN_TIMEOUT_S)
        connection.sendall(data)
        connection.setblocking(False)
        self._sockets.append(connection)

    def wait_for(self, needle: bytes) -> None:
        """Return once each was answered with the beginning of a stream. Raises: ClickException."""
        until = time.monotonic() + OPEN_TIMEOUT_S
        silent = {connection.fileno(): connection for connection in self._sockets}
        poll = select.epoll()
        for number in silent:
            poll.register(number, select.EPOLLIN)
        while silent:
            events = poll.poll(max(0.0, until - time.monotonic()))
            if not events:
                raise click.ClickException(f"{len(silent)} streams did not begin within {OPEN_TIMEOUT_S:.0f} s.")
            for number, _ in events:
                if needle in silent[number].recv(65_536):
                    poll.unregister(number)
                    del silent[number]
        poll.close()

    def count(self) -> int:
        """Those that are still open: no end, and no answer that would be one."""
        return sum(map(self._is_open, self._sockets))

    def close(self) -> None:
        """Go away."""
        for connection in self._sockets:
            connection.close()

    @staticmethod
    def _is_open(connection: socket.socket) -> bool:
        try:
            # What comes to a stream meanwhile are keep-alives; a poll is answered by its head.
            data = connection.recv(65_536)
        except BlockingIOError:
            return True
        return bool(data) and not data.startswith(b"HTTP/1.1")


class Arm:
    """One server with one kind of open requests."""

    def __init__(self, key: str, plan: Plan, url: str, pid: int) -> None:
        self._plan, self._url, self._pid = plan, url, pid
        self._headers = bearer(key)
        self._submit = self._post("/v1/jobs", {"prompt": "Why is the sky blue?", "max_wait": WAIT_S})

    def measure(self, kind: str) -> Figures:
        """Open the requests, look at the server while it is idle, then load it with submits."""
        drive([self._url], repeat(self._submit, 200), self._plan.clients)
        held = Held(self._url)
        try:
            began = time.monotonic()
            self._open(kind, held)
            self._settle()
            open_s = time.monotonic() - began
            before = cpu_s(self._pid)
            time.sleep(IDLE_S)
            idle_cpu = (cpu_s(self._pid) - before) / IDLE_S
            outcome = drive([self._url], repeat(self._submit), self._plan.clients, self._plan.seconds)
            accepted = outcome.count(202)
            return Figures(
                submits_per_s=outcome.per_s(202),
                p95_ms=outcome.latency_ms(202, 95),
                failed=len(outcome.answers) - accepted,
                held=held.count(),
                open_s=open_s,
                idle_cpu=idle_cpu,
                rss_mib=total(self._pid, "VmRSS") / 1024,
                threads=total(self._pid, "Threads"),
            )
        finally:
            held.close()

    def _open(self, kind: str, held: Held) -> None:
        if kind == "polls":
            made = drive([self._url], repeat(self._submit, self._plan.opened), self._plan.clients)
            for answer in made.answers:
                path = f"/v1/jobs/{json.loads(answer.body)['id']}?wait={WAIT_S}"
                held.open(request("GET", path, self._headers))
        if kind == "streams":
            body = {"input": "Why?", "background": True, "stream": True, "job": {"max_wait": WAIT_S}}
            stream = self._post("/v1/responses", body)
            for _ in range(self._plan.opened):
                held.open(stream)
            held.wait_for(b"response.created")

    def _settle(self) -> None:
        """Return once the server is quiet. Long polls show nothing from outside once they are open."""
        look_s, cpu = 0.5, 1.0
        while cpu > QUIET_CPU:
            before = cpu_s(self._pid)
            time.sleep(look_s)
            cpu = (cpu_s(self._pid) - before) / look_s

    def _post(self, path: str, body: dict[str, object]) -> bytes:
        return request("POST", path, self._headers, json.dumps(body).encode())


Measured = dict[tuple[str, str], list[Figures]]


def measure(plan: Plan, names: Sequence[str]) -> Measured:
    """Every server with every kind of open requests, in turn, round after round, so that all meet the same weather."""
    measured: Measured = {(name, kind): [] for name in names for kind in KINDS}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Testbed(plan.settings) as bed, Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=plan.rounds * len(measured))
        for _ in range(plan.rounds):
            for (name, kind), rounds in measured.items():
                progress.update(task, description=f"{name}, {kind}")
                bed.redis.flushall()
                bed.sql("TRUNCATE jobs CASCADE")
                server = SERVERS[name]
                line = server.line(round(plan.opened * server.threads_per_open) + SPARE)
                with bed.serving(line) as (url, pid):
                    try:
                        rounds.append(Arm(bed.api_key, plan, url, pid).measure(kind))
                    except LoadError as error:
                        raise click.ClickException(f"{name}, {kind}: {error}") from error
                progress.advance(task)
    return measured


def median(rounds: Sequence[Figures]) -> Figures:
    """Field by field."""
    values = [asdict(each) for each in rounds]
    return Figures(**{name: statistics.median(each[name] for each in values) for name in values[0]})


def show(plan: Plan, measured: Measured) -> None:
    """The medians."""
    table = Table("server", "open", header_style="bold")
    for heading in ("submits/s", "p95 ms", "failed", "held", "opened in s", "idle CPU", "RSS MiB", "threads"):
        table.add_column(heading, justify="right")
    for (name, kind), rounds in measured.items():
        figures = median(rounds)
        opened = "0" if kind == "none" else f"{plan.opened} {kind}"
        rates = (
            f"{figures.submits_per_s:.0f}",
            f"{figures.p95_ms:.1f}",
            f"{figures.failed:.0f}",
            f"{figures.held:.0f}",
        )
        costs = (f"{figures.open_s:.1f}", f"{figures.idle_cpu:.1%}", f"{figures.rss_mib:.0f}", f"{figures.threads:.0f}")
        table.add_row(name, opened, *rates, *costs)
    console.print(table)


def summary(measured: Measured) -> str:
    """The one line that says it all: who submits fastest while holding requests open, and each server's figures."""
    pairs = {}
    worst: dict[str, float] = {}
    for (name, kind), rounds in measured.items():
        figures = median(rounds)
        pairs[f"{name}_{kind}_per_s"] = f"{figures.submits_per_s:.0f}"
        pairs[f"{name}_{kind}_p95_ms"] = f"{figures.p95_ms:.1f}"
        if kind != "none":
            worst[name] = min(worst.get(name, figures.submits_per_s), figures.submits_per_s)
    pairs = {"winner": max(worst, key=worst.__getitem__), **pairs}
    return " ".join(f"{name}={value}" for name, value in pairs.items())


@click.command()
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True, help="The median of them counts.")
@click.option("--seconds", type=click.FloatRange(min=0.5), default=5, show_default=True, help="Of submits, each time.")
@click.option("--open", "opened", type=click.IntRange(min=1), default=1000, show_default=True, help="Requests held.")
@click.option("--clients", type=click.IntRange(min=1), default=32, show_default=True, help="Connections that submit.")
@click.option("--server", "names", type=click.Choice(list(SERVERS)), multiple=True, help="Only this; may be repeated.")
@click.option(
    "--json", "file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write every round."
)
def main(rounds: int, seconds: float, opened: int, clients: int, names: tuple[str, ...], file: Path | None) -> None:
    """Compare HTTP servers by what submits they take while they hold long polls or streams open.

    Each serves the same API from one process, on a Postgres and a Valkey that are started here: granian (WSGI), with
    a thread for each open request or with four times as many; gunicorn with threads; gunicorn with gevent. Each is
    measured with nothing else open, with idle long polls, and with idle event streams. Nothing that waits ever ends,
    since no worker runs. The figures are accepted submits per second and the p95 of their latency, how many of the open
    requests were still held afterwards, and what the server's processes weigh.

    The last line is name=value pairs: winner (the most submits per second with its worse kind of open requests), and
    both figures of every arm. The status is 1 when a submit failed or an open request was dropped.

    \b
    bin/headrace python benchmarks/servers.py
    bin/headrace python benchmarks/servers.py --server granian --open 4000 --json figures.json
    """
    plan = Plan(rounds, seconds, opened, clients)
    measured = measure(plan, names or list(SERVERS))
    show(plan, measured)
    if file is not None:
        arms = [
            {"server": name, "open": kind, "rounds": [asdict(each) for each in figures]}
            for (name, kind), figures in measured.items()
        ]
        file.write_text(json.dumps({"plan": asdict(plan), "arms": arms}, indent=2) + "\n")
    print(summary(measured))
    lost = any(each.failed or each.held < opened for arm, r in measured.items() if arm[1] != "none" for each in r)
    sys.exit(1 if lost else 0)


if __name__ == "__main__":
    main()
