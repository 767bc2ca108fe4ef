"""What age costs: submit, poll, list and drain on a system with a long past and a full queue, against an empty one.

The claim: the 95th percentile of each call, and the time to drain a queue, stay within 1.3 times. Two stacks stand side
by side and are asked in turn, so that whatever else the machine does falls on both. Knows the system from outside: HTTP
to ask, SQL to make the past.
"""

import itertools
import json
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from bed.batches.waiting import put_batches
from bed.draining import INSTANT, Backlog
from bed.load import Outcome, drive, request
from bed.past import PAST_DAYS, drop_indexes, make_past, vacuum
from bed.testbed import BARE, Counts, Testbed, bearer, console, lanes, line_of, rounds, wait_until
from bed.weigh import cpu_s

#: The lane whose queue is full, and the cap it is full at. Submits go to another, which is deep and never full.
FULL_LANE, FULL_CAP = "low", 500
ROOMY = lanes(depth_cap=1_000_000, backlog_cap_tokens=10**12, max_wait_s=86_400) | {
    f"HEADRACE_LANES__{FULL_LANE.upper()}__DEPTH_CAP": str(FULL_CAP),
    # Half of it is filled from batches.
    "HEADRACE_LANES__BATCH__DEPTH_CAP": str(FULL_CAP),
    # One app makes all calls of a kind.
    "HEADRACE_CALLS_PER_MINUTE": str(10**9),
}
#: The app that polls and lists, and had a page of jobs long ago; the one that submits; the one that fills the queues.
READER, WRITER, CROWD = "app-1", "app-2", "app-3"
#: One page of the list, which both systems can fill.
PAGE_JOBS = 20
CALLS = ("submit", "poll", "list")
STATUS = {"submit": 202, "poll": 200, "list": 200}
WARM_UP_REQUESTS = 200
#: Few, so that a latency is what a call costs and not what it waits for others.
CONNECTIONS = 4
#: Jobs at once of the worker that drains.
SLOTS = 32
#: The longest time until the `batch` lane has its share of the lines.
FED_WITHIN_S = 60.0
DAYS_OF_A_MONTH = 30
#: The largest ratio that passes, of a list and by default of all else.
GOAL = 1.3


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured.

    Attributes:
        months: of the past, each with partitions of its own; 0: the past is `PAST_DAYS` long.
        requests: of each kind to each system in one round.
        drains: rounds in which each system drains a queue of `drained` jobs.
    """

    jobs: int
    apps: int
    months: int
    rounds: int
    requests: int
    drains: int
    drained: int

    @property
    def days(self) -> int:
        """How far back the past goes."""
        return self.months * DAYS_OF_A_MONTH or PAST_DAYS


@dataclass(frozen=True, slots=True)
class Pair:
    """One kind of call in one round: 95th percentiles, and answers that were not as they should be."""

    empty_p95_ms: float
    grown_p95_ms: float
    wrong: int

    @property
    def ratio(self) -> float:
        """Grown over empty."""
        return self.grown_p95_ms / self.empty_p95_ms


@dataclass(frozen=True, slots=True)
class DrainPair:
    """One round of drains: jobs a second of each system."""

    empty_per_s: float
    grown_per_s: float

    @property
    def ratio(self) -> float:
        """The grown system's time over the empty one's."""
        return self.empty_per_s / self.grown_per_s


class System:
    """One of the two, with an API process, and an app that has a page of finished jobs at least."""

    def __init__(self, bed: Testbed, jobs: int, apps: int, days: int) -> None:
        self.bed = bed
        make_past(bed, jobs, apps, PAGE_JOBS, days)
        self._urls = bed.start_web(1)
        self._keys = {app: bearer(bed.make_key(app)) for app in (READER, WRITER, CROWD)}
        ids = [row[0].hex for row in bed.sql(_FINISHED, READER)]
        get_page = request("GET", f"/v1/jobs?limit={PAGE_JOBS}", self._keys[READER])
        self._requests: dict[str, Iterator[bytes]] = {
            "submit": itertools.repeat(self._submit(WRITER, "normal")),
            "poll": itertools.cycle(request("GET", f"/v1/jobs/job_{job_id}", self._keys[READER]) for job_id in ids),
            "list": itertools.repeat(get_page),
        }

    def fill(self) -> None:
        """Make one queue full, and the one that is measured as deep."""
        for lane in (FULL_LANE, "normal"):
            filled = drive(self._urls, itertools.repeat(self._submit(CROWD, lane), FULL_CAP), CONNECTIONS)
            if filled.count(202) != FULL_CAP:
                raise click.ClickException(f"The {lane} queue could not be filled: {dict(filled.statuses)}")

    def ask(self, call: str, number: int) -> Outcome:
        """So many calls of one kind. What a submit made is cancelled at once, which is not measured."""
        outcome = drive(self._urls, itertools.islice(self._requests[call], number), CONNECTIONS)
        made = [json.loads(answer.body)["id"] for answer in outcome.answers if answer.status == 202]
        cancels = (request("POST", f"/v1/jobs/{job_id}/cancel", self._keys[WRITER]) for job_id in made)
        drive(self._urls, cancels, CONNECTIONS)
        return outcome

    def drain(self, jobs: int) -> float:
        """Jobs a second of a worker that works off this number of jobs, and those that wait before them."""
        backlog = Backlog(self.bed, self._urls, self._keys[WRITER], jobs)
        worker = self.bed.start_worker()
        try:
            with self.bed.watching() as sql:
                backlog.wait(sql)
        finally:
            worker.stop()
        return backlog.per_s()

    def _submit(self, app: str, lane: str) -> bytes:
        body = json.dumps({"prompt": "Why is the sky blue? " * 40, "max_tokens": 64, "lane": lane})
        return request("POST", "/v1/jobs", self._keys[app], body.encode())


_FINISHED = """
    SELECT jobs.id FROM jobs JOIN apps ON apps.id = jobs.app_id
    WHERE apps.name = %s AND state = 'succeeded' ORDER BY jobs.id
"""


def compare(empty: System, grown: System, plan: Plan, title: str) -> dict[str, list[Pair]]:
    """Ask both in turn, one kind of call after the other, round after round."""
    pairs: dict[str, list[Pair]] = {call: [] for call in CALLS}
    for no in rounds(plan.rounds, lambda no: f"{title}: round {no} of {plan.rounds}"):
        for call in CALLS:
            # Who is asked first changes, so that neither is always the one that finds the caches cold.
            order = (empty, grown) if no % 2 else (grown, empty)
            asked = {id(system): system.ask(call, plan.requests) for system in order}
            outcomes = (asked[id(empty)], asked[id(grown)])
            p95s_ms = (outcome.latency_ms(STATUS[call], 95) for outcome in outcomes)
            wrong = sum(plan.requests - outcome.count(STATUS[call]) for outcome in outcomes)
            pairs[call].append(Pair(*p95s_ms, wrong))
    return pairs


def compare_drains(empty: System, grown: System, plan: Plan) -> list[DrainPair]:
    """Let both drain a queue in turn, round after round. The first round also drains what `fill` made."""
    pairs = []
    for no in rounds(plan.drains + 1, lambda no: f"drain {no - 1} of {plan.drains}" if no > 1 else "drain: warming up"):
        order = (empty, grown) if no % 2 else (grown, empty)
        per_s = {id(system): system.drain(plan.drained) for system in order}
        pairs.append(DrainPair(per_s[id(empty)], per_s[id(grown)]))
    return pairs[1:]


@dataclass(frozen=True, slots=True)
class Found:
    """What was measured.

    Attributes:
        calls: by `on` and `off`, the indexes, and by kind of call.
        counts: of the grown system.
        beside: what else is said of batches that wait.
    """

    calls: dict[str, dict[str, list[Pair]]]
    drains: list[DrainPair]
    counts: Counts
    beside: Mapping[str, float] = field(default_factory=dict)


def measure(plan: Plan, without_indexes: bool) -> Found:
    """Both systems side by side; then, if asked, the grown one again without its indexes."""
    without = [name for name in BARE if name != "control"]
    env = ROOMY | INSTANT | {"HEADRACE_POOLS__CHAT__MAX_RUNNING": str(SLOTS)}
    with Testbed(env, without) as empty_bed, Testbed(env, without) as grown_bed:
        console.rule(f"empty, and {plan.jobs:,} finished jobs of {plan.apps} apps in {plan.days} days")
        empty, grown = System(empty_bed, PAGE_JOBS, 1, PAST_DAYS), System(grown_bed, plan.jobs, plan.apps, plan.days)
        [(parts,)] = grown_bed.sql("SELECT count(*) FROM pg_inherits WHERE inhparent = 'jobs'::regclass")
        console.print(f"partitions of each table: {parts}", style="dim")
        grown.fill()
        for system in (empty, grown):
            vacuum(system.bed)
            warm_up(system)
        calls = {"on": compare(empty, grown, plan, "as it is")}
        drains = compare_drains(empty, grown, plan)
        if without_indexes:
            drop_indexes(grown_bed)
            grown.fill()
            calls["off"] = compare(empty, grown, plan, "without indexes")
        return Found(calls, drains, grown_bed.count())


def measure_beside(plan: Plan, batches: int, lines: int) -> Found:
    """The same system twice: one has batches whose lines wait, and the process that feeds them."""
    without = [name for name in BARE if name != "control"]
    env = ROOMY | INSTANT | {"HEADRACE_POOLS__CHAT__MAX_RUNNING": str(SLOTS)}
    with Testbed(env, without) as alone_bed, Testbed(env, without, has_batches=True) as fed_bed:
        console.rule(f"{batches} batches of {lines:,} lines, and none, beside {plan.jobs:,} finished jobs")
        alone, fed = (System(bed, plan.jobs, plan.apps, plan.days) for bed in (alone_bed, fed_bed))
        for system in (alone, fed):
            system.fill()
            vacuum(system.bed)
        put_batches(fed_bed, CROWD, batches, lines)
        wait_until(lambda: fed_bed.sql(_SUBMITTED)[0][0] >= FULL_CAP // 2, FED_WITHIN_S, "The feeder submits nothing.")
        for system in (alone, fed):
            warm_up(system)
        pid = fed_bed.stack.report.pids["plugins"]
        used_s, began = cpu_s(pid), time.monotonic()
        calls = {"on": compare(alone, fed, plan, f"beside {batches} batches")}
        share = (cpu_s(pid) - used_s) / (time.monotonic() - began)
        drains = compare_drains(alone, fed, plan)
        [(waiting,)] = fed_bed.sql("SELECT count(*) FROM batch_lines WHERE state = 'waiting'")
        beside = {"batches": batches, "lines_waiting": waiting, "feeder_cpu_share": share}
        return Found(calls, drains, fed_bed.count(), beside)


_SUBMITTED = "SELECT count(*) FROM jobs WHERE notes->>'batches' IS NOT NULL"


def warm_up(system: System) -> None:
    """Ask each kind of call. Raises: ClickException: an answer is not as it should be."""
    for call in CALLS:
        statuses = system.ask(call, WARM_UP_REQUESTS).statuses
        if statuses.keys() != {STATUS[call]}:
            raise click.ClickException(f"{call} answers with these statuses: {dict(statuses)}")


def ratio(pairs: Sequence[Pair] | Sequence[DrainPair]) -> float:
    """Of both systems, in the median round."""
    return statistics.median(pair.ratio for pair in pairs)


def show(found: Found) -> None:
    """Every kind of call: medians of both systems' 95th percentiles, and their ratio; and the drains."""
    table = Table("indexes", "call", header_style="bold", title="95th percentiles, medians over the rounds")
    for heading in ("empty ms", "grown ms", "ratio", "least-most", "wrong"):
        table.add_column(heading, justify="right")
    for name, calls in found.calls.items():
        for call, pairs in calls.items():
            table.add_row(
                name,
                call,
                f"{statistics.median(pair.empty_p95_ms for pair in pairs):.2f}",
                f"{statistics.median(pair.grown_p95_ms for pair in pairs):.2f}",
                f"{ratio(pairs):.2f}",
                f"{min(pair.ratio for pair in pairs):.2f}-{max(pair.ratio for pair in pairs):.2f}",
                str(sum(pair.wrong for pair in pairs)),
            )
    console.print(table)
    rates = ", ".join(f"{pair.empty_per_s:.0f} and {pair.grown_per_s:.0f}" for pair in found.drains)
    console.print(f"jobs drained a second, empty and grown: {rates}")


def summary(found: Found) -> dict[str, Any]:
    """What the last line says."""
    on = found.calls["on"]
    figures: dict[str, Any] = {"worst_ratio": max(ratio(pairs) for pairs in on.values())}
    for call, pairs in on.items():
        figures[f"{call}_ratio"] = ratio(pairs)
        figures[f"{call}_p95_ms"] = statistics.median(pair.grown_p95_ms for pair in pairs)
    figures["drain_ratio"] = ratio(found.drains)
    figures["drain_per_s"] = statistics.median(pair.grown_per_s for pair in found.drains)
    figures |= {f"{call}_ratio_off": ratio(pairs) for call, pairs in found.calls.get("off", {}).items()}
    figures |= found.beside
    figures["wrong"] = sum(pair.wrong for calls in found.calls.values() for pairs in calls.values() for pair in pairs)
    return figures | asdict(found.counts)


def is_met(figures: Mapping[str, Any], most: float) -> bool:
    """Whether every ratio passes, and no answer was wrong."""
    limits = {"submit_ratio": most, "poll_ratio": most, "drain_ratio": most, "list_ratio": GOAL}
    return not figures["wrong"] and all(figures[name] <= limit for name, limit in limits.items())


@click.command()
@click.option("--jobs", type=click.IntRange(min=1000), default=100_000, show_default=True, help="Finished, long ago.")
@click.option("--apps", type=click.IntRange(min=3), default=50, show_default=True, help="That these jobs are of.")
@click.option("--months", type=click.IntRange(0, 60), default=0, help="Of the past, each in partitions of its own.")
@click.option("--rounds", type=click.IntRange(min=1), default=9, show_default=True, help="The median round counts.")
@click.option(
    "--requests", type=click.IntRange(min=20), default=400, show_default=True, help="Of each kind in a round."
)
@click.option("--drains", type=click.IntRange(min=1), default=7, show_default=True, help="The median drain counts.")
@click.option("--drained", type=click.IntRange(min=32), default=3000, show_default=True, help="Jobs of one drain.")
@click.option(
    "--most", type=float, default=GOAL, show_default=True, help="Ratio of submit, poll and drain that passes."
)
@click.option(
    "--off",
    type=click.Choice(["indexes"]),
    help="Compare again after every index that is not unique was dropped from the grown system.",
)
@click.option("--batches", type=click.IntRange(0, 50), default=0, help="Compare beside batches that wait, instead.")
@click.option("--lines", type=click.IntRange(min=1000), default=50_000, show_default=True, help="Of each batch.")
@click.option(
    "--json", "file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write every figure."
)
def main(most: float, off: str | None, file: Path | None, batches: int, lines: int, **sizes: int) -> None:
    """Compare a system that has a long past and a full queue with an empty one.

    Starts two systems in temporary folders: Postgres, Valkey, the sweeps and one API process each, and no worker. One
    gets the past, by SQL: finished jobs of many apps over 30 days, each with its texts, its attempt, its ledger entry
    and its delivered webhook. With --months the past has that length. Each system has the partitions of its
    months. The app that polls and lists has one page of them, at the beginning of that time. The low lane is then
    filled to the cap of 500, and the normal lane, where the measured submits go, with 500 jobs. The other system has
    that page alone, and nothing waits. Both are vacuumed. Another app submits, and what it submits is cancelled after
    each round. A poll goes by the primary key, so that dropping the indexes does not concern it. Then each system
    drains a queue, round after round: jobs are submitted while no worker runs, and a worker with an engine that takes
    no time works them off. Its first drain, which does not count, takes with it what waits.

    With --batches both systems have the past, and one has batches besides, whose lines wait: written by COPY, as the
    process `batches` does, which also runs, and has filled its share of the batch lane. A drain then counts the lines
    that are worked off meanwhile too. `empty` is the system without batches, `grown` that with them;
    feeder_cpu_share is the processor time of `batches` a second, while the lane is full.

    The last line is name=value pairs: the ratio of the 95th percentiles of submit, poll and list, each the median
    over the rounds, in which both systems are asked in turn; the grown system's own 95th percentiles; drain_ratio,
    the grown system's time for a drain over the empty one's; wrong, the answers of an unexpected status; and what
    Postgres says of the grown system's jobs, its past and what was cancelled included. The status is 1 when a ratio is
    above --most, that of list above 1.3, or any answer was wrong.

    \b
    bin/headrace python benchmarks/growth.py
    bin/headrace python benchmarks/growth.py --jobs 1000000 --months 6 --most 1.15
    bin/headrace python benchmarks/growth.py --off indexes --json growth.json
    bin/headrace python benchmarks/growth.py --batches 5
    """
    plan = Plan(**sizes)
    found = measure_beside(plan, batches, lines) if batches else measure(plan, without_indexes=off is not None)
    show(found)
    figures = summary(found)
    if file is not None:
        every = {
            name: {call: [asdict(pair) | {"ratio": pair.ratio} for pair in pairs] for call, pairs in calls.items()}
            for name, calls in found.calls.items()
        }
        drains = [asdict(pair) | {"ratio": pair.ratio} for pair in found.drains]
        kept = {"plan": asdict(plan), "figures": figures, "rounds": every, "drains": drains}
        file.write_text(json.dumps(kept, indent=2) + "\n")
    print(line_of(figures))
    sys.exit(0 if is_met(figures, most) else 1)


if __name__ == "__main__":
    main()
