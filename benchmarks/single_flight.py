"""Identical jobs that come at once, while the worker that makes their answer is killed: how often it is made.

The claim: once more than without the kill, however many jobs wait for it; each job has its answer, its webhook and a
bill, and one of them is paid for. Knows the system from outside: HTTP, SQL, signals.
"""

import json
import sys
from pathlib import Path
from typing import Any

import click

from bed.load import drive, request
from bed.neighbour.receivers import GoodReceiver
from bed.testbed import Testbed, bearer, console, line_of, wait_until

WITHOUT = ("overflow", "beat", "flower")
#: How long one answer takes: 20 tokens.
SLOTS, TOKENS, TOKENS_PER_S = 200, 20, 1
SETTINGS = {
    "HEADRACE_POOLS__CHAT__MAX_RUNNING": str(SLOTS),
    "HEADRACE_SIMULATOR__OUTPUT_TOKENS": str(TOKENS),
    "HEADRACE_SIMULATOR__DECODE_TOKENS_PER_S": str(TOKENS_PER_S),
    "HEADRACE_WEBHOOKS__ALLOW_PRIVATE": "true",
}
CONNECTIONS = 40
LONGEST_S = 180.0
RUNNING = "SELECT count(*) FROM jobs WHERE state = 'running'"
FOUND = """
    SELECT count(*) FILTER (WHERE j.state = 'succeeded' AND t.answer IS NOT NULL), count(DISTINCT t.answer),
           (SELECT count(*) FROM attempts), (SELECT count(*) FROM ledger WHERE kind = 'compute'),
           (SELECT count(*) FROM ledger WHERE kind = 'cache' AND usd = 0 AND saved_usd > 0)
    FROM jobs j JOIN job_texts t ON t.job_id = j.id
"""


def measure(number: int, *, is_on: bool) -> dict[str, Any]:
    """Submit this number of identical jobs, kill the worker, and wait until all have ended and told so."""
    env = {**SETTINGS, "HEADRACE_POOLS__CHAT__SINGLE_FLIGHT": str(is_on).lower()}
    with GoodReceiver() as receiver, Testbed(env, WITHOUT) as bed:
        job = {"prompt": "What is a headrace?", "temperature": 0, "max_wait": 3600, "webhook": receiver.url}
        submit = request("POST", "/v1/jobs", bearer(bed.api_key), json.dumps(job).encode())
        accepted = drive([bed.url], iter([submit] * number), CONNECTIONS).count(202)
        wait_until(lambda: bed.sql(RUNNING)[0][0] > 0, LONGEST_S, "No job starts.")
        console.print("the worker is killed", style="dim")
        bed.stack.kill("gpu")
        bed.wait_until_all_ended(LONGEST_S)
        wait_until(lambda: len(receiver.received_at) >= accepted, LONGEST_S, None)
        [(answers, different, attempts, paid, shared)] = bed.sql(FOUND)
    return {
        "accepted": accepted,
        "answers": answers,
        "different": different,
        "webhooks": len(receiver.received_at),
        "attempts": attempts,
        "paid": paid,
        "shared": shared,
    }


@click.command()
@click.option("--jobs", "number", type=click.IntRange(min=2), default=1000, show_default=True, help="Identical jobs.")
@click.option("--off", type=click.Choice(["flight"]), help="Once more without single flight, with 200 jobs.")
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write figures.")
def main(number: int, off: str | None, file: Path | None) -> None:
    """Submit identical jobs over 40 connections, and kill the worker that makes their answer with SIGKILL.

    Starts a stack of a simulated engine, whose answers take twenty seconds.

    The last line is name=value pairs: accepted jobs; answers, and different ones among them; webhooks, jobs whose end
    arrived; attempts, of which the kill costs one; paid, entries that charge a job; shared, entries of 0 USD; with
    --off flight, attempts_off of accepted_off jobs. The status is 1 when a job lacks its answer or its webhook, when
    the answer was made more than once beside the lost attempt, or when more than one job is paid for.

    \b
    bin/headrace python benchmarks/single_flight.py --off flight
    """
    figures = measure(number, is_on=True)
    if off:
        console.print("once more, without single flight", style="dim")
        without = measure(SLOTS, is_on=False)
        figures |= {"attempts_off": without["attempts"], "accepted_off": without["accepted"]}
    if file is not None:
        file.write_text(json.dumps(figures, indent=2) + "\n")
    print(line_of(figures))
    is_whole = number == figures["accepted"] == figures["answers"] == figures["webhooks"]
    is_once = (figures["attempts"], figures["paid"], figures["shared"]) == (2, 1, number - 1)
    sys.exit(0 if is_whole and is_once else 1)


if __name__ == "__main__":
    main()
