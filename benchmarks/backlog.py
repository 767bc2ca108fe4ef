"""What a long backlog costs while nothing happens to it, and what it costs those who submit meanwhile.

The claim: with 200,000 jobs in the lists, or as many that wait in Postgres alone, the sweeps keep Valkey busy for less
than 0.02 and Postgres for less than 0.05 seconds a second, and the 95th percentile of a submit stays within 1.2 times
that of an empty system. Knows the system from outside: HTTP to submit, SQL to make the backlog, /proc to weigh.
"""

import itertools
import json
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import click
from rich.table import Table

from bed.load import Outcome, drive, percentile, request
from bed.past import drop_indexes, vacuum
from bed.testbed import BARE, Testbed, bearer, console, lanes, line_of, rounds, wait_until

#: The sweeps need all other processes. No worker runs that would take a job.
WITHOUT = [name for name in BARE if name not in ("control", "beat")]
QUEUE, LIST = "chat.normal", "{headrace}:chat.normal"
#: Whose jobs the backlog is; who submits beside it, and has to be served in turn with it.
CROWD, WRITER = "app-1", "app-2"
STATES = ("queued", "waiting")
SETTINGS = {
    **lanes(depth_cap=1_000_000, backlog_cap_tokens=10**12, max_wait_s=86_400),
    # `spill` looks for jobs whose time runs out as long as the paid API could take them: it is never called here.
    "OPENAI_API_KEY": "sk-stand-in",
    "OPENAI_BASE_URL": "http://127.0.0.1:9/v1",
    "HEADRACE_BUDGETS__DAY_USD": "1000",
}
#: How long the backlog may take to come into the lists, and the sweeps to come to rest, in seconds.
REBUILD_S, REST_S = 600.0, 15.0
#: Few, so that a latency is what a call costs and not what it waits for others.
CONNECTIONS = 4
GOALS = {"valkey_share": 0.02, "postgres_share": 0.05, "submit_ratio": 1.2}
#: How often the counter-proof lets the sweeps forget what they have checked, in seconds.
FORGET_EVERY_S = 0.5

_APP = "INSERT INTO apps (id, name, webhook_secret) VALUES (gen_random_uuid(), %s, 'whsec_' || md5(random()::text))"
#: Ids as the API makes them (UUIDv7), a millisecond apart; each may wait for a day.
_BACKLOG = f"""
    INSERT INTO jobs (id, app_id, state, lane, pool, queue, route, route_reason, overflow, model_requested,
                      background, prompt_tokens, max_tokens, created_at, start_by, queued_at)
    SELECT (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0')
            || '7' || substr(md5(no::text), 1, 3) || '8' || substr(md5(no::text), 4, 15))::uuid,
           apps.id, 'queued', 'normal', 'chat', '{QUEUE}', 'pool', 'backlog', 'allow', 'none',
           true, 100, 28, at, at + interval '1 day', at
    FROM apps, (SELECT no, now() - interval '1 ms' * (%s - no) - interval '10 s' AS at
                FROM generate_series(1, %s) AS no) AS job
    WHERE name = '{CROWD}'
"""
_TEXTS = """
    INSERT INTO job_texts (job_id, messages, sampling)
    SELECT id, '[{"role": "user", "content": "Why is the sky blue?"}]', '{"max_tokens": 28}' FROM jobs
"""
#: Free slots for the paid API's calls, which make `spill` look; no process stands behind them.
_OVERFLOW = """
    INSERT INTO workers (id, name, host_id, pool, engine, model, max_running, ready, lease_until)
    VALUES (gen_random_uuid(), 'overflow@stand-in', 'stand-in', 'overflow', 'openai', 'gpt-4o-mini', 32, true,
            now() + interval '1 day')
"""
_WAIT = "UPDATE jobs SET state = 'waiting', not_before = now() + interval '1 day' WHERE state = 'queued'"


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured: jobs of the backlog, seconds of rest, rounds of submits and submits in each."""

    jobs: int
    seconds: float
    rounds: int
    requests: int


@dataclass(frozen=True, slots=True)
class Figures:
    """One state of the backlog.

    Attributes:
        valkey_share, postgres_share: processor seconds for each second in which only the sweeps run.
        empty_valkey_share, empty_postgres_share: the same without a backlog.
        submit_ratio: of the 95th percentiles with the backlog and without, over all rounds.
        wrong: submits that were not accepted.
    """

    valkey_share: float
    postgres_share: float
    empty_valkey_share: float
    empty_postgres_share: float
    submit_p95_ms: float
    empty_submit_p95_ms: float
    submit_ratio: float
    wrong: int


class System:
    """One of the two, with an API process of its own."""

    def __init__(self, bed: Testbed) -> None:
        self.bed = bed
        self._url = bed.start_web(1)
        bed.sql(_OVERFLOW)
        self._key = bearer(bed.make_key(WRITER))
        body = {"prompt": "Why is the sky blue?", "max_tokens": 28, "lane": "normal", "overflow": "never"}
        self._submit = request("POST", "/v1/jobs", self._key, json.dumps(body).encode())

    def fill(self, jobs: int) -> float:
        """Put the backlog into Postgres; returns how long the sweeps took to bring it into its list, in seconds."""
        self.bed.sql(_APP, CROWD)
        self.bed.sql(_BACKLOG, jobs, jobs)
        self.bed.sql(_TEXTS)
        vacuum(self.bed)
        began = time.monotonic()
        wait_until(lambda: self.bed.redis.llen(LIST) >= jobs, REBUILD_S, "The backlog does not come into its list.")
        return time.monotonic() - began

    def park(self) -> None:
        """Let all of the backlog wait in Postgres alone, and empty Redis, as after a long outage of a paid API."""
        self.bed.sql(_WAIT)
        self.bed.redis.flushall()
        vacuum(self.bed)

    def submit(self, number: int) -> Outcome:
        """So many submits, which are cancelled at once; that is not measured."""
        outcome = drive(self._url, itertools.repeat(self._submit, number), CONNECTIONS)
        made = [json.loads(answer.body)["id"] for answer in outcome.answers if answer.status == 202]
        cancels = (request("POST", f"/v1/jobs/{job_id}/cancel", self._key) for job_id in made)
        drive(self._url, cancels, CONNECTIONS)
        return outcome


def shares(systems: Sequence[System], seconds: float) -> list[dict[str, float]]:
    """What the servers of each system take of a processor while only the sweeps run."""
    before = [system.bed.cpu_s([]) for system in systems]
    began = time.monotonic()
    time.sleep(seconds)
    took_s = time.monotonic() - began
    after = [system.bed.cpu_s([]) for system in systems]
    return [
        {name: (used[name] - had[name]) / took_s for name in ("valkey", "postgres")}
        for had, used in zip(before, after, strict=True)
    ]


def compare(empty: System, deep: System, plan: Plan, title: str) -> Figures:
    """Weigh both at rest, then let both take submits in turn."""
    console.print(f"{title}: at rest for {plan.seconds:g} s", style="dim")
    time.sleep(REST_S)
    nothing, backlog = shares((empty, deep), plan.seconds)
    waits_ms: dict[int, list[float]] = {id(empty): [], id(deep): []}
    wrong = 0
    for no in rounds(plan.rounds, lambda no: f"{title}: submits, round {no} of {plan.rounds}"):
        # Who is asked first changes, so that neither is always the one that finds the caches cold.
        order = (empty, deep) if no % 2 else (deep, empty)
        for system in order:
            outcome = system.submit(plan.requests)
            waits_ms[id(system)] += [1000 * answer.latency_s for answer in outcome.answers if answer.status == 202]
            wrong += plan.requests - outcome.count(202)
    # Of all rounds together: one round's own is noise on a machine that does other things.
    empty_p95_ms, deep_p95_ms = (percentile(waits_ms[id(system)], 95) for system in (empty, deep))
    return Figures(
        valkey_share=backlog["valkey"],
        postgres_share=backlog["postgres"],
        empty_valkey_share=nothing["valkey"],
        empty_postgres_share=nothing["postgres"],
        submit_p95_ms=deep_p95_ms,
        empty_submit_p95_ms=empty_p95_ms,
        submit_ratio=deep_p95_ms / empty_p95_ms,
        wrong=wrong,
    )


@contextmanager
def forgetting(bed: Testbed) -> Iterator[None]:
    """Take the sweeps' marks away again and again, so that `publish_due` looks at every waiting job each time."""
    is_over = threading.Event()

    def forget() -> None:
        while not is_over.wait(FORGET_EVERY_S):
            if marks := bed.redis.keys("{headrace}:checked:*"):
                bed.redis.delete(*marks)

    thread = threading.Thread(target=forget, daemon=True)
    thread.start()
    yield
    is_over.set()
    thread.join()


def measure(plan: Plan, off: str | None) -> tuple[dict[str, Figures], dict[str, object]]:
    """Each state of the backlog, beside an empty system; then what Postgres and the list have of it."""
    found: dict[str, Figures] = {}
    with Testbed(SETTINGS, WITHOUT) as empty_bed, Testbed(SETTINGS, WITHOUT) as deep_bed:
        empty, deep = System(empty_bed), System(deep_bed)
        console.print(f"{plan.jobs} jobs come into the list", style="dim")
        rebuilt_s = deep.fill(plan.jobs)
        for system in (empty, deep):
            system.submit(plan.requests)
        if off == "indexes":
            drop_indexes(deep_bed)
        with forgetting(deep_bed) if off == "marks" else nullcontext():
            found["queued"] = compare(empty, deep, plan, "queued")
            listed = int(deep_bed.redis.llen(LIST))
            deep.park()
            found["waiting"] = compare(empty, deep, plan, "waiting")
        states = deep_bed.sql("SELECT state, count(*) FROM jobs GROUP BY state ORDER BY state")
    return found, {"rebuilt_s": rebuilt_s, "listed": listed} | {f"jobs_{state}": count for state, count in states}


def show(found: Mapping[str, Figures]) -> None:
    """Both states, each beside the empty system."""
    table = Table("backlog", header_style="bold", title="processor seconds a second; 95th percentiles of a submit")
    for heading in ("Valkey", "empty", "Postgres", "empty", "submit ms", "empty", "ratio", "wrong"):
        table.add_column(heading, justify="right")
    for state, each in found.items():
        shown = (each.valkey_share, each.empty_valkey_share, each.postgres_share, each.empty_postgres_share)
        times = (each.submit_p95_ms, each.empty_submit_p95_ms, each.submit_ratio)
        table.add_row(state, *(f"{share:.4f}" for share in shown), *(f"{ms:.2f}" for ms in times), str(each.wrong))
    console.print(table)


@click.command()
@click.option("--jobs", type=click.IntRange(min=1000), default=200_000, show_default=True, help="That wait.")
@click.option("--seconds", type=click.FloatRange(min=5), default=60, show_default=True, help="At rest, in each state.")
@click.option("--rounds", type=click.IntRange(min=1), default=25, show_default=True, help="Of submits to both in turn.")
@click.option("--requests", type=click.IntRange(min=20), default=100, show_default=True, help="Submits in a round.")
@click.option(
    "--off",
    type=click.Choice(["marks", "indexes"]),
    help="Without what the sweeps remember in Redis, or without every index that is not unique.",
)
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write figures.")
def main(jobs: int, seconds: float, rounds: int, requests: int, off: str | None, file: Path | None) -> None:
    """Weigh Valkey and Postgres under a backlog that no worker touches, and submit beside it.

    Starts two systems in temporary folders: Postgres, Valkey, an API process, and the processes that run the sweeps;
    no worker. One gets the backlog of one app, by SQL, as jobs that are queued and have no message: the sweeps bring
    it into its list. Both are left alone for a while, and what their servers use of a processor is measured. Then
    another app submits to both in turn, to the lane in which the backlog waits; what it submits is cancelled after each
    round. After that all of the backlog is set to `waiting`, not due before tomorrow, and measured again. A row stands
    for an overflow worker with free calls, so that `spill` looks for jobs to move; none is near its time.

    The last line is name=value pairs: of the two states the worse valkey_share, postgres_share and submit_ratio; each
    state's own; rebuilt_s, in which the sweeps brought the backlog into its list; listed, the messages that were in it
    at the end; and what Postgres says of all jobs. The status is 1 when a goal is missed (0.02, 0.05, 1.2) or a submit
    was refused.

    \b
    bin/headrace python benchmarks/backlog.py
    bin/headrace python benchmarks/backlog.py --off marks --json backlog.json
    """
    plan = Plan(jobs, seconds, rounds, requests)
    found, counts = measure(plan, off)
    show(found)
    worst = {name: max(getattr(each, name) for each in found.values()) for name in GOALS}
    figures: dict[str, object] = {**worst}
    for state, each in found.items():
        figures |= {f"{state}_{name}": value for name, value in asdict(each).items() if name in GOALS}
    wrong = sum(each.wrong for each in found.values())
    figures |= {"wrong": wrong} | counts
    if file is not None:
        states = {state: asdict(each) for state, each in found.items()}
        file.write_text(json.dumps({"plan": asdict(plan), "off": off, "figures": figures, "states": states}, indent=2))
    print(line_of(figures))
    sys.exit(1 if wrong or any(worst[name] > goal for name, goal in GOALS.items()) else 0)


if __name__ == "__main__":
    main()
