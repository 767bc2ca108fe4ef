"""Whether a prompt that must stay in the house ever leaves it: a stopped pool, a full queue, and a paid API at hand.

The claim: of jobs with `overflow: never` none reaches the provider, by the provider's own count.
"""

import json
import sys
import time
import urllib.request
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click

from bed.load import drive, request
from bed.testbed import Testbed, bearer, console, line_of
from peers.paid_api import paid_api

#: The pool is stopped: no own GPU answers.
WITHOUT = ("gpu", "webhooks", "beat", "flower")
CONNECTIONS = 16
#: For what was let in to reach the provider, and for the sweeps to have gone over it.
WATCHED_S = 10.0
HELD = "SELECT count(*) FROM jobs WHERE state IN ('waiting', 'queued')"


def measure(jobs: int, overflow: str) -> dict[str, Any]:
    """Submit as many jobs as the queue holds, and half as many more."""
    with TemporaryDirectory(prefix="headrace-never-") as folder, paid_api(Path(folder), tokens=16) as provider:
        settings = {
            "OPENAI_API_KEY": "sk-stand-in",
            "OPENAI_BASE_URL": f"{provider}/v1",
            "HEADRACE_LANES__NORMAL__DEPTH_CAP": str(jobs),
            # Each job may take as many tokens as its pool allows: the cap in jobs is to be the one that binds.
            "HEADRACE_LANES__NORMAL__BACKLOG_CAP_TOKENS": "10000000",
        }
        with Testbed(settings, WITHOUT) as bed:
            job = {"prompt": "What is a headrace?", "overflow": overflow, "max_wait": 3600}
            submit = request("POST", "/v1/jobs", bearer(bed.api_key), json.dumps(job).encode())
            statuses = drive([bed.url], iter([submit] * (jobs + jobs // 2)), CONNECTIONS).statuses
            time.sleep(WATCHED_S)
            with urllib.request.urlopen(f"{provider}/bill") as answer:
                calls = json.load(answer)["calls"]
            counts = bed.count()
            return {
                "accepted": statuses[202],
                "refused": statuses[429],
                "calls": calls,
                "held": bed.sql(HELD)[0][0],
                "succeeded": counts.succeeded,
                "expired": counts.expired,
                "failed": counts.failed,
            }


@click.command()
@click.option("--jobs", type=click.IntRange(min=1), default=1000, show_default=True, help="That the queue holds.")
@click.option("--off", type=click.Choice(["never"]), help="Once more with `allow`.")
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write figures.")
def main(jobs: int, off: str | None, file: Path | None) -> None:
    """Fill the queue of a pool that is stopped with jobs that must not go to the paid API, which stands by.

    Starts a stack without a GPU worker, with an overflow worker and a stand-in for the paid API, and submits half as
    many jobs again as the queue holds.

    The last line is name=value pairs: accepted and refused submits; calls that the provider counted; held, the jobs
    that still wait; with --off never, the calls where the jobs allow it; and what became of all. The status is 1 when
    the provider was called, or not as many wait as were accepted.

    \b
    bin/headrace python benchmarks/overflow_never.py --off never
    """
    console.print(f"{jobs + jobs // 2} jobs with overflow: never", style="dim")
    figures = measure(jobs, "never")
    if off:
        console.print("and once more with overflow: allow", style="dim")
        figures["calls_off"] = measure(jobs, "allow")["calls"]
    if file is not None:
        file.write_text(json.dumps(figures, indent=2) + "\n")
    print(line_of(figures))
    is_met = figures["calls"] == 0 and figures["held"] == figures["accepted"] == jobs
    sys.exit(0 if is_met else 1)


if __name__ == "__main__":
    main()
