"""What the KV ledger brings on the real engine: preemptions and a full cache, beside an open door and the worst case.

The claim: with the ledger at most one job in a hundred is preempted, the cache is nearly full as long as jobs wait, and
the work is done about as fast as when the engine lets everybody in. Knows the system from outside: HTTP, SQL.
"""

import json
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import psycopg
from rich.table import Table

from bed.real_engine import QueueClient, check_installed, demo_folder, real_stack, settings_of
from bed.testbed import Counts, console, count_jobs, line_of, rounds

WORKLOAD = Path(__file__).parent / "bed" / "workloads" / "mixed.jsonl"
#: Of the engine, in all arms: a cache of 91 blocks of 128 tokens, which decides who runs, and not the batch.
POOL = {
    "max_running": 128,
    "kv_cache_mib": 256,
    "max_model_tokens": 1024,
    "kv_high_share": 0.0,
    "engine_options": {"enable_prefix_caching": False},
}
#: What decides in each arm who is let into the engine, as `kv_admission` names it.
ARMS = {"ledger": "expected", "open": "open", "worst_case": "worst_case"}
GOAL_PREEMPTED, GOAL_USE, GOAL_RATIO = 0.01, 0.85, 0.97

#: Pause between two looks at whether all jobs have ended.
LOOK_S = 1.0

_OPEN = b"SELECT count(*) FROM jobs WHERE ended_at IS NULL"
_FIGURES = b"""
WITH busy AS (
    SELECT min(started_at) AS since, max(started_at) AS until, max(ended_at) AS ended FROM jobs
), sampled AS (
    SELECT sum(kv_use * steps) / sum(steps) AS kv_use, sum(running * steps)::float / sum(steps) AS running
    FROM worker_samples, busy WHERE taken_at BETWEEN since AND until AND steps > 0
)
SELECT (SELECT avg((preemptions > 0)::int)::float FROM attempts),
       (SELECT sum(preemptions)::int FROM attempts),
       sampled.kv_use,
       sampled.running,
       (SELECT sum(output_tokens) FROM jobs) / extract(epoch FROM ended - since)::float
FROM busy, sampled
"""


@dataclass(frozen=True, slots=True)
class Run:
    """All jobs, once.

    Attributes:
        preempted_share: of the jobs, those that were preempted at all.
        kv_use: of the cache's blocks, as the engine says after each step, mean over the steps while jobs waited.
        running: jobs in the engine, at the same times.
        tok_s: tokens of answers a second, from the first start to the last end.
    """

    preempted_share: float
    preemptions: int
    kv_use: float
    running: float
    tok_s: float
    counts: Counts


def run(arm: str, prompts: list[str], max_tokens: int, folder: Path) -> Run:
    """Start a whole Headrace, and have all prompts answered."""
    settings = settings_of(folder, POOL | {"kv_admission": ARMS[arm]}) | {"HEADRACE_SAMPLE_EVERY_S": "1"}
    with real_stack(settings, without=("flower", "webhooks", "beat")) as stack:
        QueueClient(stack).submit(prompts, max_tokens)
        url = stack.report.database_url
        with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as db:
            while db.execute(_OPEN).fetchone() != (0,):
                time.sleep(LOOK_S)
            figures = db.execute(_FIGURES).fetchone()
        assert figures is not None
        return Run(*figures, counts=count_jobs(url))


def median(runs: list[Run], figure: str) -> float:
    """Over the rounds."""
    return statistics.median(getattr(each, figure) for each in runs)


def show(found: dict[str, list[Run]]) -> None:
    """Every arm."""
    table = Table("who is let in", header_style="bold", title="medians over the rounds")
    for heading in ("preempted", "preemptions", "KV use", "running", "tok/s", "of open's"):
        table.add_column(heading, justify="right")
    for arm, runs in found.items():
        table.add_row(
            arm,
            f"{median(runs, 'preempted_share'):.4f}",
            f"{median(runs, 'preemptions'):.0f}",
            f"{median(runs, 'kv_use'):.3f}",
            f"{median(runs, 'running'):.1f}",
            f"{median(runs, 'tok_s'):.0f}",
            f"{median(runs, 'tok_s') / median(found['open'], 'tok_s'):.3f}",
        )
    console.print(table)


def summary(found: dict[str, list[Run]]) -> dict[str, Any]:
    """What the last line says."""
    figures: dict[str, Any] = {}
    for arm, runs in found.items():
        suffix = "" if arm == "ledger" else f"_{arm}"
        figures[f"preempted_share{suffix}"] = median(runs, "preempted_share")
        figures[f"kv_use{suffix}"] = median(runs, "kv_use")
        figures[f"throughput_ratio{suffix}"] = median(runs, "tok_s") / median(found["open"], "tok_s")
    counts = [asdict(each.counts) for runs in found.values() for each in runs]
    return figures | {name: sum(each[name] for each in counts) for name in counts[0]}


@click.command()
@click.option("--rounds", "number", type=click.IntRange(min=1), default=2, show_default=True, help="Of all arms.")
@click.option("--jobs", type=click.IntRange(10, 400), default=400, show_default=True, help="Of the workload.")
@click.option(
    "--off",
    type=click.Choice(["ledger"]),
    help="Leave the ledger out: the open engine alone, whose figures then stand where the ledger's do.",
)
@click.option(
    "--json", "file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write every figure."
)
def main(number: int, jobs: int, off: str | None, file: Path | None) -> None:
    """Answer prompts of mixed length on an engine whose KV cache cannot hold them, in three ways.

    Starts a whole Headrace with the real vLLM engine in a temporary folder for each run: a cache of 91 blocks of 128
    tokens, a batch of up to 128, prefix caching off. `ledger` is Headrace as it is. `open` lets in every job: the
    engine by itself, the counter-proof. `worst_case` keeps room for the longest answer of each job. The jobs are those
    of benchmarks/bed/workloads/mixed.jsonl; the ledger knows no length before the first answer has ended. The order of
    the arms turns round with each round. `benchmarks/kv_steps.py`, which this calls first, prints the same for four
    sizes of cache by simulation.

    The last line is name=value pairs: the share of preempted jobs, the use of the cache while jobs waited, and tokens
    a second over open's, each with the ledger and for the other two arms; then what Postgres says became of all jobs.
    The status is 1 when the ledger misses a goal (0.01, 0.85, 0.97) or a job has no answer.

    \b
    bin/headrace python benchmarks/kv_budget.py
    bin/headrace python benchmarks/kv_budget.py --rounds 1 --jobs 100 --off ledger
    """
    check_installed()
    work = [json.loads(line) for line in WORKLOAD.read_text().splitlines()][:jobs]
    prompts, max_tokens = [each["prompt"] for each in work], work[0]["max_tokens"]
    arms = ["open"] if off else list(ARMS)
    folder = demo_folder()
    if not off:
        subprocess.run([sys.executable, Path(__file__).with_name("kv_steps.py")], check=False, stdout=sys.stderr)
    found: dict[str, list[Run]] = {arm: [] for arm in arms}
    for no in rounds(number, lambda no: f"round {no} of {number}"):
        for arm in arms if no % 2 else reversed(arms):
            found[arm].append(run(arm, prompts, max_tokens, folder))
            console.print(f"{arm}: {found[arm][-1]}")
    if off:
        found["ledger"] = found["open"]
    show(found)
    figures = summary(found)
    if file is not None:
        every = {arm: [asdict(each) for each in runs] for arm, runs in found.items()}
        whole = {"rounds": number, "jobs": jobs, "figures": figures, "runs": every}
        file.write_text(json.dumps(whole, indent=2) + "\n")
    print(line_of(figures))
    missed = (
        figures["preempted_share"] > GOAL_PREEMPTED
        or figures["kv_use"] < GOAL_USE
        or figures["throughput_ratio"] < GOAL_RATIO
    )
    sys.exit(1 if missed or figures["accepted"] != figures["succeeded"] else 0)


if __name__ == "__main__":
    main()
