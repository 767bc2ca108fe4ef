"""How much one overflow worker holds: streaming calls under way at once, its memory, and what it takes of a core.

The claim: a slow provider is waited for by hundreds of calls in one small process. Knows the system from outside: HTTP,
SQL, /proc, and what the provider saw.
"""

import json
import statistics
import sys
import time
import urllib.request
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click

from bed.load import drive, request
from bed.testbed import Testbed, bearer, console, lanes, line_of
from bed.weigh import cpu_s, total
from peers.paid_api import paid_api

WITHOUT = ("gpu", "webhooks", "beat", "flower")
TICK_S, WARM_S, LONGEST_S = 0.2, 5.0, 120.0
KIB_PER_MB = 1000 / 1.024


def measure(calls: int, deltas: int, call_s: float, seconds: float) -> dict[str, Any]:
    """Keep this number of calls under way for this time."""
    token_ms = 1000 * call_s / deltas
    with (
        TemporaryDirectory(prefix="headrace-capacity-") as folder,
        paid_api(Path(folder), tokens=deltas, token_ms=token_ms) as provider,
    ):
        settings = {
            **lanes(depth_cap=100_000),
            "OPENAI_API_KEY": "sk-stand-in",
            "OPENAI_BASE_URL": f"{provider}/v1",
            "HEADRACE_OVERFLOW__MAX_RUNNING": str(calls),
        }
        with Testbed(settings, WITHOUT) as bed:
            return _hold(bed, provider, calls, call_s, seconds)


def _hold(bed: Testbed, provider: str, calls: int, call_s: float, seconds: float) -> dict[str, Any]:
    pid, key = bed.stack.report.pids["overflow"], bearer(bed.api_key)
    body = json.dumps({"prompt": "What is a headrace?", "overflow": "only", "max_wait": 3600}).encode()
    submit = request("POST", "/v1/jobs", key, body)
    held, memory_kib = list[int](), list[int]()
    drive([bed.url], iter([submit] * calls), 16)
    began, cpu_before, last_s, calls_before = time.monotonic(), 0.0, 0.0, 0
    while (at_s := time.monotonic() - began) < WARM_S + seconds:
        if not cpu_before and at_s >= WARM_S:
            cpu_before, last_s, calls_before = cpu_s(pid), time.monotonic(), _bill(provider)["calls"]
        # As many as end meanwhile, and a few more, so that the queue is never empty.
        drive([bed.url], iter([submit] * max(1, round(1.1 * calls / call_s * TICK_S))), 16)
        if cpu_before:
            held.append(_bill(provider)["open"])
            memory_kib.append(total(pid, "VmRSS"))
        time.sleep(TICK_S)
    took_s, cpu_took_s = time.monotonic() - last_s, cpu_s(pid) - cpu_before
    made = _bill(provider)["calls"] - calls_before
    bed.wait_until_all_ended(LONGEST_S)
    counts = bed.count()
    return {
        "calls_held": int(statistics.median(held)),
        "memory_mb": max(memory_kib) / KIB_PER_MB,
        "core_share": cpu_took_s / took_s,
        "cpu_ms_per_call": 1000 * cpu_took_s / made,
        "accepted": counts.accepted,
        "succeeded": counts.succeeded,
        "expired": counts.expired,
        "failed": counts.failed,
    }


def _bill(provider: str) -> dict[str, int]:
    with urllib.request.urlopen(f"{provider}/bill") as answer:
        found: dict[str, int] = json.load(answer)
    return found


@click.command()
@click.option("--calls", type=click.IntRange(min=1), default=220, show_default=True, help="The worker's max_running.")
@click.option("--deltas", type=click.IntRange(min=1), default=64, show_default=True, help="Of each answer.")
@click.option("--call-s", type=click.FloatRange(min=0.1), default=2.0, show_default=True, help="Length of one call.")
@click.option("--seconds", type=click.FloatRange(min=1), default=20.0, show_default=True, help="Measured.")
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write figures.")
def main(calls: int, deltas: int, call_s: float, seconds: float, file: Path | None) -> None:
    """Hold many streaming calls in one overflow worker, and weigh it.

    Starts a stack with one overflow worker and a stand-in for the paid API whose answers take two seconds, and submits
    as fast as they end.

    The last line is name=value pairs: calls_held, the median of what the provider saw under way; memory_mb, the most
    that the worker and what it has started held; core_share, what it took of one core; cpu_ms_per_call, what that is
    for each call that was made meanwhile. The status is 1 when fewer than 200 were held, in more than 300 MB, or by
    more than half a core, or a job has no answer.

    \b
    bin/headrace python benchmarks/overflow_capacity.py
    """
    console.print(f"{calls} calls of {deltas} deltas in {call_s:g} s, for {seconds:g} s", style="dim")
    figures = measure(calls, deltas, call_s, seconds)
    if file is not None:
        file.write_text(json.dumps(figures, indent=2) + "\n")
    print(line_of(figures))
    is_met = figures["calls_held"] >= 200 and figures["memory_mb"] < 300 and figures["core_share"] <= 0.5
    sys.exit(0 if is_met and figures["accepted"] == figures["succeeded"] else 1)


if __name__ == "__main__":
    main()
