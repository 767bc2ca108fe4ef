"""Whether the calls of several overflow workers keep to the provider's rate together, or run into its 429s.

The claim: 429s are rare, and the rate is used. Knows the system from outside: HTTP, SQL, what the provider counted.
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
from bed.testbed import Testbed, bearer, console, lanes, line_of
from peers.paid_api import paid_api

WITHOUT = ("gpu", "webhooks", "beat", "flower")
LONGEST_S = 300.0
CONNECTIONS = 32


def measure(per_minute: int, jobs: int, *, tells: bool) -> dict[str, Any]:
    """Submit all jobs at once to two workers of a provider that allows this number of calls a minute."""
    with (
        TemporaryDirectory(prefix="headrace-pacing-") as folder,
        paid_api(Path(folder), tokens=16, per_minute=per_minute, tells=int(tells)) as provider,
    ):
        settings = {
            **lanes(depth_cap=100_000),
            "OPENAI_API_KEY": "sk-stand-in",
            "OPENAI_BASE_URL": f"{provider}/v1",
            "HEADRACE_MAX_ATTEMPTS": "1000",
        }
        with Testbed(settings, WITHOUT) as bed:
            bed.start_worker("overflow")
            body = json.dumps({"prompt": "What is a headrace?", "overflow": "only", "max_wait": 3600}).encode()
            submit = request("POST", "/v1/jobs", bearer(bed.api_key), body)
            # One job, by whose answer the rate becomes known.
            drive([bed.url], iter([submit]), 1)
            bed.wait_until_all_ended(LONGEST_S)
            began = time.monotonic()
            drive([bed.url], iter([submit] * jobs), CONNECTIONS)
            bed.wait_until_all_ended(LONGEST_S)
            seconds = time.monotonic() - began
            with urllib.request.urlopen(f"{provider}/bill") as answer:
                bill: dict[str, int] = json.load(answer)
            counts = bed.count()
    # What the bucket does not hold at first comes at its rate.
    least_s = max(0.0, (jobs - per_minute) * 60 / per_minute)
    return {
        "refused_share": bill["refused"] / bill["calls"],
        "calls_per_job": bill["calls"] / counts.accepted,
        "seconds": seconds,
        "rate_used": least_s / seconds,
        "accepted": counts.accepted,
        "succeeded": counts.succeeded,
        "expired": counts.expired,
        "failed": counts.failed,
    }


@click.command()
@click.option("--per-minute", type=click.IntRange(min=1), default=300, show_default=True, help="Calls it allows.")
@click.option("--jobs", type=click.IntRange(min=1), default=600, show_default=True, help="Submitted at once.")
@click.option("--off", type=click.Choice(["pacing"]), help="Once more, with a provider that does not tell its rate.")
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write figures.")
def main(per_minute: int, jobs: int, off: str | None, file: Path | None) -> None:
    """Submit more jobs than a paid API allows in a minute, to two overflow workers.

    Starts a stack with two overflow workers and a stand-in for the paid API that answers 429 beyond its rate, and tells
    what is left of it as OpenAI does.

    The last line is name=value pairs: refused_share, of the calls, those that met a 429; calls_per_job; seconds, for
    all; rate_used, the seconds that the rate makes them take at least, over these; with --off pacing, the same of a
    provider that says nothing, with the suffix _off; and what became of all jobs. The status is 1 when more than 0.02
    of the calls were refused, less than 0.9 of the rate was used, or a job has no answer.

    \b
    bin/headrace python benchmarks/pacing.py
    bin/headrace python benchmarks/pacing.py --off pacing
    """
    console.print(f"{jobs} jobs, {per_minute} calls a minute", style="dim")
    figures = measure(per_minute, jobs, tells=True)
    if off:
        console.print("once more, without its telling", style="dim")
        without = measure(per_minute, jobs, tells=False)
        figures |= {f"{name}_off": without[name] for name in ("refused_share", "calls_per_job", "rate_used")}
    if file is not None:
        file.write_text(json.dumps(figures, indent=2) + "\n")
    print(line_of(figures))
    is_met = figures["refused_share"] <= 0.02 and figures["rate_used"] >= 0.9
    sys.exit(0 if is_met and figures["accepted"] == figures["succeeded"] else 1)


if __name__ == "__main__":
    main()
