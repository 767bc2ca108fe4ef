"""Rate at which a full queue drains where the engine costs nothing: jobs a second, beside tasks of three peers.

The claim: a worker claims jobs, stores each answer with its entry in the ledger, and tells the door, faster than a
Celery task claims a row and ends it. Knows the system from outside: HTTP, SQL, Redis, /proc.
"""

import json
import statistics
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import click
from celery import Celery
from dramatiq import Message
from dramatiq.brokers.redis import RedisBroker
from rich.table import Table

from bed.draining import INSTANT, LIMIT_S, STUCK, Backlog
from bed.testbed import BARE, Testbed, bearer, console, lanes, line_of, rounds, wait_until
from bed.weigh import cpu_s
from headrace.stack.child import Child
from peers import bare_app, dramatiq_app

#: Of the jobs a second over those of the durable peer, with one worker each.
GOAL_RATIO = 1.2
#: The rows of the durable peer.
FILL = """
    INSERT INTO bare_jobs (id, prompt, max_tokens, lane, metadata)
    SELECT gen_random_uuid(), 'Say nothing.', 1, 'normal', '{}' FROM generate_series(1, %s) RETURNING id
"""
ROWS_BEGUN = "SELECT EXISTS (SELECT FROM bare_jobs WHERE started_at IS NOT NULL)"
ROWS_OPEN = "SELECT EXISTS (SELECT FROM bare_jobs WHERE state <> 'succeeded')"
ROWS_DRAINED = "SELECT count(*), extract(epoch FROM max(ended_at) - min(started_at))::float FROM bare_jobs"


@dataclass(frozen=True, slots=True)
class Drained:
    """One backlog, worked off.

    Attributes:
        cpu_ms: a job, of the workers, of Postgres and of Valkey.
    """

    per_s: float
    cpu_ms: dict[str, float]


@dataclass(frozen=True, slots=True)
class Plan:
    """Extent of a measurement."""

    jobs: int
    processes: int
    concurrency: int


class Headrace:
    """Our side: jobs submitted over HTTP while no worker runs, then workers."""

    def __init__(self, bed: Testbed, plan: Plan) -> None:
        self._bed, self._plan = bed, plan
        self._key = bearer(bed.api_key)

    def drain(self) -> Drained:
        """Work off one backlog."""
        backlog = Backlog(self._bed, [self._bed.url], self._key, self._plan.jobs)
        with self._bed.watching() as sql:
            begun = partial(backlog.is_begun, sql)
            with weighed(self._bed, self._plan, self._start, begun) as cpu_ms:
                backlog.wait(sql)
        return Drained(backlog.per_s(), cpu_ms)

    def _start(self) -> list[Child]:
        return self._bed.start_workers(self._plan.processes)


class Peer(ABC):
    """Another's side: no-op tasks in a list, with a mark before and after them, then workers."""

    def __init__(self, bed: Testbed, plan: Plan) -> None:
        self._bed, self._plan = bed, plan
        self._redis_url = bed.stack.report.redis_url

    @abstractmethod
    def start(self, number: int) -> Child:
        """Start one worker. Args: number: of those beside it."""

    @abstractmethod
    def send(self, messages: Iterable[tuple[str, str]]) -> None:
        """Send messages: each names a task, such as `noop` or `mark`, and has its argument."""

    def drain(self) -> Drained:
        """Work off one backlog."""
        begin, end = (f"drain-{uuid4().hex}" for _ in range(2))
        self.send([("mark", begin), *(("noop", str(number)) for number in range(self._plan.jobs)), ("mark", end)])
        redis = self._bed.redis
        with weighed(self._bed, self._plan, self._start, partial(redis.exists, begin)) as cpu_ms:
            wait_until(partial(redis.exists, end), LIMIT_S, STUCK)
        seconds = float(str(redis.get(end))) - float(str(redis.get(begin)))
        return Drained(self._plan.jobs / seconds, cpu_ms)

    def _start(self) -> list[Child]:
        return [self.start(no) for no in range(self._plan.processes)]


class Bare(Peer):
    """Celery's own workers: messages are acknowledged as they come."""

    def start(self, number: int) -> Child:
        return self._bed.start_bare_worker(self._plan.concurrency, number)

    def send(self, messages: Iterable[tuple[str, str]]) -> None:
        celery = Celery("drain", broker=self._redis_url, set_as_current=False)
        celery.conf.update(task_ignore_result=True, task_default_queue=bare_app.QUEUE)
        with celery.producer_pool.acquire() as producer:
            for task, argument in messages:
                celery.send_task(f"bare.{task}", (argument,), producer=producer)


class Durable(Bare):
    """A team's own task on Celery: it claims a row in Postgres and ends it, with a commit for each."""

    def __init__(self, bed: Testbed, plan: Plan) -> None:
        super().__init__(bed, plan)
        bare_app.make_tables(bed.stack.report.database_url, bed.api_key)

    def drain(self) -> Drained:
        """Work off one backlog."""
        bed = self._bed
        bed.sql("TRUNCATE bare_jobs")
        ids = [str(job_id) for (job_id,) in bed.sql(FILL, self._plan.jobs)]
        bed.sql("ANALYZE bare_jobs")
        self.send(("claim_and_end", job_id) for job_id in ids)
        with bed.watching() as sql:

            def is_over() -> bool:
                # The list first: a look at the rows reads all of them.
                return not bed.redis.exists(bare_app.QUEUE) and not sql(ROWS_OPEN)[0][0]

            with weighed(bed, self._plan, self._start, lambda: sql(ROWS_BEGUN)[0][0]) as cpu_ms:
                wait_until(is_over, LIMIT_S, STUCK)
            [(jobs, seconds)] = sql(ROWS_DRAINED)
        return Drained(jobs / seconds, cpu_ms)


class Dramatiq(Peer):
    """dramatiq's own workers: messages are acknowledged once they are done."""

    def start(self, number: int) -> Child:
        return self._bed.start_dramatiq_worker(self._plan.concurrency, number)

    def send(self, messages: Iterable[tuple[str, str]]) -> None:
        broker = RedisBroker(url=self._redis_url)
        for actor, argument in messages:
            broker.enqueue(Message(dramatiq_app.QUEUE, actor, (argument,), {}, {}))


PEERS: dict[str, type[Peer]] = {"durable": Durable, "celery": Bare, "dramatiq": Dramatiq}


@contextmanager
def weighed(
    bed: Testbed, plan: Plan, start: Callable[[], Sequence[Child]], is_begun: Callable[[], object]
) -> Iterator[dict[str, float]]:
    """Workers for the length of a block, and what they and the servers take of the processors once they have begun."""
    pids = bed.stack.report.pids
    workers = start()

    def used() -> dict[str, float]:
        of_workers = sum(cpu_s(worker.pid) for worker in workers)
        return {"workers": of_workers, "postgres": cpu_s(pids["postgres"]), "valkey": cpu_s(pids["valkey"])}

    cpu_ms: dict[str, float] = {}
    try:
        wait_until(is_begun, LIMIT_S, STUCK)
        before = used()
        yield cpu_ms
        cpu_ms |= {name: 1000 * (seconds - before[name]) / plan.jobs for name, seconds in used().items()}
    finally:
        for worker in workers:
            worker.stop()


def measure(plan: Plan, number: int, peers: Sequence[str] = tuple(PEERS)) -> dict[str, list[Drained]]:
    """Every round, all in turn: the one that began a round is last in the next."""
    env = {**INSTANT, **lanes(depth_cap=10_000_000, backlog_cap_tokens=1_000_000_000)}
    env["HEADRACE_POOLS__CHAT__MAX_RUNNING"] = str(plan.concurrency)
    found: dict[str, list[Drained]] = {name: [] for name in ("headrace", *peers)}
    with Testbed(env, [name for name in BARE if name != "web"]) as bed:
        sides: dict[str, Headrace | Peer] = {"headrace": Headrace(bed, plan)}
        sides |= {name: PEERS[name](bed, plan) for name in peers}
        for no in rounds(number + 1, lambda no: f"round {no - 1}" if no > 1 else "warming up"):
            for name in sides if no % 2 else reversed(sides):
                drained = sides[name].drain()
                if no > 1:
                    found[name].append(drained)
        return found


def show(found: dict[str, list[Drained]], processes: int) -> None:
    """Medians over the rounds."""
    title = f"workers: {processes}; medians over the rounds; processor ms for each job"
    table = Table("", header_style="bold", title=title)
    for heading in ("per s", "least-most", "workers", "postgres", "valkey"):
        table.add_column(heading, justify="right")
    for name, measured in found.items():
        rates = [each.per_s for each in measured]
        shares = (f"{middle(measured, where):.2f}" for where in ("workers", "postgres", "valkey"))
        table.add_row(name, f"{statistics.median(rates):.0f}", f"{min(rates):.0f}-{max(rates):.0f}", *shares)
    console.print(table)


def middle(measured: Sequence[Drained], where: str) -> float:
    """The median of what a job took there."""
    return statistics.median(each.cpu_ms[where] for each in measured)


def summary(found: dict[str, list[Drained]]) -> dict[str, Any]:
    """Figures of the last line."""
    ours = found["headrace"]
    figures = {"jobs_per_s": statistics.median(each.per_s for each in ours)}
    for peer in [name for name in found if name != "headrace"]:
        theirs = found[peer]
        figures[f"{peer}_per_s"] = statistics.median(each.per_s for each in theirs)
        ratios = [one.per_s / other.per_s for one, other in zip(ours, theirs, strict=True)]
        figures[f"ratio_{peer}"] = statistics.median(ratios)
    for name, side in {"": "headrace", "durable_": "durable"}.items():
        figures |= {f"{name}worker_ms": middle(found[side], "workers")}
        figures |= {f"{name}postgres_ms": middle(found[side], "postgres")}
    return figures


@click.command()
@click.option("--jobs", type=click.IntRange(min=1), default=3000, show_default=True, help="Of one backlog.")
@click.option("--processes", type=click.IntRange(min=1), help="Workers of each side.  [default: one, then two]")
@click.option("--concurrency", type=click.IntRange(min=1), default=32, show_default=True, help="Threads of each.")
@click.option("--rounds", "number", type=click.IntRange(min=1), default=5, show_default=True, help="The median counts.")
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write figures.")
def main(jobs: int, processes: int | None, concurrency: int, number: int, file: Path | None) -> None:
    """Drain a queue of jobs that take no time, and lists of Celery's and dramatiq's tasks.

    Starts servers and the API in a temporary folder. In each round it fills the queue over HTTP while no worker runs,
    starts workers with the simulator at full speed, and counts from the first job's start to the last one's end, as
    Postgres has them: each is claimed, run, stored with its answer and its entry in the ledger, and announced. Then
    it does the same with the peers' workers in as many threads. They begin in turn:

    \b
    durable   Celery tasks that claim a row in Postgres by SQLAlchemy, commit, end it with its answer, and commit
    celery    Celery tasks that do nothing: they are in Redis alone
    dramatiq  dramatiq's tasks that do nothing

    Celery's tasks are acknowledged as they come, without results and events, dramatiq's once they are done.

    The last line is name=value pairs: jobs_per_s, durable_per_s, celery_per_s and dramatiq_per_s, medians of the
    rounds; ratio_durable, ratio_celery and ratio_dramatiq, the medians of the rounds' ratios; worker_ms and
    postgres_ms, what a job takes of the processors there, and durable_worker_ms and durable_postgres_ms. Then the same
    without dramatiq with two workers of each and twice as many jobs: jobs_per_s_two, ratio_durable_two and so on. With
    --processes only these workers are measured. The status is 1 when ratio_durable is below 1.2 with one worker; the
    other ratios have no goal.

    \b
    bin/headrace python benchmarks/drain.py
    bin/headrace python benchmarks/drain.py --processes 2
    """
    plan = Plan(jobs, processes or 1, concurrency)
    arms = {"": measure(plan, number)}
    show(arms[""], plan.processes)
    if processes is None:
        arms["_two"] = measure(replace(plan, processes=2, jobs=2 * jobs), number, ["durable", "celery"])
        show(arms["_two"], 2)
    figures = {f"{name}{arm}": value for arm, found in arms.items() for name, value in summary(found).items()}
    if file is not None:
        every = {
            f"{name}{arm}": [asdict(each) for each in measured]
            for arm, found in arms.items()
            for name, measured in found.items()
        }
        file.write_text(json.dumps({"plan": asdict(plan), "figures": figures, "rounds": every}, indent=2) + "\n")
    print(line_of(figures))
    sys.exit(0 if plan.processes > 1 or figures["ratio_durable"] >= GOAL_RATIO else 1)


if __name__ == "__main__":
    main()
