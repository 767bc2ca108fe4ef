"""What requests that are held open cost, and how soon a caller that leaves is noticed.

The claim: 1,000 waits and 1,000 streams hold few threads, and a caller that leaves is noticed at once; submits, polls
and first tokens cost no more than before, when each of them held a thread. Knows the system from outside: HTTP, SQL,
/proc.
"""

import itertools
import json
import select
import socket
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
from rich.table import Table

from bed.commits import tree_of
from bed.first_token import PATH, Listener
from bed.load import LoadError, drive, request
from bed.testbed import Testbed, bearer, console, lanes, line_of, rounds, wait_until
from bed.weigh import cpu_s, total
from headrace.config import PROJECT_ROOT
from headrace.stack.child import read_procfile

#: Beyond the open waits and streams.
SPARE = 64
#: Longer than any run.
WAIT_S = 3600
OPEN_TIMEOUT_S = 60.0
#: A server that takes less of a core than this is done with what it was asked.
QUIET_CPU = 0.05
#: For so long the open requests are left alone to see what they cost. Each stream is kept alive once.
IDLE_S = 10.0
#: Jobs whose polls are driven, and the requests before the clock counts.
POLLED, WARM_UP_S = 500, 1.0
#: Streams that are open at once to see what one costs.
CROWD = 100
#: Waits and streams that are opened together.
BURST = 50
#: A caller waits for so long before it leaves, and its leave must be noticed within the second.
STAYS_S, NOTICE_LIMIT_S = 2.0, 15.0
#: Connections of a client's pool that are open and silent.
IDLE_CONNECTIONS = 4
GOAL_THREADS, GOAL_NOTICED_S = 150, 2.0

NOW, BEFORE = "now", "before"
#: The same line on Python's own loop.
ASYNCIO = "asyncio"


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured. Attributes: opened: waits, and as many streams. streams: one after the other."""

    rounds: int
    seconds: float
    opened: int
    streams: int
    clients: int

    @property
    def settings(self) -> dict[str, str]:
        """Neither a cap nor a slot nor a rate is in the way, and the engine takes no time."""
        slots = str(self.opened + SPARE)
        return lanes(depth_cap=10**9, backlog_cap_tokens=10**12, max_wait_s=86_400) | {
            "HEADRACE_CALLS_PER_MINUTE": str(10**9),
            "HEADRACE_WAIT_LIMIT_S": str(WAIT_S),
            "HEADRACE_WAIT_SLOTS": slots,
            "HEADRACE_STREAM_SLOTS": slots,
            "HEADRACE_SIMULATOR__PREFILL_TOKENS_PER_S": "100000",
            "HEADRACE_SIMULATOR__DECODE_TOKENS_PER_S": "200",
            "HEADRACE_SIMULATOR__KV_TOKENS": "1000000",
        }


@dataclass(slots=True)
class Figures:
    """What was measured of one server. Lists have a value for each round.

    Attributes:
        submit_us, poll_us: processor time of the server for each.
        stream_us: its processor time for a stream of 24 words; many run at once.
        held_per_s: submits while waits and streams are open.
        idle_cpu: the share of a core that they take.
        noticed_s: from the close of a caller's connection until its job was cancelled, directly and beside idle
            connections; the limit if it was not.
        failed: requests with another outcome than theirs.
    """

    submit_per_s: list[float] = field(default_factory=list)
    submit_p95_ms: list[float] = field(default_factory=list)
    submit_us: list[float] = field(default_factory=list)
    poll_per_s: list[float] = field(default_factory=list)
    poll_p95_ms: list[float] = field(default_factory=list)
    poll_us: list[float] = field(default_factory=list)
    first_ms: list[float] = field(default_factory=list)
    stream_us: list[float] = field(default_factory=list)
    held_per_s: float = 0.0
    idle_cpu: float = 0.0
    threads: int = 0
    memory_mb: float = 0.0
    noticed_s: dict[str, float] = field(default_factory=dict)
    failed: int = 0


class Held:
    """Requests that a server holds open."""

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        self._address = (address.hostname or "", address.port or 80)
        self._sockets: list[socket.socket] = []

    def open(self, data: bytes) -> socket.socket:
        """Send one more."""
        connection = socket.create_connection(self._address, timeout=OPEN_TIMEOUT_S)
        connection.sendall(data)
        self._sockets.append(connection)
        return connection

    def read_all(self, needle: bytes) -> None:
        """Return once each was answered with this. Raises: ClickException."""
        until, poll = time.monotonic() + OPEN_TIMEOUT_S, select.epoll()
        silent = {connection.fileno(): (connection, bytearray()) for connection in self._sockets}
        for number in silent:
            poll.register(number, select.EPOLLIN)
        while silent:
            events = poll.poll(max(0.0, until - time.monotonic()))
            if not events:
                raise click.ClickException(f"{len(silent)} requests were not answered within {OPEN_TIMEOUT_S:.0f} s.")
            for number, _ in events:
                connection, received = silent[number]
                data = connection.recv(65_536)
                received += data
                if needle in received or not data:
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
        self._sockets.clear()

    @staticmethod
    def _is_open(connection: socket.socket) -> bool:
        connection.setblocking(False)
        try:
            data = connection.recv(65_536)
        except BlockingIOError:
            return True
        # A stream has begun, and what comes now keeps it alive; a wait is answered by its head.
        return bool(data) and (b"text/event-stream" in data or not data.startswith(b"HTTP/1.1"))


class Arm:
    """One server."""

    def __init__(self, bed: Testbed, plan: Plan, name: str, root: Path) -> None:
        """Args: root: the files that it runs."""
        self._bed, self._plan, self.name = bed, plan, name
        line = read_procfile(root / "Procfile")["web"]
        if name == ASYNCIO:
            line = line.replace("--loop uvloop", f"--loop {ASYNCIO}")
        self._url, self._pid = bed.start_line(line, root)
        self._key = bearer(bed.api_key)
        prompt = "Explain in plain words why the sky is blue. " * 22
        self._submit = self._post("/v1/jobs", {"prompt": prompt, "max_tokens": 64, "lane": "normal"})
        chat = {"messages": [{"role": "user", "content": "Why?"}], "max_completion_tokens": 24}
        self._chat, self._wait, self._stream = chat, self._post(PATH, chat), self._post(PATH, {**chat, "stream": True})
        self.figures = Figures()

    def rates(self, seconds: float, *, counts: bool) -> None:
        """Submits, then polls."""
        self._drive("submit", itertools.repeat(self._submit), 202, seconds, counts=counts)
        made = drive([self._url], itertools.repeat(self._submit, POLLED), self._plan.clients).answers
        ids = [json.loads(answer.body)["id"] for answer in made if answer.status == 202]
        polls = itertools.cycle([request("GET", f"/v1/jobs/{job_id}", self._key) for job_id in ids])
        self._drive("poll", polls, 200, seconds, counts=counts)

    def _drive(self, name: str, requests: Iterator[bytes], status: int, seconds: float, *, counts: bool) -> None:
        before = cpu_s(self._pid)
        outcome = drive([self._url], requests, self._plan.clients, seconds)
        used_s = cpu_s(self._pid) - before
        self.figures.failed += len(outcome.answers) - outcome.count(status)
        if counts:
            getattr(self.figures, f"{name}_per_s").append(outcome.per_s(status))
            getattr(self.figures, f"{name}_p95_ms").append(outcome.latency_ms(status, 95))
            getattr(self.figures, f"{name}_us").append(1e6 * used_s / len(outcome.answers))

    def first_tokens(self, *, counts: bool) -> None:
        """Streams one after the other, then many at once. A worker must run."""
        with Listener(self._url, self._key) as listener:
            firsts = [1000 * listener.ask(self._chat).first_s for _ in range(self._plan.streams)]
        held, before = Held(self._url), cpu_s(self._pid)
        for _ in range(CROWD):
            held.open(self._stream)
        held.read_all(b"[DONE]")
        used_s = cpu_s(self._pid) - before
        held.close()
        if counts:
            self.figures.first_ms.append(statistics.median(firsts))
            self.figures.stream_us.append(1e6 * used_s / CROWD)

    def hold(self) -> None:
        """Hold waits and streams open, weigh the server, and submit beside them."""
        held, opened = Held(self._url), self._plan.opened
        try:
            for number in range(1, opened + 1):
                held.open(self._wait)
                held.open(self._stream)
                if number % BURST == 0 or number == opened:
                    taken = partial(self._has_taken, 2 * number)
                    wait_until(taken, OPEN_TIMEOUT_S, f"{self.name} does not take {2 * number} requests.")
            self._settle()
            before = cpu_s(self._pid)
            time.sleep(IDLE_S)
            self.figures.idle_cpu = (cpu_s(self._pid) - before) / IDLE_S
            self.figures.threads = total(self._pid, "Threads")
            self.figures.memory_mb = total(self._pid, "VmRSS") / 1024
            outcome = drive([self._url], itertools.repeat(self._submit), self._plan.clients, self._plan.seconds)
            self.figures.held_per_s = outcome.per_s(202)
            self.figures.failed += 2 * opened - held.count()
        finally:
            held.close()
        self._settle()

    def _has_taken(self, jobs: int) -> bool:
        return self._bed.open_jobs() == jobs

    def _settle(self) -> None:
        """Return once the server is quiet."""
        look_s, cpu = 0.5, 1.0
        while cpu > QUIET_CPU:
            before = cpu_s(self._pid)
            time.sleep(look_s)
            cpu = (cpu_s(self._pid) - before) / look_s

    def notice(self) -> None:
        """Leave a wait and a stream: directly, and beside idle connections of the same client."""
        for kind, data in (("wait", self._wait), ("stream", self._stream)):
            self.figures.noticed_s[kind] = self._leave(data)
            with self._idle_connections():
                self.figures.noticed_s[f"{kind}_pooled"] = self._leave(data)

    def _leave(self, data: bytes) -> float:
        """Seconds from the close of a caller's connection until its job is cancelled."""
        clear(self._bed)
        held = Held(self._url)
        connection = held.open(data)
        wait_until(self._bed.open_jobs, OPEN_TIMEOUT_S, "A request is not taken.")
        time.sleep(STAYS_S)
        if data is self._stream:
            connection.recv(65_536)
        held.close()
        left = time.monotonic()
        wait_until(lambda: not self._bed.open_jobs(), NOTICE_LIMIT_S, None)
        return time.monotonic() - left

    @contextmanager
    def _idle_connections(self) -> Iterator[None]:
        held = Held(self._url)
        for _ in range(IDLE_CONNECTIONS):
            held.open(request("GET", "/healthz"))
        held.read_all(b"\r\n\r\n")
        try:
            yield
        finally:
            held.close()

    def _post(self, path: str, body: Mapping[str, object]) -> bytes:
        return request("POST", path, self._key, json.dumps(body).encode())


def clear(bed: Testbed) -> None:
    """Forget every job."""
    bed.sql("TRUNCATE jobs CASCADE")
    bed.redis.flushall()


def measure(plan: Plan, roots: Mapping[str, Path]) -> dict[str, Figures]:
    """All arms, in turn, round after round, so that all meet the same weather. Args: roots: the files of each arm."""
    with Testbed(plan.settings) as bed:
        arms = [Arm(bed, plan, name, root) for name, root in roots.items()]
        for arm in arms:
            arm.rates(WARM_UP_S, counts=False)
        for _ in rounds(plan.rounds, lambda no: f"submits and polls, round {no} of {plan.rounds}"):
            for arm in arms:
                arm.rates(plan.seconds, counts=True)
        for arm in arms:
            console.print(f"{arm.name}: {plan.opened} waits and as many streams", style="dim")
            clear(bed)
            arm.hold()
            console.print(f"{arm.name}: callers that leave", style="dim")
            arm.notice()
        clear(bed)
        bed.start_worker()
        for arm in arms:
            arm.first_tokens(counts=False)
        for _ in rounds(plan.rounds, lambda no: f"streams, round {no} of {plan.rounds}"):
            for arm in arms:
                arm.first_tokens(counts=True)
    return {arm.name: arm.figures for arm in arms}


def ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """The median round's ratio."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def summary(measured: Mapping[str, Figures]) -> dict[str, object]:
    """What the last line says: of each arm, its figures beside those of before. A ratio above 1 is better."""
    found: dict[str, object] = {}
    base = measured.get(BEFORE)
    for name, each in measured.items():
        if base is not None and name != BEFORE:
            found[f"{name}_submit_ratio"] = ratio(each.submit_per_s, base.submit_per_s)
            found[f"{name}_poll_ratio"] = ratio(each.poll_per_s, base.poll_per_s)
            found[f"{name}_first_token_ratio"] = ratio(base.first_ms, each.first_ms)
        found[f"{name}_threads"] = each.threads
        found[f"{name}_memory_mb"] = each.memory_mb
        found[f"{name}_noticed_s"] = max(each.noticed_s.values())
        found[f"{name}_failed"] = each.failed
    return found


def show(plan: Plan, measured: Mapping[str, Figures]) -> None:
    """The medians."""
    table = Table("", *measured, header_style="bold", title="medians of the rounds; processor time in us")
    for column in table.columns[1:]:
        column.justify = "right"
    for name in ("submit_per_s", "submit_p95_ms", "submit_us", "poll_per_s", "poll_p95_ms", "poll_us"):
        table.add_row(name, *(f"{statistics.median(getattr(each, name)):,.4g}" for each in measured.values()))
    for name in ("first_ms", "stream_us"):
        table.add_row(name, *(f"{statistics.median(getattr(each, name)):,.4g}" for each in measured.values()))
    table.add_section()
    for name in ("threads", "memory_mb", "idle_cpu", "held_per_s"):
        shown = (
            f"{getattr(each, name):,.3g}" if name == "idle_cpu" else f"{getattr(each, name):,.0f}"
            for each in measured.values()
        )
        table.add_row(f"{name}, {plan.opened} waits and streams", *shown)
    for kind in next(iter(measured.values())).noticed_s:
        table.add_row(f"noticed_s, {kind}", *(f"{each.noticed_s[kind]:.2f}" for each in measured.values()))
    table.add_row("failed", *(str(each.failed) for each in measured.values()))
    console.print(table)


@click.command()
@click.option("--rounds", type=click.IntRange(min=1), default=9, show_default=True, help="The median round counts.")
@click.option("--seconds", type=click.FloatRange(min=0.5), default=4, show_default=True, help="Of each load.")
@click.option(
    "--open", "opened", type=click.IntRange(min=1), default=1000, show_default=True, help="Waits, and streams."
)
@click.option("--streams", type=click.IntRange(min=1), default=30, show_default=True, help="For first tokens, a round.")
@click.option("--clients", type=click.IntRange(min=1), default=32, show_default=True, help="Connections of each load.")
@click.option("--before", "commit", metavar="COMMIT", help="Measure an earlier commit too, whose tables are the same.")
@click.option("--asyncio", "on_asyncio", is_flag=True, help="Measure the same line on Python's own event loop too.")
@click.option(
    "--json", "file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write every figure."
)
def main(
    rounds: int,
    seconds: float,
    opened: int,
    streams: int,
    clients: int,
    commit: str | None,
    on_asyncio: bool,
    file: Path | None,
) -> None:
    """Measure what submits, polls, streams, and open requests cost a `web` process, and when it notices a leave.

    Starts Postgres, Valkey and one `web` process for each arm, these on the first CPU, in a temporary folder. Each is
    driven with submits, then with polls, in turn. Then each holds waits and streams open, while nothing runs their
    jobs, and is weighed; and a caller leaves a wait and a stream, with and without idle connections of its address. At
    last a worker runs, on a simulated engine, and streams are read.

    The last line is name=value pairs, of each arm: with --before, submit_ratio, poll_ratio and first_token_ratio
    (above 1: better than before); threads and memory_mb with all that is open, noticed_s (the longest from a close to
    the cancel of its job; 15 if it was not cancelled), and failed requests. The status is 1 when more
    than 150 threads are held, noticed_s is above 2, or a request failed.

    \b
    bin/headrace python benchmarks/servers.py
    bin/headrace python benchmarks/servers.py --before e2be0b2b --rounds 3 --json figures.json
    """
    plan = Plan(rounds, seconds, opened, streams, clients)
    roots = {NOW: PROJECT_ROOT} | ({ASYNCIO: PROJECT_ROOT} if on_asyncio else {})
    try:
        with tree_of(commit) if commit else nullcontext() as before:
            measured = measure(plan, ({BEFORE: before} if before else {}) | roots)
    except LoadError as error:
        raise click.ClickException(str(error)) from error
    show(plan, measured)
    figures = summary(measured)
    if file is not None:
        every = {name: asdict(each) for name, each in measured.items()}
        file.write_text(json.dumps({"plan": asdict(plan), "figures": figures, "arms": every}, indent=2) + "\n")
    print(line_of(figures))
    sys.exit(0 if holds(figures) else 1)


def holds(figures: Mapping[str, Any]) -> bool:
    """True when today's line meets every goal."""
    is_light = figures[f"{NOW}_threads"] <= GOAL_THREADS and figures[f"{NOW}_noticed_s"] <= GOAL_NOTICED_S
    return is_light and not figures[f"{NOW}_failed"]


if __name__ == "__main__":
    main()
