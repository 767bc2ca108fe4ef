"""A batch of 50,000 lines beside interactive traffic, while every process is killed and Postgres fails over.

The claim: each line is in exactly one file of results, once; interactive prompts are answered nearly as soon as without
the batch; and the batch fills the slots when no one else asks. Knows the system from outside: the SDK, SQL, signals.
"""

import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import UUID

import click
import psycopg
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent.parent))

from bed.batches.client import BatchClient, write_file
from bed.batches.traffic import Span, Traffic
from bed.chaos.cluster import Cluster
from bed.load import percentile
from bed.real_engine import check_installed, demo_folder, real_stack, settings_of
from bed.testbed import Testbed, console, count_jobs, line_of, patched, wait_until
from headrace.stack.stack import Stack

#: Goals.
MOST_P95_RATIO, LEAST_USE, MOST_INSERT_S = 1.25, 0.9, 60.0
#: The simulated engine: answers at once, and the tokens a second of each.
SLOTS, TOKENS_PER_S = 64, 60
#: Tokens of each answer on the simulator.
ANSWER_TOKENS = 24
#: Interactive prompts a second.
PER_S = 5.0
#: Seconds after a fault in which interactive answers are not compared.
CALM_S = 30.0
#: Killed in this order, once each. `ops` and `flower` do not run: no job passes through them.
KILLED = ("web", "gpu", "plugins", "control", "webhooks", "beat", "valkey")
WITHOUT = ("overflow", "flower", "ops")
SETTINGS = {
    "HEADRACE_POOLS__CHAT__MAX_RUNNING": str(SLOTS),
    "HEADRACE_SIMULATOR__DECODE_TOKENS_PER_S": str(TOKENS_PER_S),
    "HEADRACE_SIMULATOR__OUTPUT_TOKENS": str(ANSWER_TOKENS),
}
OFF_FOLDER = Path(__file__).parent / "bed" / "batches" / "off"
#: Lines of a counter-proof at most, and how often its `batches` is killed.
OFF_LINES, OFF_KILLS = 4000, 3
#: The real model on the CPU: slots, prompts a second and their answers' tokens, seconds of them alone.
REAL_POOL = {"max_running": 32, "kv_cache_mib": 512, "max_model_tokens": 1024}
REAL_PER_S, REAL_LINE_TOKENS, REAL_TOKENS, REAL_ALONE_S = 0.5, 16, 8, 20.0
#: The longest time for a process to come back, and without any line that ends.
COMES_BACK_S, STUCK_S = 120.0, 180.0
TERMINAL = ("completed", "failed", "expired", "cancelled")
_BATCH = """
    SELECT extract(epoch FROM completed_at - created_at)::float, extract(epoch FROM in_progress_at - created_at)::float,
           extract(epoch FROM finalizing_at)::float,
           (SELECT extract(epoch FROM max(submitted_at))::float FROM batch_lines WHERE batch_id = id)
    FROM batches WHERE id = %s
"""
_TWICE = """
    SELECT count(*) FROM jobs
    WHERE notes->>'batches' = 'batch_' || replace(%s::text, '-', '')
        AND NOT EXISTS (SELECT FROM batch_lines WHERE batch_lines.job_id = jobs.id)
"""
#: Seconds of slots in use between two times.
_USED = """
    SELECT coalesce(sum(extract(epoch FROM least(coalesce(ended_at, now()), to_timestamp(%(ended)s))
                                         - greatest(started_at, to_timestamp(%(began)s)))), 0)::float
    FROM attempts WHERE started_at < to_timestamp(%(ended)s) AND coalesce(ended_at, now()) > to_timestamp(%(began)s)
"""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured. Attributes: window_s: interactive traffic comes and stays away for so long, in turn."""

    lines: int
    window_s: float


@dataclass(slots=True)
class Seen:
    """What one run saw.

    Attributes:
        alone, beside: times of interactive traffic without and with the batch.
        valley: times without it.
        faults: each from its beginning to the end of the time that it spoils.
    """

    batch_id: str = ""
    alone: list[Span] = field(default_factory=list)
    beside: list[Span] = field(default_factory=list)
    valley: list[Span] = field(default_factory=list)
    faults: list[Span] = field(default_factory=list)


class Run:
    """One batch on a stack, with interactive traffic before, beside and after it. Attributes: seen: what it saw."""

    def __init__(self, stack: Stack, client: BatchClient, traffic: Traffic, lines: int) -> None:
        self._stack, self._client, self._traffic, self._lines = stack, client, traffic, lines
        self._told_at, self._moved = 0.0, (0, time.monotonic())
        self.seen = Seen()

    def alone(self, seconds: float) -> None:
        """Interactive traffic and nothing else."""
        console.print("interactive traffic alone", style="dim")
        with self._traffic.running(), self._span(self.seen.alone):
            time.sleep(seconds)

    def begin(self, path: Path) -> None:
        """Upload the file and make its batch."""
        console.print("the file is uploaded", style="dim")
        self.seen.batch_id = self._client.begin(path)

    def beside(self, seconds: float) -> None:
        """Interactive traffic beside the batch, for so long at most."""
        with self._traffic.running(), self._span(self.seen.beside):
            self._watch(seconds)

    def valley(self, seconds: float) -> None:
        """The batch and nothing else, for so long at most."""
        with self._span(self.seen.valley):
            self._watch(seconds)

    def strike(self, cluster: Cluster) -> None:
        """Kill each process, and promote the replica of Postgres, while interactive traffic runs."""
        with self._traffic.running():
            for name in KILLED:
                self._fault(f"kill -9 of {name}", lambda name=name: self.kill(name))
            self._fault("the replica of Postgres is promoted", lambda: (cluster.promote(), cluster.rejoin()))
            self._watch(CALM_S)

    def is_over(self) -> bool:
        """Whether the batch has ended."""
        return self._client.read(self.seen.batch_id).status in TERMINAL

    def ended(self) -> int:
        """How many lines have ended, which it also prints. Raises: ClickException: no line ends any more."""
        ended, now = self._client.ended(self.seen.batch_id), time.monotonic()
        if ended != self._moved[0]:
            self._moved = (ended, now)
        elif now - self._moved[1] > STUCK_S:
            raise click.ClickException(f"No line has ended for {STUCK_S:.0f} s: {ended} of {self._lines} have.")
        if now - self._told_at > 10:
            self._told_at = now
            console.print(f"{ended} of {self._lines} lines have ended", style="dim")
        return ended

    def _watch(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.ended()
            if self.is_over():
                return
            time.sleep(min(1.0, max(0.0, until - time.monotonic())))

    def _fault(self, what: str, happen: Callable[[], object]) -> None:
        console.print(what, style="dim")
        began = time.time()
        happen()
        self.seen.faults.append(Span(began, time.time() + CALM_S))

    def kill(self, name: str) -> None:
        """Kill a process, and wait for the next one."""
        pid = self._stack.kill(name)
        wait_until(lambda: self._stack.report.pids.get(name, pid) != pid, COMES_BACK_S, f"{name} does not come back.")

    @contextmanager
    def _span(self, spans: list[Span]) -> Iterator[None]:
        began = time.time()
        yield
        spans.append(Span(began, time.time()))


def measure(plan: Plan) -> dict[str, Any]:
    """The whole of it, on the simulator. Returns: the figures."""
    with TemporaryDirectory(prefix="headrace-benchmark-") as folder, Cluster(Path(folder), is_proxied=False) as cluster:
        env = SETTINGS | {"DATABASE_URL": cluster.url}
        path = Path(folder) / "lines.jsonl"
        write_file(path, plan.lines, ANSWER_TOKENS)
        with (
            Testbed(env, WITHOUT, has_batches=True) as bed,
            closing(BatchClient(bed.stack.report)) as client,
            closing(Traffic(bed.stack.report, PER_S, ANSWER_TOKENS)) as traffic,
        ):
            run = Run(bed.stack, client, traffic, plan.lines)
            run.alone(plan.window_s)
            run.begin(path)
            for each in cycle((run.beside, run.valley)):
                each(plan.window_s)
                if not run.seen.faults and run.ended() >= plan.lines / 2:
                    run.strike(cluster)
                if run.is_over():
                    break
            run.alone(plan.window_s)
            results = client.results(run.seen.batch_id, plan.lines)
            figures = {"lines": plan.lines, "once": results.once, "refused_lines": results.errors}
            return figures | judge(cluster.primary.url, run.seen, traffic)


def judge(database_url: str, seen: Seen, traffic: Traffic) -> dict[str, Any]:
    """What Postgres and the interactive answers say of a run."""
    with psycopg.connect(database_url) as db:
        number = UUID(seen.batch_id.removeprefix("batch_"))
        seconds, insert_s, last_end, last_submit = _row(db, _BATCH, (number,))
        [twice] = _row(db, _TWICE, (number,))
        # Once the last line is submitted, the slots empty by themselves.
        valley = [Span(each.began, min(each.ended, last_submit)) for each in seen.valley if each.began < last_submit]
        used = sum(_row(db, _USED, each._asdict())[0] for each in valley)
    alone = traffic.seconds_in(seen.alone)
    beside = traffic.seconds_in([Span(each.began, min(each.ended, last_end)) for each in seen.beside], seen.faults)
    p95_s, alone_p95_s = _p95_s(beside), _p95_s(alone)
    in_faults = traffic.seconds_in(seen.faults)
    idle_s = sum(each.seconds for each in valley)
    return {
        "seconds": seconds,
        "interactive_p95_ratio": p95_s / alone_p95_s,
        "valley_use": used / (SLOTS * idle_s) if idle_s else math.nan,
        "insert_s": insert_s,
        "twice": twice,
        "interactive_p95_s": p95_s,
        "alone_p95_s": alone_p95_s,
        "asked": len(alone) + len(beside),
        "unanswered": (alone + beside).count(None),
        "asked_in_faults": len(in_faults),
        "unanswered_in_faults": in_faults.count(None),
        "valley_s": idle_s,
        "faults": len(seen.faults),
        **asdict(count_jobs(database_url)),
    }


def _row(db: psycopg.Connection[Any], query: str, values: Any) -> tuple[Any, ...]:
    row = db.execute(query.encode(), values).fetchone()
    assert row is not None
    return tuple(row)


def _p95_s(answers: Sequence[float | None]) -> float:
    """An error counts as the longest wait."""
    return percentile([math.inf if each is None else each for each in answers], 95)


def measure_real(lines: int) -> dict[str, Any]:
    """A batch on the real model, with interactive traffic before, beside and after it, and no faults."""
    env = settings_of(demo_folder(), REAL_POOL)
    console.print("the real engine is loading", style="dim")
    with (
        TemporaryDirectory(prefix="headrace-benchmark-") as folder,
        real_stack(env, WITHOUT, has_batches=True) as stack,
        closing(BatchClient(stack.report)) as client,
        closing(Traffic(stack.report, REAL_PER_S, REAL_TOKENS)) as traffic,
    ):
        path = Path(folder) / "lines.jsonl"
        write_file(path, lines, REAL_LINE_TOKENS)
        run = Run(stack, client, traffic, lines)
        run.alone(REAL_ALONE_S)
        run.begin(path)
        while not run.is_over():
            run.beside(STUCK_S)
        run.alone(REAL_ALONE_S)
        judged = judge(stack.report.database_url.replace("+psycopg", ""), run.seen, traffic)
        kept = ("seconds", "interactive_p95_ratio", "interactive_p95_s", "unanswered")
        once = client.results(run.seen.batch_id, lines).once
        return {"real_lines": lines, "real_once": once} | {f"real_{name}": judged[name] for name in kept}


def measure_off(lines: int) -> dict[str, Any]:
    """Lines that ran twice where the ids of their jobs are not written down before they are submitted."""
    env = SETTINGS | patched(OFF_FOLDER) | {"BATCH_OFF": "ids"}
    with (
        Testbed(env, WITHOUT, has_batches=True) as bed,
        closing(BatchClient(bed.stack.report)) as client,
        closing(Traffic(bed.stack.report, PER_S, ANSWER_TOKENS)) as traffic,
    ):
        path = bed.folder / "lines.jsonl"
        write_file(path, lines, ANSWER_TOKENS)
        run = Run(bed.stack, client, traffic, lines)
        run.begin(path)
        for kill in range(1, OFF_KILLS + 1):
            wait_until(lambda kill=kill: run.ended() >= kill * lines / (OFF_KILLS + 2), STUCK_S, "Lines do not end.")
            console.print(f"kill -9 of batches, {kill} of {OFF_KILLS}", style="dim")
            run.kill("plugins")
        while not run.is_over():
            run.valley(STUCK_S)
        number = UUID(run.seen.batch_id.removeprefix("batch_"))
        return {"lines_without_ids": lines, "twice_without_ids": bed.sql(_TWICE, number)[0][0]}


def is_met(figures: dict[str, Any]) -> bool:
    """Whether every goal is."""
    is_whole = figures["once"] == figures["lines"] and figures["twice"] == figures["unanswered"] == 0
    is_soon = figures["interactive_p95_ratio"] <= MOST_P95_RATIO and figures["insert_s"] <= MOST_INSERT_S
    is_real = figures.get("real_once") == figures.get("real_lines")
    return is_whole and is_soon and is_real and figures["valley_use"] >= LEAST_USE


def show(figures: dict[str, Any]) -> None:
    """All figures."""
    table = Table("figure", header_style="bold")
    table.add_column("", justify="right")
    for name, value in figures.items():
        table.add_row(name, line_of({name: value}).partition("=")[2])
    console.print(table)


@click.command()
@click.option("--lines", type=click.IntRange(min=100), default=50_000, show_default=True)
@click.option("--real", type=click.IntRange(min=0), default=500, show_default=True, help="Lines on the real model.")
@click.option(
    "--window",
    "window_s",
    type=click.FloatRange(min=1),
    default=40.0,
    show_default=True,
    help="Seconds for which interactive traffic comes, and stays away, in turn.",
)
@click.option("--off", type=click.Choice(["ids"]), help="Then once more without the ids of jobs: what runs twice.")
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write figures.")
def main(lines: int, real: int, window_s: float, off: str | None, file: Path | None) -> None:
    """Run a batch beside interactive traffic, kill everything once, and count where its lines are.

    Starts a whole Headrace on the simulator, with 64 slots, and on a primary of Postgres with a synchronous standby.
    The unchanged `openai` SDK asks interactive prompts at 5 a second: first alone, then beside the batch in turn with
    times without them, and alone again. Once half of the lines have ended, each process is killed with SIGKILL, and
    the standby is promoted. One line in a hundred asks for what its endpoint refuses. Then a smaller batch runs on the
    real model on the CPU, without faults; `--real 0` leaves it out.

    The last line is name=value pairs: lines; once, those that are in exactly one of both files, once; seconds of the
    batch, faults included; interactive_p95_ratio, the p95 of whole interactive answers beside the batch over that
    alone, from 30 s after each fault; valley_use, slots in use while no one else asks and lines are left; insert_s,
    until the file's lines are rows; twice, lines that more than one job answered; unanswered, interactive prompts that
    failed outside of faults; the real model's, with `real_` before them, where a CPU's steps take longer the more
    lines are in them; and what became of all jobs, in SQL. With `--off ids` the process keeps the ids of its lines'
    jobs in memory and is killed three times; twice_without_ids counts the lines that ran twice. The status is 1 when a
    goal is missed.

    \b
    bin/headrace python benchmarks/batch.py --off ids
    bin/headrace python benchmarks/batch.py --lines 8000 --window 5 --real 0
    """
    if real:
        check_installed()
    figures = measure(Plan(lines, window_s))
    if real:
        figures |= measure_real(real)
    if off:
        console.print("once more, without the ids of jobs", style="dim")
        figures |= measure_off(min(lines, OFF_LINES))
    show(figures)
    if file is not None:
        file.write_text(json.dumps(figures, indent=2) + "\n")
    print(line_of(figures))
    sys.exit(0 if is_met(figures) else 1)


if __name__ == "__main__":
    main()
