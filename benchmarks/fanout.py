"""What a word of a stream costs each of fifty `web` processes, with a channel for each of them, and with one for all.

The claim: a process pays for the streams that it serves, and not for those of the whole cluster.
"""

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import click
from rich.table import Table

from bed.listening import Heard, listeners
from bed.testbed import Testbed, console, line_of, wait_until
from bed.weigh import cpu_s
from headrace.broker.news import channel_of
from headrace.broker.streams import Streams
from headrace.config import Settings
from headrace.connections.redis import redis_client
from headrace.domain.ids import new_id
from headrace.domain.jobs import StreamPiece

#: Words that a worker publishes in one call.
BATCH = 50
#: The least that a word is to be cheaper by, for a process.
LEAST = 20.0
LONGEST_S = 300.0
WORD = " water"


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is to be. Attributes: words: of each stream."""

    processes: int
    streams: int
    words: int


def measure(plan: Plan, *, shares_channel: bool) -> dict[str, float]:
    """Processor time of a listener and of Redis for a word, and the words a second of the one publisher."""
    job_ids = [new_id() for _ in range(plan.streams)]
    shares = [job_ids[place :: plan.processes] for place in range(plan.processes)]
    with Testbed({}) as bed:
        report = bed.stack.report
        settings = Settings.load(redis_url=report.redis_url, database_url=report.database_url)
        streams = Streams(redis_client(settings))
        for job_id in job_ids:
            streams.begin(job_id, 1)
        channel = channel_of(new_id()) if shares_channel else None
        server = int(bed.redis.info("server")["process_id"])
        with listeners(settings, shares, channel) as made:
            before, redis_s, began = [each.heard() for each in made], cpu_s(server), time.monotonic()
            publish(streams, job_ids, plan.words)
            seconds = time.monotonic() - began
            expected = plan.streams * plan.words * (plan.processes if shares_channel else 1)
            after = wait_until(
                lambda: _all(expected, before, [each.heard() for each in made]), LONGEST_S, "Words were lost."
            )
            redis_s = cpu_s(server) - redis_s
    words = plan.streams * plan.words
    listeners_s = sum(late.cpu_s - early.cpu_s for early, late in zip(before, after, strict=True))
    return {
        "listener_us": 1e6 * listeners_s / plan.processes / words,
        "redis_us": 1e6 * redis_s / words,
        "words_per_s": words / seconds,
        "heard": expected / words,
    }


def publish(streams: Streams, job_ids: list[UUID], words: int) -> None:
    """Publish this number of words of each stream, one stream after the other."""
    for number in range(words):
        for at in range(0, len(job_ids), BATCH):
            pieces = [StreamPiece(job_id, 1, number * len(WORD), WORD) for job_id in job_ids[at : at + BATCH]]
            if not all(streams.publish(pieces)):
                raise click.ClickException("A word was not taken.")


def _all(expected: int, before: list[Heard], after: list[Heard]) -> list[Heard] | None:
    heard = sum(late.messages - early.messages for early, late in zip(before, after, strict=True))
    return after if heard >= expected else None


def show(found: dict[str, dict[str, float]]) -> None:
    """Both arms side by side."""
    table = Table("for one word", header_style="bold")
    for name in found:
        table.add_column(name, justify="right")
    rows = {
        "processes that hear it": "heard",
        "processor time of each process, us": "listener_us",
        "processor time of Redis, us": "redis_us",
        "published a second": "words_per_s",
    }
    for title, figure in rows.items():
        table.add_row(title, *(f"{figures[figure]:,.4g}" for figures in found.values()))
    console.print(table)


@click.command()
@click.option("--processes", type=click.IntRange(min=2), default=50, show_default=True, help="That listen.")
@click.option("--streams", type=click.IntRange(min=1), default=5000, show_default=True, help="Of all of them together.")
@click.option("--words", type=click.IntRange(min=1), default=20, show_default=True, help="Of each stream.")
@click.option("--off", type=click.Choice(["channels"]), help="Once more with one channel for all processes.")
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write figures.")
def main(processes: int, streams: int, words: int, off: str | None, file: Path | None) -> None:
    """Publish the words of many streams, and see what each process that listens pays for one of them.

    Starts Redis and Postgres, and processes that listen as `web` does, each to its share of the streams. What
    wakes and answers the streams' readers is left out: it is the same either way.

    The last line is name=value pairs: listener_us, processor time of one process for a word of any stream; redis_us,
    that of Redis; words_per_s, published by one process; with --off channels, the same with one channel for all, and
    ratio, listener_us without channels over that with. The status is 1 when ratio is below 20.

    \b
    bin/headrace python benchmarks/fanout.py --off channels
    """
    plan = Plan(processes, streams, words)
    found = {"a channel for each": measure(plan, shares_channel=False)}
    if off:
        found["one for all"] = measure(plan, shares_channel=True)
    show(found)
    figures: dict[str, Any] = dict(found["a channel for each"])
    if off:
        figures |= {f"{name}_off": value for name, value in found["one for all"].items()}
        figures["ratio"] = figures["listener_us_off"] / figures["listener_us"]
    if file is not None:
        file.write_text(json.dumps(figures, indent=2) + "\n")
    print(line_of(figures))
    sys.exit(0 if figures.get("ratio", LEAST) >= LEAST else 1)


if __name__ == "__main__":
    main()
