"""How true the expected wait is: what each 202 told, against what Postgres says the job then waited.

The claim: in each of three lanes, the median relative error stays within 0.15 and below the best constant's, though
more arrives than the workers can do, and although the workers double half-way. Knows the system from
outside: HTTP to submit, SQL to measure.
"""

import csv
import itertools
import json
import math
import random
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from uuid import UUID

import click
from rich.table import Table

from bed.load import Outcome, drive, percentile, request
from bed.testbed import BARE, Counts, Testbed, bearer, console, lanes, line_of
from headrace.config import Settings, SimulatorSettings
from headrace.domain.queues import Lane

TRACE = Path(__file__).parent / "bed" / "traces" / "azure_2023_code_first_2000.csv"
LANES = (Lane.HIGH, Lane.NORMAL, Lane.LOW)
SIMULATOR = SimulatorSettings()
#: Neither a cap nor a time limit ends a wait here; and the longest job of the trace fits, whatever runs beside it.
ROOMY = lanes(depth_cap=1_000_000, backlog_cap_tokens=1_000_000_000, max_wait_s=3600)
LONGEST_JOB_TOKENS = 16_384
#: Errors are relative to the real wait, or to this where that was shorter: no plan depends on less than a second.
FLOOR_S = 1.0
GOAL = 0.15
#: One word, one token of the simulator's tokenizer.
WORD = "the "
PROGRESS_EVERY_S = 10.0
DRAIN_TIMEOUT_S = 300.0


@dataclass(frozen=True, slots=True)
class Length:
    """One request of the trace, in tokens."""

    prompt: int
    answer: int

    @property
    def seconds(self) -> float:
        """How long the simulator takes for it."""
        return self.prompt / SIMULATOR.prefill_tokens_per_s + self.answer / SIMULATOR.decode_tokens_per_s


@dataclass(frozen=True)
class Plan:
    """What is submitted, and to how many workers.

    Attributes:
        slots: of one worker.
        load: arrivals over what the first workers can do, in every lane.
        half_s: until the number of workers doubles, and from then on.
        warm_up_s: jobs that are submitted earlier do not count.
    """

    workers: int
    slots: int
    load: float
    half_s: float
    warm_up_s: float
    seed: int

    @cached_property
    def lengths(self) -> list[Length]:
        """The trace, in its own order."""
        with TRACE.open(newline="") as file:
            return [Length(int(row["ContextTokens"]), int(row["GeneratedTokens"])) for row in csv.DictReader(file)]

    @property
    def capacity_per_s(self) -> float:
        """Jobs that the first workers can do, if taking one costs nothing."""
        return self.workers * self.slots / statistics.mean(length.seconds for length in self.lengths)

    def arrivals(self) -> Iterator[tuple[float, Lane, Length]]:
        """Seconds from the start, lane and size of every job: in each lane a Poisson process.

        Each lane gets the same load on its share of the takes, so that each has a queue.
        """
        chance = random.Random(self.seed)
        takes = [Settings.load().lane(lane).takes for lane in LANES]
        at_s = 0.0
        for length in itertools.cycle(self.lengths):
            at_s += chance.expovariate(self.load * self.capacity_per_s)
            if at_s >= 2 * self.half_s:
                return
            yield at_s, chance.choices(LANES, takes)[0], length


@dataclass(frozen=True, slots=True)
class Wait:
    """One job's wait, as it was told and as it was.

    Attributes:
        at_s: when it was accepted, from the first of all.
        told_s: None when it was not known.
        real_s: None when it never started.
    """

    lane: str
    at_s: float
    told_s: float | None
    real_s: float | None

    @property
    def is_at_once(self) -> bool:
        """True when it neither waited nor was told that it would: nothing there to foresee."""
        return all(each_s is not None and each_s < FLOOR_S for each_s in (self.told_s, self.real_s))

    @property
    def error(self) -> float:
        """Relative to the real wait; infinite when nothing was told or the job never started."""
        return math.inf if self.told_s is None else self.error_of(self.told_s)

    def error_of(self, told_s: float) -> float:
        """What the error would be, had it been told this."""
        return math.inf if self.real_s is None else abs(told_s - self.real_s) / max(self.real_s, FLOOR_S)


@dataclass(frozen=True, slots=True)
class Phase:
    """The jobs of one lane in one part of the run."""

    jobs: int
    median_error: float
    median_wait_s: float
    #: Told over real; above 1 where more was told.
    median_ratio: float

    @classmethod
    def of(cls, waits: Sequence[Wait]) -> "Phase":
        """NaN without data."""
        started = [(each.told_s, each.real_s) for each in waits if each.told_s is not None and each.real_s is not None]
        ratios = [told_s / max(real_s, FLOOR_S) for told_s, real_s in started]
        reals_s = [real_s for _, real_s in started]
        return cls(len(waits), percentile([each.error for each in waits], 50), _median(reals_s), _median(ratios))


@dataclass(frozen=True, slots=True)
class LaneFigures:
    """One lane.

    Attributes:
        constant_error: the median error, had every job been told `constant_s`: the one wait that makes it smallest,
            found afterwards from these very jobs.
        before: jobs that started before the drain rate doubled; `across`: those that were told their wait before, and
            started after, which could not be foreseen; `after`: those that came after.
    """

    jobs: int
    median_error: float
    p90_error: float
    constant_error: float
    constant_s: float
    before: Phase
    across: Phase
    after: Phase


@dataclass(frozen=True, slots=True)
class Run:
    """One run.

    Attributes:
        doubled_at_s: when the last of the new workers began to take jobs, on the clock of `Wait.at_s`.
        refused: answers that were no 202.
        warm_up, at_once: jobs that do not count, since they came in the warm-up, or neither waited nor were told so.
    """

    lanes: Mapping[str, LaneFigures]
    doubled_at_s: float
    refused: int
    warm_up: int
    at_once: int
    counts: Counts
    waits: Sequence[Wait]

    @property
    def unended(self) -> int:
        """Jobs that were accepted, and neither succeeded, expired nor failed."""
        return self.counts.accepted - self.counts.succeeded - self.counts.expired - self.counts.failed


def submits(plan: Plan, key: str) -> Iterator[bytes]:
    """The requests, each when it is due."""
    began = time.monotonic()
    for number, (at_s, lane, length) in enumerate(plan.arrivals()):
        body = {
            "prompt": f"{number:<11d} " + WORD * max(0, length.prompt - 5),
            "max_tokens": length.answer,
            "lane": lane,
        }
        data = request("POST", "/v1/jobs", bearer(key), json.dumps(body).encode())
        time.sleep(max(0.0, began + at_s - time.monotonic()))
        yield data


def measure(plan: Plan, title: str, without: Sequence[str] = ()) -> Run:
    """Start a stack, submit everything, double the workers half-way, wait until all has ended.

    Args:
        without: processes that are left out.
    """
    pool = {"max_running": plan.slots, "max_model_tokens": LONGEST_JOB_TOKENS}
    env = ROOMY | {
        "HEADRACE_POOLS": json.dumps({"chat": pool}),
        "HEADRACE_SIMULATOR__OUTPUT_TOKENS": str(LONGEST_JOB_TOKENS),
        "HEADRACE_SIMULATOR__KV_TOKENS": str(LONGEST_JOB_TOKENS * plan.slots),
    }
    absent = [name for name in BARE if name not in ("control", "beat")]
    with Testbed(env, [*absent, *without]) as bed, ThreadPoolExecutor(1) as client:
        console.rule(title)
        urls = bed.start_web(1)
        for _ in range(plan.workers):
            bed.start_worker()
        # One connection: a job that falls due while the one before is being accepted comes some milliseconds late.
        submitted = client.submit(drive, urls, submits(plan, bed.api_key), 1)
        _tell_until(bed, plan, time.monotonic() + plan.half_s, submitted)
        console.print("as many workers again", style="dim")
        for _ in range(plan.workers):
            bed.start_worker()
        _tell_until(bed, plan, math.inf, submitted)
        _drain(bed)
        return run_of(plan, bed, submitted.result())


def _tell_until(bed: Testbed, plan: Plan, until: float, submitted: "Future[Outcome]") -> None:
    """Say now and then how it stands, until a time or until all is submitted."""
    told_at = 0.0
    while time.monotonic() < until and not submitted.done():
        if time.monotonic() - told_at > PROGRESS_EVERY_S:
            told_at = time.monotonic()
            console.print(_standing(bed, plan), style="dim")
        time.sleep(0.1)


def _standing(bed: Testbed, plan: Plan) -> str:
    rows = dict(bed.sql("SELECT lane, count(*) FROM jobs WHERE state = 'queued' GROUP BY lane"))
    total, seconds = bed.sql("SELECT count(*), extract(epoch FROM now() - min(created_at)) FROM jobs")[0]
    waiting = ", ".join(f"{rows.get(lane, 0)} {lane}" for lane in LANES)
    return f"{float(seconds or 0):.0f} of {2 * plan.half_s:.0f} s: {total} accepted; waiting: {waiting}"


def _drain(bed: Testbed) -> None:
    """Return once every job has ended, or after a long time."""
    deadline = time.monotonic() + DRAIN_TIMEOUT_S
    while bed.sql("SELECT 1 FROM jobs WHERE state NOT IN ('succeeded', 'expired', 'failed') LIMIT 1"):
        if time.monotonic() > deadline:
            console.print(f"Not all has ended {DRAIN_TIMEOUT_S:.0f} s after the last submit.", style="red")
            return
        time.sleep(0.1)


def run_of(plan: Plan, bed: Testbed, outcome: Outcome) -> Run:
    """Set what was told beside what was."""
    bodies = [json.loads(answer.body) for answer in outcome.answers if answer.status == 202]
    told_s = {UUID(hex=body["id"].removeprefix("job_")): body["expected_wait_s"] for body in bodies}
    rows = bed.sql("SELECT id, lane, created_at, started_at FROM jobs ORDER BY created_at")
    began: datetime = rows[0][2]
    waits = [
        Wait(
            lane=lane,
            at_s=(created_at - began).total_seconds(),
            told_s=told_s.get(job_id),
            real_s=(started_at - created_at).total_seconds() if started_at else None,
        )
        for job_id, lane, created_at, started_at in rows
    ]
    doubled_at_s = (bed.sql("SELECT max(started_at) FROM workers")[0][0] - began).total_seconds()
    warm = [each for each in waits if each.at_s >= plan.warm_up_s]
    counted = [each for each in warm if not each.is_at_once]
    figures = {str(lane): figures_of([each for each in counted if each.lane == lane], doubled_at_s) for lane in LANES}
    return Run(
        lanes=figures,
        doubled_at_s=doubled_at_s,
        refused=len(outcome.answers) - len(bodies),
        warm_up=len(waits) - len(warm),
        at_once=len(warm) - len(counted),
        counts=bed.count(),
        waits=waits,
    )


def figures_of(waits: Sequence[Wait], doubled_at_s: float) -> LaneFigures:
    """The figures of one lane's jobs."""
    errors = [each.error for each in waits]
    constant_error, constant_s = best_constant(waits)
    after = [each for each in waits if each.at_s >= doubled_at_s]
    early = [each for each in waits if each.at_s < doubled_at_s]
    before = [each for each in early if each.real_s is not None and each.at_s + each.real_s < doubled_at_s]
    across = [each for each in early if each.real_s is None or each.at_s + each.real_s >= doubled_at_s]
    return LaneFigures(
        jobs=len(waits),
        median_error=percentile(errors, 50),
        p90_error=percentile(errors, 90),
        constant_error=constant_error,
        constant_s=constant_s,
        before=Phase.of(before),
        across=Phase.of(across),
        after=Phase.of(after),
    )


def best_constant(waits: Sequence[Wait]) -> tuple[float, float]:
    """The least median error that one constant wait can have over these jobs, and that constant, in seconds."""
    # The best one is near a wait that occurred; a thousand of those are as good as all.
    reals_s = sorted(each.real_s for each in waits if each.real_s is not None)
    constants_s = reals_s[:: max(1, len(reals_s) // 1000)]
    scored = ((percentile([each.error_of(each_s) for each in waits], 50), each_s) for each_s in constants_s)
    return min(scored, default=(math.nan, math.nan))


def _median(values: Sequence[float]) -> float:
    return statistics.median(values) if values else math.nan


def show(runs: Mapping[str, Run]) -> None:
    """Every lane of every run, and where its errors come from."""
    table = Table("rate", "lane", header_style="bold", title="relative errors of the expected wait: medians")
    for heading in ("jobs", "all", "p90", "constant", "before", "across", "after"):
        table.add_column(heading, justify="right")
    for name, run in runs.items():
        for lane, each in run.lanes.items():
            errors = (each.constant_error, *(phase.median_error for phase in (each.before, each.across, each.after)))
            medians = [f"{each.median_error:.3f}", f"{each.p90_error:.2f}", *(f"{error:.2f}" for error in errors)]
            table.add_row(name, lane, str(each.jobs), *medians)
    console.print(table)
    console.print("before: started before the doubling; across: told before it, started after; after: told after")


def summary(runs: Mapping[str, Run]) -> dict[str, object]:
    """What the last line says."""
    on = runs["on"]
    figures: dict[str, object] = {"median_error": max(each.median_error for each in on.lanes.values())}
    for lane, each in on.lanes.items():
        figures |= {f"{lane}_median": each.median_error, f"{lane}_p90": each.p90_error}
        figures[f"{lane}_constant"] = each.constant_error
    if "off" in runs:
        figures |= {f"{lane}_median_off": each.median_error for lane, each in runs["off"].lanes.items()}
    figures |= {"counted": sum(each.jobs for each in on.lanes.values()), "warm_up": on.warm_up, "at_once": on.at_once}
    figures |= {"refused": on.refused, "unended": on.unended}
    return figures | asdict(on.counts)


@click.command()
@click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True, help="At first; then twice these.")
@click.option("--slots", type=click.IntRange(min=1), default=8, show_default=True, help="Of one worker.")
@click.option(
    "--load",
    type=click.FloatRange(min=1, min_open=True),
    default=1.6,
    show_default=True,
    help="Arrivals over what the first workers can do.",
)
@click.option(
    "--half",
    "half_s",
    type=click.FloatRange(min=45),
    default=120,
    show_default=True,
    help="Seconds before the doubling, and after.",
)
@click.option(
    "--warm-up",
    "warm_up_s",
    type=click.FloatRange(min=0),
    default=30,
    show_default=True,
    help="Seconds whose jobs do not count.",
)
@click.option("--seed", type=int, default=1, show_default=True, help="Of the arrivals.")
@click.option(
    "--off",
    type=click.Choice(["rate"]),
    help="Run again with nothing measured: the wait is then told from the configured rate, as it is shipped.",
)
@click.option(
    "--json", "file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write every figure."
)
def main(
    workers: int,
    slots: int,
    load: float,
    half_s: float,
    warm_up_s: float,
    seed: int,
    off: str | None,
    file: Path | None,
) -> None:
    """Compare the wait that each 202 tells with the wait that follows.

    Starts a whole Headrace on the simulator engine in a temporary folder. Jobs arrive in three lanes, in each as a
    Poisson process, with the prompt and answer lengths of benchmarks/bed/traces as they are; a job asks for as many
    tokens as the trace's answer has, and gets them, at the simulator's own speeds. Each lane gets --load times its
    share of what the first workers can do, so that each has a queue, which grows. Half-way as many workers start again:
    with the default load the queues then shrink, and are not empty when the last job is submitted.

    What was told is expected_wait_s in the accept. What was is started_at - created_at in Postgres. The error is the
    difference over the real wait, or over one second where the real wait was shorter. All jobs count but those of the
    warm-up, while no rate has been measured and hardly a queue has formed, and those that were told less than a second
    and waited less than a second, which would flatter. Those that were told their wait before the workers doubled, and
    started after, count, though that could not be foreseen. A job that was told nothing, or never started, counts as an
    infinite error. Caps and time limits are out of reach, so that no job is refused or expires.

    The best constant is the one wait that, told to every job of the lane, makes the median error smallest. It is
    found afterwards, from the same jobs: no forecast, but what a forecast must beat.

    With --off rate the run is repeated without the process that has the queues observed, so that nothing is measured:
    what is told comes from pools.*.drain_jobs_per_s, as it is shipped, which is what an operator has who never
    measured.

    The last line is name=value pairs: median_error (of the worst lane), and of each lane the median, the p90 and the
    best constant's median; how many jobs counted, came in the warm-up, started at once, were refused, or never ended;
    and what Postgres says of all jobs. The status is 1 when a lane's median is above 0.15 or above the best constant's,
    or when a job was refused or has not succeeded.

    \b
    bin/headrace python benchmarks/eta.py
    bin/headrace python benchmarks/eta.py --off rate --json eta.json
    """
    if warm_up_s >= half_s:
        raise click.UsageError("The warm-up must end before the workers double.")
    plan = Plan(workers, slots, load, half_s, warm_up_s, seed)
    title = f"{plan.load * plan.capacity_per_s:.1f} jobs a second on {plan.capacity_per_s:.1f}, then on twice that"
    runs = {"on": measure(plan, title)}
    if off is not None:
        runs["off"] = measure(plan, f"{title}; nothing measured", ["beat"])
    show(runs)
    figures = summary(runs)
    if file is not None:
        report = {"plan": asdict(plan), "figures": figures, "runs": {name: asdict(run) for name, run in runs.items()}}
        file.write_text(json.dumps(report, indent=2) + "\n")
    print(line_of(figures))
    on = runs["on"]
    wrong = on.refused or on.counts.succeeded < on.counts.accepted
    missed = any(not each.median_error <= min(GOAL, each.constant_error) for each in on.lanes.values())
    sys.exit(1 if wrong or missed else 0)


if __name__ == "__main__":
    main()
