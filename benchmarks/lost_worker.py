"""How soon a dead worker's jobs run elsewhere: one of two workers is killed in the middle of its jobs.

The claim: seconds after its lease has ended, not after a broker's visibility timeout; each job has one answer and one
bill. Knows the system from outside: HTTP, SQL, signals.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import click

from bed.load import drive, percentile, request
from bed.testbed import Testbed, bearer, console, line_of, rounds, wait_until

WITHOUT = ("overflow", "webhooks", "beat", "flower")
#: Jobs that each worker runs at once, and how long one takes.
SLOTS, TOKENS, TOKENS_PER_S = 20, 20, 2
SETTINGS = {
    "HEADRACE_POOLS__CHAT__MAX_RUNNING": str(SLOTS),
    "HEADRACE_SIMULATOR__OUTPUT_TOKENS": str(TOKENS),
    "HEADRACE_SIMULATOR__DECODE_TOKENS_PER_S": str(TOKENS_PER_S),
}
LONGEST_S = 120.0
#: How long a stack without the sweeps is watched.
WATCHED_S = 40.0
RUNNING = "SELECT count(*) FROM jobs WHERE state = 'running'"
LIVE = "SELECT id FROM workers WHERE ready AND lease_until > now() AND pool = 'chat' ORDER BY started_at"
#: Of each attempt that died with a worker: seconds from its death to the job's next start.
AGAIN = """
    SELECT extract(epoch FROM again.started_at)::float - %s FROM attempts lost
    LEFT JOIN attempts again ON again.job_id = lost.job_id AND again.number = lost.number + 1
    WHERE lost.worker_id = %s AND lost.outcome IS DISTINCT FROM 'succeeded'
"""
BILLS = "SELECT count(*) FROM ledger WHERE kind = 'compute'"


def measure(repeat: int, *, sweeps: bool) -> dict[str, Any]:
    """Kill one of two workers so often, each time once both are full."""
    waits: list[float] = []
    lost = 0
    with Testbed(SETTINGS, WITHOUT if sweeps else (*WITHOUT, "control")) as bed:
        bed.start_worker()
        job = {"prompt": "What is a headrace?", "max_wait": 3600}
        submit = request("POST", "/v1/jobs", bearer(bed.api_key), json.dumps(job).encode())
        [(stays,)] = bed.sql(LIVE)[1:]
        for _ in rounds(repeat, lambda each: f"kill {each} of {repeat}"):
            [victim] = wait_until(
                lambda: [row[0] for row in bed.sql(LIVE) if row[0] != stays], LONGEST_S, "No other worker is there."
            )
            drive([bed.url], iter([submit] * 2 * SLOTS), SLOTS)
            wait_until(lambda: bed.sql(RUNNING)[0][0] == 2 * SLOTS, LONGEST_S, "The workers do not fill up.")
            killed_at = time.time()
            bed.stack.kill("gpu")
            longest_s, otherwise = (LONGEST_S, "Jobs do not end.") if sweeps else (WATCHED_S, None)
            wait_until(lambda: not bed.open_jobs(), longest_s, otherwise)
            found = [row[0] for row in bed.sql(AGAIN, killed_at, victim)]
            lost += len(found)
            waits += [wait_s for wait_s in found if wait_s is not None]
        counts, [(bills,)] = bed.count(), bed.sql(BILLS)
    return {
        "lost": lost,
        "again": len(waits),
        "p95_s": percentile(waits, 95),
        "most_s": max(waits, default=float("nan")),
        "bills": bills,
        "accepted": counts.accepted,
        "succeeded": counts.succeeded,
        "expired": counts.expired,
        "failed": counts.failed,
    }


@click.command()
@click.option("--repeat", type=click.IntRange(min=1), default=3, show_default=True, help="Workers to kill.")
@click.option("--off", type=click.Choice(["sweep"]), help="Once more without the sweeps.")
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write figures.")
def main(repeat: int, off: str | None, file: Path | None) -> None:
    """Kill one of two full workers with SIGKILL, and see when its jobs run again.

    Starts a stack with two workers of a simulated engine, whose jobs take ten seconds, and kills one of them in the
    middle of twenty.

    The last line is name=value pairs: lost, attempts that died with their workers, and again, those whose jobs were
    started once more; p95_s and most_s, how long after the death; bills, entries that charge a job; with --off sweep,
    how many of those lost were started again within 40 s without the sweeps; and what became of all jobs. The status is
    1 when a job has no answer, or more than one bill, or the p95 is over 40 s.

    \b
    bin/headrace python benchmarks/lost_worker.py --off sweep
    """
    figures = measure(repeat, sweeps=True)
    if off:
        console.print("once more, without the sweeps", style="dim")
        without = measure(1, sweeps=False)
        figures |= {"lost_off": without["lost"], "again_off": without["again"]}
    if file is not None:
        file.write_text(json.dumps(figures, indent=2) + "\n")
    print(line_of(figures))
    is_met = figures["accepted"] == figures["succeeded"] == figures["bills"] and figures["lost"] == figures["again"]
    sys.exit(0 if is_met and figures["p95_s"] <= 40 else 1)


if __name__ == "__main__":
    main()
