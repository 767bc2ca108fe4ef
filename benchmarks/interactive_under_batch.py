"""Interactive prompts while a batch load keeps the engine full: through Headrace, and put straight into the engine.

The claim: the lane `high` has its first tokens hardly later than if each prompt had been handed to vLLM's own scheduler
with the same priority, and the batch load hardly notices. Knows the system from outside: HTTP, SQL.
"""

import json
import random
import statistics
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import click
import psycopg
from rich.table import Table

from bed.first_token import Listener
from bed.load import drive, percentile, request
from bed.real_engine import check_installed, demo_folder, real_stack, settings_of
from bed.testbed import Counts, bearer, console, count_jobs, line_of, rounds
from headrace.connections import model_files
from headrace.domain.prompts import Message
from headrace.stack.state_folder import StackReport
from peers.json_peer import JsonPeer
from peers.mixed_load import Ask, Load, Seen, Span, text_of

#: Goals: the most that the p99 may be of the engine's own, and the least that is left of the batch load's rate.
MOST_P99, LEAST_SHARE = 1.3, 0.9
#: Tokens of the interactive prompts, and of each of their answers.
SIZES, ANSWER = (25, 300), 8
#: Tokens of a batch prompt. Their answers have different lengths, so that they do not all end in the same step.
BATCH_SIZE, BATCH_ANSWERS = 25, (64, 192)
#: Batch jobs in the engine at once; and slots that its worker has beside them.
STREAMS, SPARE = 64, 8
#: Batch jobs that wait where all slots are in use.
WAITING = 64
#: Batch jobs that are kept there, by load.
OUTSTANDING = {"full": STREAMS + SPARE + WAITING, "room": STREAMS}
#: Different ones; where they do not suffice, they are asked again.
BATCH_PROMPTS = 1000
#: Seconds until the batch answers end at different times, and for which the batch load then runs alone.
RAMP_S, ALONE_S = 8.0, 10.0
#: Seconds between two interactive prompts while nothing else runs, which is more than one takes.
IDLE_S, IDLE_PROMPTS = 1.0, 8
#: Prompts of the counter-proof: each waits for tens of seconds.
OFF_PROMPTS = 10
WARM_UP = 4
#: Nothing may expire here: seconds within which a job must start.
MAX_WAIT_S = 3600
#: Seconds between two counts of the batch jobs; connections that submit and cancel.
FEED_S, SUBMITTERS = 0.05, 8
SYSTEM = "You answer."
OPEN = "('waiting', 'queued', 'running')"
POOL = {
    "max_running": STREAMS + SPARE,
    "kv_cache_mib": 1024,
    "max_model_tokens": 1024,
    "engine_options": {"enable_prefix_caching": False},
}


class Queue:
    """Headrace's own side: a running stack, and the requests to it."""

    def __init__(self, report: StackReport) -> None:
        self._url, self._model = report.url, report.model
        self._key = bearer(report.api_key)
        self._database_url = report.database_url.replace("+psycopg", "")

    def run(self, load: Load, lane: str) -> Seen:
        """One load from its beginning to its end; what is left of the batch load is cancelled.

        Args:
            lane: of the interactive prompts.
        """
        started = time.time()
        with self._batch(load):
            time.sleep(load.ramp_s)
            began = time.time()
            time.sleep(load.alone_s)
            beside = time.time()
            with ThreadPoolExecutor(len(load.interactive)) as threads:
                answers = self._ask_steadily(load, lane, threads)
                ended = time.time()
            first_s = [each.result() for each in answers]
        return Seen(first_s, self._spans(started), (began, beside), (beside, ended))

    def count_cancelled(self) -> int:
        """Jobs that were cancelled, as Postgres has them."""
        with psycopg.connect(self._database_url) as db:
            row = db.execute(b"SELECT count(*) FROM jobs WHERE state = 'cancelled'").fetchone()
        assert row is not None
        return int(row[0])

    def _ask_steadily(self, load: Load, lane: str, threads: ThreadPoolExecutor) -> list[Future[float]]:
        answers = []
        began = time.monotonic()
        for no, ask in enumerate(load.interactive, 1):
            answers.append(threads.submit(self._first_s, ask, lane))
            time.sleep(max(0.0, began + no * load.interval_s - time.monotonic()))
        return answers

    def _first_s(self, ask: Ask, lane: str) -> float:
        with Listener(self._url, self._key) as listener:
            job = {"lane": lane, "max_wait": MAX_WAIT_S}
            return listener.ask(self._body(ask) | {"messages": conversation(ask.text), "job": job}).first_s

    def _body(self, ask: Ask) -> dict[str, Any]:
        return {"model": self._model, "max_tokens": ask.max_tokens, "temperature": 0}

    @contextmanager
    def _batch(self, load: Load) -> Iterator[None]:
        """Keep this number of batch jobs there; in the end, cancel those that are left."""
        over = threading.Event()
        with ThreadPoolExecutor(1) as thread:
            feeding = thread.submit(self._feed, load, over)
            try:
                yield
            finally:
                over.set()
                feeding.result()
                self._cancel_rest()

    def _feed(self, load: Load, over: threading.Event) -> None:
        asks = cycle(load.batch)
        with psycopg.connect(self._database_url, autocommit=True) as db:
            while not over.wait(FEED_S):
                # Interactive prompts are streams, and batch jobs are none, in whichever lane they are.
                row = db.execute(f"SELECT count(*) FROM jobs WHERE state IN {OPEN} AND NOT stream".encode()).fetchone()
                assert row is not None
                self._call(self._submit(next(asks)) for _ in range(load.outstanding - row[0]))

    def _submit(self, ask: Ask) -> bytes:
        own = {"messages": conversation(ask.text), "lane": "batch", "max_wait": MAX_WAIT_S}
        return request("POST", "/v1/jobs", self._key, json.dumps(self._body(ask) | own).encode())

    def _cancel_rest(self) -> None:
        """Cancel every batch job that is left, and wait until they have ended."""
        with psycopg.connect(self._database_url, autocommit=True) as db:
            left = f"SELECT id FROM jobs WHERE state IN {OPEN} AND NOT stream".encode()
            while rows := db.execute(left).fetchall():
                self._call(request("POST", f"/v1/jobs/job_{row[0].hex}/cancel", self._key) for row in rows)
                time.sleep(FEED_S)

    def _call(self, requests: Iterator[bytes]) -> None:
        outcome = drive([self._url], requests, SUBMITTERS)
        if refused := set(outcome.statuses) - {200, 202}:
            raise click.ClickException(f"Requests were answered {refused}.")

    def _spans(self, since: float) -> list[Span]:
        """Of the batch jobs since then, as Postgres has them."""
        query = b"""SELECT extract(epoch FROM a.started_at)::float + coalesce(a.first_token_s, 0),
                    extract(epoch FROM a.ended_at)::float, a.output_tokens
                    FROM attempts a JOIN jobs j ON j.id = a.job_id
                    WHERE NOT j.stream AND a.output_tokens > 0 AND j.created_at >= to_timestamp(%s)"""
        with psycopg.connect(self._database_url) as db:
            return [Span(*row) for row in db.execute(query, (since,))]


class Engine:
    """The peer's side."""

    def __init__(self, peer: JsonPeer) -> None:
        self._peer = peer

    def run(self, load: Load) -> Seen:
        """As `Queue.run`, with the engine's own priorities for lanes."""
        return Seen.from_json(self._peer.ask(load.to_json()))


#: Runs one load.
Side = Callable[[Load], Seen]


def conversation(text: str) -> list[dict[str, str]]:
    """The messages of a prompt. With a system message of our own: the template's is longer than a short prompt."""
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}]


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured.

    Attributes:
        prompts: interactive ones of each round, of both sizes together.
        outstanding: batch jobs that are kept there.
    """

    rounds: int
    prompts: int
    interval_s: float
    outstanding: int
    off: str | None


class Loads:
    """Makes loads of prompts that were not asked before."""

    def __init__(self, folder: Path, model: str) -> None:
        self._tokenizer = model_files.tokenizer(model, folder)
        self._random = random.Random(1)
        self._number = 0

    def idle(self, prompts: int) -> Load:
        """Nothing runs beside them."""
        return Load([], 0, 0.0, 0.0, self._interactive(prompts), IDLE_S)

    def under(self, outstanding: int, prompts: int, interval_s: float) -> Load:
        """So many batch jobs run or wait beside them."""
        batch = [self._ask(BATCH_SIZE, self._random.randint(*BATCH_ANSWERS)) for _ in range(BATCH_PROMPTS)]
        return Load(batch, outstanding, RAMP_S, ALONE_S, self._interactive(prompts), interval_s)

    def _interactive(self, prompts: int) -> list[Ask]:
        return [self._ask(size, ANSWER) for size, _ in zip(cycle(SIZES), range(prompts), strict=False)]

    def _ask(self, size: int, max_tokens: int) -> Ask:
        self._number += 1
        text = text_of(f"Tale {self._number}", size, lambda text: len(self._encode(text)))
        return Ask(text, size, self._encode(text), max_tokens)

    def _encode(self, text: str) -> list[int]:
        return self._tokenizer.encode([Message("system", SYSTEM), Message("user", text)])


class Answers:
    """What every run of one kind came to: interactive prompts of both sizes, and the batch load beside them."""

    def __init__(self) -> None:
        self._runs: list[tuple[Load, Seen]] = []

    def add(self, load: Load, seen: Seen) -> None:
        """One more run."""
        self._runs.append((load, seen))

    def first_ms(self, percent: float, size: int | None = None) -> float:
        """The time to the first token that this percentage stays within; of the prompts of one size, or of all."""
        every = [pair for load, seen in self._runs for pair in zip(load.interactive, seen.first_s, strict=True)]
        return 1000 * percentile([first_s for ask, first_s in every if size in (None, ask.size)], percent)

    @property
    def share(self) -> float:
        """What is left of the batch load's rate: mean of the rounds."""
        return statistics.fmean(seen.share for _, seen in self._runs)

    @property
    def batch_rates(self) -> tuple[float, ...]:
        """Batch tokens a second, alone and beside interactive prompts: means of the rounds. Empty without a load."""
        seen = [each for load, each in self._runs if load.outstanding]
        windows = ((each, each.alone, each.beside) for each in seen)
        pairs = [(each.tokens_per_s(alone), each.tokens_per_s(beside)) for each, alone, beside in windows]
        return tuple(map(statistics.fmean, zip(*pairs, strict=True)))

    def to_json(self) -> list[dict[str, Any]]:
        """Every time to a first token, with its prompt's size."""
        return [
            {"sizes": [ask.size for ask in load.interactive], "first_s": list(seen.first_s)}
            for load, seen in self._runs
        ]


#: By what was running, and through whom.
Found = Mapping[str, Answers]


@contextmanager
def both(folder: Path) -> Iterator[tuple[Queue, Engine, StackReport]]:
    """A stack and the peer, on the model in the folder."""
    env = settings_of(folder, POOL)
    console.print("both engines are loading", style="dim")
    with real_stack(env) as stack:
        peer = JsonPeer("peers.async_engine", env)
        try:
            yield Queue(stack.report), Engine(peer), stack.report
        finally:
            peer.close()


def measure(plan: Plan) -> tuple[Found, Counts, int]:
    """Idle, then the rounds, the two in turn: the one that began a round is second in the next.

    Returns: what was found, what became of all jobs, and how many were cancelled: what was left of the batch load.
    """
    folder = demo_folder()
    found: defaultdict[str, Answers] = defaultdict(Answers)
    with both(folder) as (queue, engine, report):
        loads = Loads(folder, report.model)
        sides: list[tuple[str, Side]] = [("queue", lambda load: queue.run(load, "high")), ("engine", engine.run)]
        for name, run in sides:
            run(loads.idle(WARM_UP))
            load = loads.idle(IDLE_PROMPTS)
            found[f"{name} idle"].add(load, run(load))
        for _ in rounds(plan.rounds, lambda no: f"round {no}"):
            load = loads.under(plan.outstanding, plan.prompts, plan.interval_s)
            for name, run in sides:
                found[name].add(load, run(load))
            sides.reverse()
        if plan.off is not None:
            console.print("without priority", style="dim")
            load = loads.under(plan.outstanding, OFF_PROMPTS, plan.interval_s)
            found["queue off"].add(load, queue.run(load, "batch"))
        return found, count_jobs(report.database_url), queue.count_cancelled()


def show(found: Found) -> None:
    """Every kind of run: both sizes, and the batch load beside them."""
    table = Table("", header_style="bold", title="milliseconds to the first token; batch tokens a second")
    for heading in (
        *(f"{size} tokens: {what}" for size in SIZES for what in ("p50", "p99")),
        "alone",
        "beside",
        "share",
    ):
        table.add_column(heading, justify="right")
    for name, answers in found.items():
        rates = answers.batch_rates
        table.add_row(
            name,
            *(f"{answers.first_ms(percent, size):.0f}" for size in SIZES for percent in (50, 99)),
            *(f"{rate:.0f}" for rate in rates),
            f"{answers.share:.3f}" if rates else "",
        )
    console.print(table)


def summary(found: Found, counts: Counts, cancelled: int) -> dict[str, Any]:
    """What the last line says."""
    queue, engine = found["queue"], found["engine"]
    figures: dict[str, Any] = {
        "p99_vs_engine": queue.first_ms(99) / engine.first_ms(99),
        "p50_vs_engine": queue.first_ms(50) / engine.first_ms(50),
        "batch_share": queue.share,
        "engine_batch_share": engine.share,
        "p99_ms": queue.first_ms(99),
        "engine_p99_ms": engine.first_ms(99),
    }
    for size in SIZES:
        figures[f"vs_idle_{size}"] = queue.first_ms(50, size) / found["queue idle"].first_ms(50, size)
    if "queue off" in found:
        figures["p99_ms_off"] = found["queue off"].first_ms(99)
        figures["p99_vs_engine_off"] = figures["p99_ms_off"] / figures["engine_p99_ms"]
    return figures | asdict(counts) | {"cancelled": cancelled}


@click.command()
@click.option("--rounds", type=click.IntRange(min=1), default=2, show_default=True)
@click.option(
    "--prompts", type=click.IntRange(min=2), default=50, show_default=True, help="Interactive, in each round."
)
@click.option(
    "--interval",
    "interval_s",
    type=click.FloatRange(min=0.1),
    default=2.0,
    show_default=True,
    help="Seconds between two of them.",
)
@click.option(
    "--load",
    type=click.Choice(list(OUTSTANDING)),
    default="full",
    show_default=True,
    help=f"full: batch jobs fill all {STREAMS + SPARE} slots and {WAITING} more wait. room: {STREAMS} run, none wait.",
)
@click.option(
    "--off",
    type=click.Choice(["priority"]),
    help=f"Then ask {OFF_PROMPTS} more interactive prompts in the lane batch, behind the jobs that wait there.",
)
@click.option(
    "--json", "file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write every figure."
)
def main(rounds: int, prompts: int, interval_s: float, load: str, off: str | None, file: Path | None) -> None:
    """Measure the first tokens of interactive prompts under a batch load, through Headrace and in the bare engine.

    Starts a whole Headrace with the real vLLM engine in a temporary folder, and beside it a process with vLLM's
    `AsyncLLM`, the same engine arguments and priorities, prefix caching off. Both stay loaded and work in turn on the
    same prompts. A batch load fills the engine: jobs in the lane batch here, streams of the lowest priority there.
    Prompts of about 25 and of about 300 tokens are asked beside it at a steady rate, in the lane high and as chat
    completions that stream here, with the highest priority there. Their clock runs until their first text is there.

    The last line is name=value pairs: p99_vs_engine and p50_vs_engine, time to the first token over the engine's own,
    all rounds and both sizes together; batch_share, batch tokens a second with interactive prompts beside them over
    those without, and the engine's own; both p99; vs_idle_*, the median over that of an idle system, which physics
    sets; and what Postgres says became of all jobs: what is left of a batch load is cancelled. The status is 1 when
    p99_vs_engine is above 1.3, batch_share is below 0.9, or a job neither succeeded nor was cancelled.

    \b
    bin/headrace python benchmarks/interactive_under_batch.py
    bin/headrace python benchmarks/interactive_under_batch.py --load room
    bin/headrace python benchmarks/interactive_under_batch.py --off priority --json figures.json
    """
    check_installed()
    plan = Plan(rounds, prompts, interval_s, OUTSTANDING[load], off)
    found, counts, cancelled = measure(plan)
    show(found)
    figures = summary(found, counts, cancelled)
    if file is not None:
        every = {name: answers.to_json() for name, answers in found.items()}
        file.write_text(json.dumps({"plan": asdict(plan), "figures": figures, "runs": every}, indent=2) + "\n")
    print(line_of(figures))
    missed = figures["p99_vs_engine"] > MOST_P99 or figures["batch_share"] < LEAST_SHARE
    sys.exit(1 if missed or counts.accepted != counts.succeeded + cancelled else 0)


if __name__ == "__main__":
    main()
