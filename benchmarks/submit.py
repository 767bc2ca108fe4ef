"""Cost of a durable, capped submit: `POST /v1/jobs` beside what a team writes on Flask, SQLAlchemy and Celery.

The claims: Headrace accepts 1.5 times as many jobs per second as a Flask view that inserts a row, commits and calls
`apply_async`, and a refusal takes little more processor time than in a Flask view that checks as much. All arms run on
the same broker, database and machine, in turn, each process kept to one CPU. Knows the system from outside: HTTP to
submit, SQL and Redis to count.
"""

import itertools
import json
import statistics
import sys
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import click
from rich.box import SIMPLE_HEAD
from rich.table import Table

from bed.load import Outcome, drive, request
from bed.testbed import Counts, Testbed, bearer, console, lanes, line_of, patched, rounds
from bed.tokenizer import write_tokenizer
from headrace.broker.messages import list_key
from peers import bare_app

#: No queue of this size is reached, and nothing expires.
ROOMY = lanes(depth_cap=100_000_000, backlog_cap_tokens=10**12, max_wait_s=86_400)
#: The lane whose queue is full, and the cap that it is full at.
FULL_LANE, FULL_CAP = "high", 500
#: A prompt that makes the body about 1 kB.
PROMPT = "Explain in plain words why the sky is blue. " * 22
BODY_BYTES = 1000
#: The broker holds every job that this submits.
BROKER_MEMORY = "4gb"
WARM_UP_S = 1.0
GOAL_RATIO, GOAL_REFUSAL_US = 1.5, 150.0
#: Switches shared batches off in an API process.
OFF_FOLDER = Path(__file__).parent / "bed" / "sharing" / "off"


@dataclass(frozen=True, slots=True)
class Arm:
    """One request, sent again and again to these servers, and the status of its answers."""

    urls: Sequence[str]
    request: bytes
    status: int


@dataclass(frozen=True, slots=True)
class Run:
    """One run of one arm; the last three are processor microseconds for each answer."""

    per_s: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    wrong: int
    server_us: float
    postgres_us: float
    valkey_us: float

    @classmethod
    def of(cls, outcome: Outcome, status: int, used_s: Mapping[str, float]) -> "Run":
        """Args: status: of the answers that count. used_s: what the servers used of the processor, by name."""
        latencies_ms = (outcome.latency_ms(status, percent) for percent in (50, 95, 99))
        used_us = (1e6 * used_s[name] / len(outcome.answers) for name in ("server", "postgres", "valkey"))
        return cls(outcome.per_s(status), *latencies_ms, len(outcome.answers) - outcome.count(status), *used_us)


@dataclass(frozen=True, slots=True)
class Audit:
    """Fate of every 202, by the ids in the answers.

    Attributes:
        lost: not in Postgres, or not in Redis.
        doubled: more than once in Redis; an id is unique in Postgres.
        unasked: in Postgres or Redis, and in no answer.
    """

    told: int
    lost: int
    doubled: int
    unasked: int

    @property
    def clean(self) -> bool:
        """True when each is found once, and nothing else is."""
        return not (self.lost or self.doubled or self.unasked)


@dataclass(frozen=True, slots=True)
class Plan:
    """Extent of a measurement."""

    rounds: int
    seconds: float
    connections: int
    processes: int


def body(lane: str) -> bytes:
    """A submit of about 1 kB."""
    text = json.dumps({"prompt": PROMPT, "max_tokens": 64, "lane": lane, "metadata": {"source": "benchmark"}})
    assert abs(len(text) - BODY_BYTES) < 100, len(text)
    return text.encode()


class Bench:
    """All arms on one testbed, and the ids that Headrace has handed out."""

    def __init__(self, bed: Testbed, plan: Plan, off: Collection[str]) -> None:
        self._bed = bed
        self._plan = plan
        self._told: list[str] = []
        bed.redis.config_set("maxmemory", BROKER_MEMORY)
        bare_app.make_tables(bed.stack.report.database_url, bed.api_key)
        key = bearer(bed.api_key)
        api, bare = bed.start_web(plan.processes), bed.start_bare(plan.processes)
        submit = request("POST", "/v1/jobs", key, body("normal"))
        self.arms = {
            "headrace": Arm(api, submit, 202),
            "durable": Arm(bare, request("POST", "/rows", key, body("normal")), 202),
            "bare": Arm(bare, request("POST", "/bare", key, body("normal")), 202),
            "refused": Arm(api, request("POST", "/v1/jobs", key, body(FULL_LANE)), 429),
            "refuse_peer": Arm(bare, request("POST", "/refuse", key, body(FULL_LANE)), 429),
            "hello": Arm(bare, request("GET", "/hello", key), 200),
        }
        if "sharing" in off:
            env = patched(OFF_FOLDER) | {"SHARING_OFF": "sharing"}
            self.arms["off_sharing"] = Arm(bed.start_web(plan.processes, env=env), submit, 202)
        if "cpus" in off:
            self.arms["off_cpus"] = Arm(bed.start_web(plan.processes, is_kept=False), submit, 202)
        self._fill()
        for name in self.arms:
            self.run(name, WARM_UP_S)

    def run(self, name: str, seconds: float) -> Run:
        """One run of an arm."""
        arm = self.arms[name]
        before = self._bed.cpu_s(arm.urls)
        outcome = drive(arm.urls, itertools.repeat(arm.request), self._plan.connections, seconds)
        used_s = {who: now - before[who] for who, now in self._bed.cpu_s(arm.urls).items()}
        self._note(outcome, arm)
        self._bed.redis.unlink(bare_app.QUEUE)
        return Run.of(outcome, arm.status, used_s)

    def _fill(self) -> None:
        """Make one queue of each side full."""
        self._bed.redis.rpush(bare_app.CAPPED_QUEUE, *range(FULL_CAP))
        arm = self.arms["refused"]
        self._note(drive(arm.urls, itertools.repeat(arm.request, FULL_CAP), self._plan.connections), arm)

    def _note(self, outcome: Outcome, arm: Arm) -> None:
        """Keep the ids of what Headrace has accepted."""
        if arm.urls is not self.arms["bare"].urls:
            self._told += [json.loads(answer.body)["id"] for answer in outcome.answers if answer.status == 202]

    def audit(self) -> Audit:
        """Look for every 202 in Postgres and in Redis."""
        told = {job_id.removeprefix("job_") for job_id in self._told}
        rows = {job_id.hex for (job_id,) in self._bed.sql("SELECT id FROM jobs WHERE state = 'queued'")}
        messages = [
            json.loads(message)["headers"]["id"].removeprefix("job_")
            for lane in ("normal", FULL_LANE)
            for message in self._bed.redis.lrange(list_key(f"chat.{lane}"), 0, -1)
        ]
        listed = set(messages)
        lost = len(told - rows | told - listed) + len(self._told) - len(told)
        return Audit(len(self._told), lost, len(messages) - len(listed), len((rows | listed) - told))


def measure(plan: Plan, off: Collection[str]) -> tuple[dict[str, list[Run]], Audit, Counts]:
    """Every arm in turn, round after round, so that whatever else the machine does falls on all."""
    # One app makes all calls, and the arm `refused` thousands a second.
    env = {
        **ROOMY,
        f"HEADRACE_LANES__{FULL_LANE.upper()}__DEPTH_CAP": str(FULL_CAP),
        "HEADRACE_CALLS_PER_MINUTE": str(10**9),
    }
    with ExitStack() as exits:
        model = exits.enter_context(TemporaryDirectory())
        write_tokenizer(Path(model))
        bed = exits.enter_context(Testbed(env | {"HEADRACE_MODEL_DIR": model}))
        console.rule(f"{plan.connections} connections, {plan.processes} processes of each server")
        bench = Bench(bed, plan, off)
        runs: dict[str, list[Run]] = {name: [] for name in bench.arms}
        for _ in rounds(plan.rounds, lambda no: f"round {no} of {plan.rounds}: {', '.join(runs)}"):
            for name, each in runs.items():
                each.append(bench.run(name, plan.seconds))
        console.print("looking for every 202 in Postgres and Redis", style="dim")
        return runs, bench.audit(), bed.count()


def over_us(above: Sequence[Run], below: Sequence[Run]) -> float:
    """Processor us of the servers for each answer, of one arm above another, in the median round."""
    return statistics.median(a.server_us - b.server_us for a, b in zip(above, below, strict=True))


def median(runs: Sequence[Run], name: str) -> float:
    """The median round's figure."""
    return statistics.median(getattr(run, name) for run in runs)


def ratio(above: Sequence[Run], below: Sequence[Run]) -> float:
    """Answers per second of one arm over those of another, in the median round."""
    return statistics.median(a.per_s / b.per_s for a, b in zip(above, below, strict=True))


def show(runs: Mapping[str, Sequence[Run]]) -> None:
    """Medians of every arm, and the spread of its rates."""
    title = "medians over the rounds; latencies in ms, processor time in us"
    table = Table("arm", header_style="bold", title=title, box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("per s", "least-most", "p50", "p95", "p99", "wrong", "server", "postgres", "valkey"):
        table.add_column(heading, justify="right")
    for name, each in runs.items():
        rates = [run.per_s for run in each]
        latencies = (f"{median(each, which):.1f}" for which in ("p50_ms", "p95_ms", "p99_ms"))
        span = f"{min(rates):.0f}-{max(rates):.0f}"
        used = (f"{median(each, f'{who}_us'):.0f}" for who in ("server", "postgres", "valkey"))
        table.add_row(
            name, f"{median(each, 'per_s'):.0f}", span, *latencies, str(sum(run.wrong for run in each)), *used
        )
    console.print(table)


def summary(runs: Mapping[str, Sequence[Run]], audit: Audit, counts: Counts) -> dict[str, object]:
    """Figures of the last line."""
    durable = runs["durable"]
    figures: dict[str, object] = {
        "ratio_durable": ratio(runs["headrace"], durable),
        "refusal_over_us": over_us(runs["refused"], runs["refuse_peer"]),
        "ratio_bare": ratio(runs["headrace"], runs["bare"]),
        "refuse_vs_hello": ratio(runs["refused"], runs["hello"]),
    }
    figures |= {f"ratio_durable_{name}": ratio(each, durable) for name, each in runs.items() if name.startswith("off_")}
    for name, each in runs.items():
        figures |= {f"{name}_{what}": median(each, what) for what in ("per_s", "p95_ms", "server_us")}
    figures["wrong"] = sum(run.wrong for each in runs.values() for run in each)
    return figures | {name: getattr(audit, name) for name in ("lost", "doubled", "unasked")} | asdict(counts)


def holds(figures: Mapping[str, object], audit: Audit) -> bool:
    """True when every claim does."""
    ratio, over_us = figures["ratio_durable"], figures["refusal_over_us"]
    assert isinstance(ratio, float)
    assert isinstance(over_us, float)
    return ratio >= GOAL_RATIO and over_us <= GOAL_REFUSAL_US and audit.clean and not figures["wrong"]


@click.command()
@click.option("--rounds", type=click.IntRange(min=1), default=9, show_default=True, help="The median round counts.")
@click.option(
    "--seconds", type=click.FloatRange(min=0.5), default=4, show_default=True, help="Of each arm in each round."
)
@click.option("--connections", type=click.IntRange(min=1), default=32, show_default=True, help="Open at once.")
@click.option(
    "--processes", type=click.IntRange(min=1), default=2, show_default=True, help="Of the API, and of its peers."
)
@click.option(
    "--off",
    multiple=True,
    type=click.Choice(["sharing", "cpus"]),
    help="One more arm of Headrace, with a lower ratio. Repeatable. sharing: reservation, insert and commit of its own "
    "for each job. cpus: on any CPU.",
)
@click.option(
    "--json", "file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write every figure."
)
def main(
    rounds: int, seconds: float, connections: int, processes: int, off: tuple[str, ...], file: Path | None
) -> None:
    """Compare submits and refusals with what a team writes on Flask, SQLAlchemy and Celery.

    Starts Postgres, Valkey, API processes and as many of the peers (benchmarks/peers/bare_app.py) in a temporary
    folder; no worker and no sweep runs. The first process of each keeps to the first CPU, the second to the second, and
    so on. All get the same body of 1 kB over connections that stay open, and answer each request before the next comes
    on its connection. The pool has a tokenizer.json, as one of a real model has. The arms take turns in every round:

    \b
    headrace     POST /v1/jobs: key, validation, tokens counted, place taken, row committed, message pushed: 202
    durable      a Flask view: JSON in, SQLAlchemy's insert and commit, apply_async of the row's id, JSON out: 202
    bare         the same without the row: 202
    refused      POST /v1/jobs to a queue that is full at 500: 429
    refuse_peer  a Flask view: key looked up in memory, JSON in, tokens counted, a list's length from Redis, then 429
    hello        GET of a constant as JSON
    off_sharing  with --off sharing: as headrace, each request in a thread of its own with its own round trips
    off_cpus     with --off cpus: as headrace, on any CPU

    The peers have pooled connections, hiredis, no results and no events. Only refuse_peer checks a key, counts tokens
    or knows a cap. Afterwards every 202's id of Headrace is looked for in Postgres and in Redis. The table's last
    columns are processor time for each answer, of all threads and processes: they say what an arm's rate is made of.

    The last line is name=value pairs: ratio_durable (headrace over durable, jobs per second, median of the rounds);
    refusal_over_us (processor microseconds of the servers for each answer, refused less refuse_peer, median of the
    rounds); ratio_bare and refuse_vs_hello, which have no goal; ratio_durable_off_sharing and ratio_durable_off_cpus;
    microseconds, rates and p95 of arms; wrong (answers of another status), lost, doubled and unasked jobs, and what
    Postgres says of all jobs: none succeeds, since no worker runs. The status is 1 when ratio_durable is below 1.5,
    refusal_over_us above 150, or any job is lost, doubled or unasked for.

    \b
    bin/headrace python benchmarks/submit.py
    bin/headrace python benchmarks/submit.py --off sharing --off cpus --json figures.json
    """
    plan = Plan(rounds, seconds, connections, processes)
    runs, audit, counts = measure(plan, off)
    show(runs)
    figures = summary(runs, audit, counts)
    if file is not None:
        every = {name: [asdict(run) for run in each] for name, each in runs.items()}
        report = {"plan": asdict(plan), "figures": figures, "audit": asdict(audit), "runs": every}
        file.write_text(json.dumps(report, indent=2) + "\n")
    print(line_of(figures))
    sys.exit(0 if holds(figures, audit) else 1)


if __name__ == "__main__":
    main()
