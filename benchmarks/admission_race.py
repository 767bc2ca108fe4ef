"""The cap under a race: thousands of submits at one moment, through four API processes, against one queue's cap.

The claim: never more jobs wait than the cap says, and none fewer are accepted. The peer, on the same server under the
same burst, is a door that looks at the queue's length and then pushes. Knows the system from outside: HTTP to submit
and cancel, SQL and Redis to count.
"""

import json
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click
from redis import Redis
from rich.table import Table

from bed.load import Outcome, drive, request
from bed.testbed import BARE, Counts, Testbed, bearer, console, lanes, line_of, rounds
from headrace.broker.admission import books_key
from headrace.broker.messages import list_key

QUEUE = "chat.normal"
#: The list of `bare_app`.
NAIVE_QUEUE = "bare"
#: Long enough that nothing expires while this runs.
MAX_WAIT_S = 86_400
#: Seconds between two looks at the depth while the burst is under way.
LOOK_EVERY_S = 0.002
EMPTY_TIMEOUT_S = 30.0
#: Longer than any door remembers that it was full.
DOOR_MEMORY_S = 0.05
#: Of each process of the peer: one for each request, as the door looks at all of a burst at once.
THREADS = 2112
#: For the cancels between two bursts.
CONNECTIONS = 16
#: How many apps submit in one burst. One alone comes first: for an app that was refused, a share of the queue is kept
#: for some seconds, and the bursts of one alone would find it.
APPS = (1, 4)


@dataclass(frozen=True, slots=True)
class Plan:
    """How large the race is."""

    submits: int
    cap: int
    processes: int
    repeat: int


@dataclass(frozen=True, slots=True)
class Burst:
    """One burst's outcome.

    Attributes:
        apps: how many apps took part.
        waiting: jobs that wait afterwards, where the door keeps them: rows of Postgres, or messages of the peer.
        deepest: the largest depth that was seen while it ran, and the number of looks.
        other: answers that are neither a 202 nor a 429.
        p95_202_ms, p95_429_ms: from the send, which is the same moment for all, to the answer.
    """

    apps: int
    accepted: int
    refused: int
    other: int
    waiting: int
    deepest: int
    looks: int
    p95_202_ms: float
    p95_429_ms: float
    seconds: float

    def holds(self, plan: Plan) -> bool:
        """True when exactly as many as the cap were accepted, and the others refused."""
        exact = self.accepted == self.waiting == plan.cap and self.refused == plan.submits - plan.cap
        return exact and not self.overshoots(plan)

    def overshoots(self, plan: Plan) -> bool:
        """True when more waited than the cap says, at the end or on the way."""
        return max(self.waiting, self.accepted, self.deepest) > plan.cap


class DepthWatch:
    """Looks at a depth, again and again, in a thread of its own."""

    def __init__(self, look: Callable[[], int]) -> None:
        self._look = look
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.deepest = 0
        self.looks = 0

    def _run(self) -> None:
        while not self._over.wait(LOOK_EVERY_S):
            self.deepest = max(self.deepest, self._look())
            self.looks += 1

    def __enter__(self) -> "DepthWatch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def depth_of(redis: Redis) -> int:
    """Jobs in the queue's list and places that are reserved in it, at one moment."""
    with redis.pipeline(transaction=True) as both:
        both.llen(list_key(QUEUE))
        both.zcard(books_key("reservations", QUEUE))
        return sum(both.execute())


def submits(keys: Sequence[str], number: int, path: str) -> list[bytes]:
    """So many submits, with these keys in turn."""
    bodies = [json.dumps({"prompt": f"What is a headrace? {no}", "max_tokens": 64}).encode() for no in range(number)]
    return [request("POST", path, bearer(keys[no % len(keys)]), body) for no, body in enumerate(bodies)]


class Door:
    """Headrace's own, behind several API processes."""

    #: How many apps submit in one burst.
    apps = APPS

    def __init__(self, bed: Testbed, plan: Plan) -> None:
        self._bed = bed
        self._plan = plan
        self._urls = bed.start_web(plan.processes)
        self._keys = {name: bed.make_key(name) for name in (f"race-{no}" for no in range(1, max(self.apps) + 1))}

    def race(self, apps: int) -> Burst:
        """One burst by this number of apps; the queue is empty before and after."""
        requests = submits(list(self._keys.values())[:apps], self._plan.submits, "/v1/jobs")
        with DepthWatch(lambda: depth_of(self._bed.redis)) as watch:
            outcome = drive(self._urls, iter(requests), connections=len(requests))
        waiting = self._bed.sql("SELECT count(*) FROM jobs WHERE state = 'queued' AND queue = %s", QUEUE)[0][0]
        burst = burst_of(apps, outcome, waiting, watch)
        self._empty()
        return burst

    def _empty(self) -> None:
        """Cancel what waits, as its owners would, and return once the queue is empty."""
        query = "SELECT j.id, a.name FROM jobs j JOIN apps a ON a.id = j.app_id WHERE j.state = 'queued'"
        cancels = [
            request("POST", f"/v1/jobs/job_{job_id.hex}/cancel", bearer(self._keys[app]))
            for job_id, app in self._bed.sql(query)
        ]
        cancelled = drive(self._urls, iter(cancels), CONNECTIONS)
        if cancelled.count(200) != len(cancels):
            raise click.ClickException(f"{len(cancels)} jobs to cancel: {dict(cancelled.statuses)}")
        deadline = time.monotonic() + EMPTY_TIMEOUT_S
        while depth_of(self._bed.redis):
            if time.monotonic() > deadline:
                raise click.ClickException(f"{QUEUE} is not empty {EMPTY_TIMEOUT_S:.0f} s after all was cancelled.")
            time.sleep(LOOK_EVERY_S)
        # A door may remember for a moment that it was full.
        time.sleep(DOOR_MEMORY_S)


class NaiveDoor:
    """One that looks at the queue's length and then pushes, behind as many processes of the same server."""

    #: It knows no apps.
    apps = (1,)

    def __init__(self, bed: Testbed, plan: Plan) -> None:
        self._bed = bed
        self._plan = plan
        self._urls = bed.start_bare(plan.processes, THREADS)

    def race(self, apps: int) -> Burst:
        """The same burst."""
        self._bed.redis.unlink(NAIVE_QUEUE)
        requests = submits(["none"], self._plan.submits, "/look-then-push")
        with DepthWatch(self._depth) as watch:
            outcome = drive(self._urls, iter(requests), connections=len(requests))
        return burst_of(apps, outcome, self._depth(), watch)

    def _depth(self) -> int:
        with self._bed.redis.pipeline(transaction=True) as look:
            return int(look.llen(NAIVE_QUEUE).execute()[0])


def burst_of(apps: int, outcome: Outcome, waiting: int, watch: DepthWatch) -> Burst:
    """What came of a burst."""
    accepted, refused = outcome.count(202), outcome.count(429)
    other = len(outcome.answers) - accepted - refused
    p95s_ms = (outcome.latency_ms(202, 95), outcome.latency_ms(429, 95))
    return Burst(apps, accepted, refused, other, waiting, watch.deepest, watch.looks, *p95s_ms, outcome.seconds)


def measure(plan: Plan, with_naive: bool) -> tuple[dict[str, list[Burst]], Counts]:
    """Every burst at each door, in turn."""
    env = lanes(depth_cap=plan.cap, max_wait_s=MAX_WAIT_S)
    without = [name for name in BARE if name != "control"]
    with Testbed(env, without) as bed:
        console.rule(f"{plan.submits} submits at once, cap {plan.cap}, {plan.processes} API processes")
        doors: dict[str, Door | NaiveDoor] = {"on": Door(bed, plan)}
        if with_naive:
            doors["off"] = NaiveDoor(bed, plan)
        bursts: dict[str, list[Burst]] = {name: [] for name in doors}
        turns = [apps for apps in APPS for _ in range(plan.repeat)]
        for no in rounds(len(turns), lambda no: f"burst {no} of {len(turns)}, keys: {turns[no - 1]}"):
            for name, door in doors.items():
                if turns[no - 1] in door.apps:
                    bursts[name].append(burst := door.race(turns[no - 1]))
                    if not burst.holds(plan):
                        console.print(f"  burst {no}, cap {name}: {burst}")
        return bursts, bed.count()


def show(plan: Plan, bursts: dict[str, list[Burst]]) -> None:
    """One line for each door and number of apps."""
    table = Table("cap", "apps", header_style="bold", title=f"{plan.repeat} bursts each")
    for heading in ("overshot", "deepest", "202s", "429s", "other", "p95 202", "p95 429"):
        table.add_column(heading, justify="right")
    for name, every in bursts.items():
        for apps in sorted({burst.apps for burst in every}):
            each = [burst for burst in every if burst.apps == apps]
            table.add_row(
                name,
                str(apps),
                str(sum(burst.overshoots(plan) for burst in each)),
                str(max(max(burst.waiting, burst.deepest) for burst in each)),
                _span([burst.accepted for burst in each]),
                _span([burst.refused for burst in each]),
                str(sum(burst.other for burst in each)),
                f"{statistics.median(burst.p95_202_ms for burst in each):.0f} ms",
                f"{statistics.median(burst.p95_429_ms for burst in each):.0f} ms",
            )
    console.print(table)


def _span(values: Sequence[int]) -> str:
    least, most = min(values), max(values)
    return str(least) if least == most else f"{least}-{most}"


def summary(plan: Plan, bursts: dict[str, list[Burst]], counts: Counts) -> dict[str, object]:
    """What the last line says."""
    on = bursts["on"]
    figures: dict[str, object] = {
        "overshoots": sum(burst.overshoots(plan) for burst in on),
        "inexact": sum(not burst.holds(plan) for burst in on),
        "bursts": len(on),
        "most_waiting": max(max(burst.waiting, burst.deepest) for burst in on),
        "p95_429_ms": statistics.median(burst.p95_429_ms for burst in on),
        "p95_202_ms": statistics.median(burst.p95_202_ms for burst in on),
    }
    if "off" in bursts:
        off = bursts["off"]
        figures["overshoots_off"] = sum(burst.overshoots(plan) for burst in off)
        figures["most_waiting_off"] = max(max(burst.waiting, burst.deepest) for burst in off)
    return figures | asdict(counts)


@click.command()
@click.option("--submits", type=click.IntRange(min=2), default=2000, show_default=True, help="In one burst.")
@click.option("--cap", type=click.IntRange(min=1), default=500, show_default=True, help="Of the queue, in jobs.")
@click.option("--processes", type=click.IntRange(min=1), default=4, show_default=True, help="Of the API.")
@click.option(
    "--repeat", type=click.IntRange(min=1), default=20, show_default=True, help="Bursts for each number of apps."
)
@click.option(
    "--off",
    type=click.Choice(["cap"]),
    help="Burst as well at a door without the atomic cap: LLEN, then apply_async. It overshoots.",
)
@click.option(
    "--json", "file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write every figure."
)
def main(submits: int, cap: int, processes: int, repeat: int, off: str | None, file: Path | None) -> None:
    """Race thousands of submits against a queue's cap.

    Starts Postgres, Valkey, the sweeps and several API processes in a temporary folder, and no worker, so that nothing
    drains. Every submit has a connection of its own, and all are sent before the first answer is read. First come the
    bursts with one app's key, then those with the keys of four apps; none has limits of its own. While a burst runs,
    the queue's list and its reservations are counted in Redis every few milliseconds; afterwards its rows are counted
    in Postgres, and all is cancelled over HTTP, so that the next burst also shows that every place came back.

    With --off cap, the same burst goes to the same server with a door that asks for the list's length (LLEN) and then
    calls apply_async: the way it is done without a script. What Headrace's own door does is not changed for it.

    The last line is name=value pairs: overshoots (bursts in which more than the cap waited), inexact (bursts that did
    not accept exactly the cap and refuse the rest), the p95 of a 429 and of a 202 in milliseconds from the common
    start (medians over the bursts), and what Postgres says of all jobs; those cancelled are accepted, and neither
    succeeded nor failed. The status is 1 unless overshoots and inexact are 0.

    \b
    bin/headrace python benchmarks/admission_race.py
    bin/headrace python benchmarks/admission_race.py --repeat 3 --off cap --json race.json
    """
    plan = Plan(submits, cap, processes, repeat)
    bursts, counts = measure(plan, with_naive=off is not None)
    show(plan, bursts)
    figures = summary(plan, bursts, counts)
    if file is not None:
        every = {name: [asdict(burst) for burst in each] for name, each in bursts.items()}
        file.write_text(json.dumps({"plan": asdict(plan), "figures": figures, "bursts": every}, indent=2) + "\n")
    print(line_of(figures))
    sys.exit(1 if figures["overshoots"] or figures["inexact"] else 0)


if __name__ == "__main__":
    main()
