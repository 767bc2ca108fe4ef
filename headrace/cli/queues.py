"""`headrace queues`: how full the queues are, once or as it changes."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import click
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from headrace.cli.client import open_api
from headrace.cli.output import json_option, out, print_json, table, watch


@click.command()
@click.option("--watch", "is_watched", is_flag=True, help="Draw it again every 2 s, until Ctrl-C.")
@json_option
def queues(is_watched: bool, as_json: bool) -> None:
    """Show how full each queue is, how fast its pool drains it, and how many workers the pool has.

    \b
    depth     waiting jobs
    cap       the most jobs that may wait; one more is refused
    apps      apps with waiting jobs
    tokens    prompt tokens and maximum output tokens of all waiting jobs
    tokens/s  the whole pool's rate while it has work
    wait      expected wait of a job that is submitted now
    workers   live workers of the whole pool
    running   running jobs of the whole pool
    slots     jobs that the whole pool can run at once

    '-' means unknown: no worker is alive, or nothing was measured yet.
    """
    if is_watched and as_json:
        raise click.UsageError("--watch and --json exclude each other.")
    api = open_api()

    def read() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = api.call("GET", "/v1/queues")["data"]
        return found

    found = watch(read, _screen, click.ClickException) if is_watched else read()
    if as_json:
        print_json(found)
    else:
        out.print(_table(found))


def _screen(found: Sequence[dict[str, Any]], trouble: str) -> RenderableType:
    at = Text(f"{datetime.now().astimezone():%H:%M:%S}  Ctrl-C leaves", style="dim")
    return Group(Text(trouble, style="bold red") if trouble else at, _table(found))


def _table(found: Sequence[dict[str, Any]]) -> Table:
    headings = ("depth", "cap", "apps", "tokens", "tokens/s", "wait", "workers", "running", "slots")
    figures = table("queue", numbers=headings)
    for queue in found:
        rate, wait_s = queue["drain_tokens_per_s"], queue["expected_wait_s"]
        figures.add_row(
            queue["queue"],
            *(str(queue[name]) for name in ("depth", "depth_cap", "apps", "backlog_tokens")),
            "-" if rate is None else f"{rate:.0f}",
            "-" if wait_s is None else f"{wait_s:.1f} s",
            *(str(queue[name]) for name in ("workers", "running", "slots")),
        )
    return figures
