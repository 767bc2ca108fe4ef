"""What a wiped Redis costs: thousands of jobs wait, everything in it is gone, and all are answered all the same.

The claim: Postgres is the truth and Redis an index of it, which the sweep `publish_due` makes anew. Knows the system
from outside: HTTP, SQL, Redis.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import click

from bed.load import drive, request
from bed.testbed import Testbed, bearer, console, lanes, line_of, wait_until

WITHOUT = ("gpu", "overflow", "webhooks", "beat", "flower")
QUEUE = "{headrace}:chat.normal"
CONNECTIONS = 32
LONGEST_S = 300.0
#: How long a stack without the sweep is watched.
WATCHED_S = 20.0
SETTINGS = {
    **lanes(depth_cap=100_000, backlog_cap_tokens=1_000_000_000),
    "HEADRACE_SIMULATOR__PREFILL_TOKENS_PER_S": "1e9",
    "HEADRACE_SIMULATOR__DECODE_TOKENS_PER_S": "1e9",
    "HEADRACE_SIMULATOR__KV_TOKENS": "10000000",
}


def measure(jobs: int, *, sweeps: bool) -> dict[str, Any]:
    """Let this number of jobs wait, wipe Redis, and start a worker once they are back in their queue, or should be."""
    without = WITHOUT if sweeps else (*WITHOUT, "control")
    with Testbed(SETTINGS, without) as bed:
        job = {"prompt": "What is a headrace?", "max_tokens": 8, "max_wait": 3600}
        submit = request("POST", "/v1/jobs", bearer(bed.api_key), json.dumps(job).encode())
        statuses = drive([bed.url], iter([submit] * jobs), CONNECTIONS).statuses
        if statuses[202] != jobs:
            raise click.ClickException(f"Submits were answered with {dict(statuses)}.")
        bed.redis.flushall()
        began = time.monotonic()
        # Without the sweeps there is no sign that they should be back.
        longest_s, otherwise = (LONGEST_S, "Jobs are stuck.") if sweeps else (WATCHED_S, None)
        wait_until(lambda: bed.redis.llen(QUEUE) == jobs, longest_s, otherwise)
        rebuilt_s, rebuilt = time.monotonic() - began, int(bed.redis.llen(QUEUE))
        bed.start_worker()
        wait_until(lambda: not bed.open_jobs(), longest_s, otherwise)
        counts = bed.count()
        [(twice,)] = bed.sql("SELECT count(*) FROM jobs WHERE attempt > 1")
    return {
        "rebuilt": rebuilt,
        "rebuild_s": rebuilt_s,
        "started_twice": twice,
        "accepted": counts.accepted,
        "succeeded": counts.succeeded,
        "expired": counts.expired,
        "failed": counts.failed,
    }


@click.command()
@click.option("--jobs", type=click.IntRange(min=1), default=5000, show_default=True, help="That wait.")
@click.option("--off", type=click.Choice(["sweep"]), help="Once more without the sweeps.")
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write figures.")
def main(jobs: int, off: str | None, file: Path | None) -> None:
    """Wipe Redis while thousands of jobs wait, and see them all answered.

    Starts a stack without a GPU worker, whose caps and max_wait are raised, fills a queue, and empties Redis. Once the
    queue is as it was, a worker with a simulated engine is started.

    The last line is name=value pairs: rebuilt, the messages that are in their queue again, and rebuild_s, how long that
    took, of which publish_grace_s and a sweep's pause are 3; started_twice, jobs with more than one attempt; with --off
    sweep, rebuilt and succeeded of a stack without sweeps, after 20 s each; and what became of all jobs. The status is
    1 when a message is missing, or a job has no answer, or was started twice.

    \b
    bin/headrace python benchmarks/wiped_redis.py --off sweep
    """
    console.print(f"{jobs} jobs wait, and Redis is wiped", style="dim")
    figures = measure(jobs, sweeps=True)
    if off:
        console.print("once more, without the sweeps", style="dim")
        without = measure(jobs, sweeps=False)
        figures |= {"rebuilt_off": without["rebuilt"], "succeeded_off": without["succeeded"]}
    if file is not None:
        file.write_text(json.dumps(figures, indent=2) + "\n")
    print(line_of(figures))
    is_met = figures["rebuilt"] == figures["succeeded"] == jobs and not figures["started_twice"]
    sys.exit(0 if is_met else 1)


if __name__ == "__main__":
    main()
