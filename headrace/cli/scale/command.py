"""`headrace scale`, for operators: what the autoscaler sees, what it wants and why, and what it expects."""

from collections.abc import Sequence

import click
from rich.console import Group, RenderableType
from rich.text import Text

from headrace.cli.database import database, operator_settings
from headrace.cli.output import out, print_json
from headrace.cli.scale.as_json import as_json as json_of
from headrace.cli.scale.overview import PoolOverview, Reader
from headrace.cli.scale.replay import replay
from headrace.cli.scale.screen import CHART_HEIGHT, LOUD, screen
from headrace.cli.watch import watch
from headrace.config import Settings
from headrace.errors import ConfigError, StoreUnavailable

#: A chart of fewer lines says nothing.
LEAST_HEIGHT = 3


@click.group(invoke_without_command=True)
@click.option("--pool", metavar="NAME", help="Only this pool.")
@click.option(
    "--decisions", "num_decisions", type=click.IntRange(0, 1000), default=5, show_default=True, metavar="N",
    help="How many decisions; those in a row that say the same count as one.",
)  # fmt: skip
@click.option("--watch", "is_watched", is_flag=True, help="Draw it again every 2 s, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Print all of it as JSON.")
@click.pass_context
def scale(context: click.Context, pool: str | None, num_decisions: int, is_watched: bool, as_json: bool) -> None:
    """Show what the autoscaler sees, what it wants and why, and what it expects of the next hours.

    \b
    headrace scale --watch              as it goes on
    headrace scale --decisions 30       more of the past
    headrace scale replay 812           compute decision 812 again

    \b
    seen     what was offered: accepted, refused for lack of room or time, or sent to the paid API
    wanted   the last decision, its reason, and whether the provider has carried it out
    hosts    by their state, with their price; 'headrace hosts' lists them
    ahead    the load that is expected, the hosts that it needs, and the events of the calendar
    chart    tokens per second. The vertical line is now.

    Times are local, except those within a reason, which are UTC. Nothing is shown as known that is not: without a
    measured rate of a host, the chart has no line for the capacity; without a whole day of samples, the present level
    is expected to go on.
    """
    if context.invoked_subcommand is not None:
        return
    if is_watched and as_json:
        raise click.UsageError("--watch and --json exclude each other.")
    settings = operator_settings()
    pools, reader = _pools(settings, pool), Reader(settings, num_decisions)
    if is_watched:
        found = watch(lambda: _read(settings, reader, pools), _fitted, StoreUnavailable)
    else:
        found = _read(settings, reader, pools)
    if as_json:
        print_json([json_of(each) for each in found])
    else:
        out.print(_screens(found, CHART_HEIGHT))


scale.add_command(replay)


def _pools(settings: Settings, pool: str | None) -> Sequence[str]:
    """The pools to show. Raises: ConfigError."""
    known = ", ".join(settings.own_pools) or "none"
    if pool is not None and pool not in settings.own_pools:
        raise ConfigError(f"There is no pool '{pool}' with hosts of its own: headrace.toml has {known}.", param="pool")
    if not settings.own_pools:
        raise ConfigError("No pool has hosts of its own, so there is nothing to scale.", param="pools")
    return settings.own_pools if pool is None else [pool]


def _read(settings: Settings, reader: Reader, pools: Sequence[str]) -> list[PoolOverview]:
    with database(settings) as db:
        return [reader.read(db, pool) for pool in pools]


def _screens(found: Sequence[PoolOverview], chart_height: int) -> RenderableType:
    parts: list[RenderableType] = []
    for each in found:
        parts += [Text()] if parts else []
        parts.append(screen(each, out.width, chart_height))
    return Group(*parts)


def _fitted(found: Sequence[PoolOverview], trouble: str) -> RenderableType:
    """All pools, with charts of a height at which they fit into the terminal. Args: trouble: why they are old."""
    above = [Text(trouble, style=LOUD)] if trouble else []
    for height in (*range(CHART_HEIGHT, LEAST_HEIGHT - 1, -1), 0):
        drawn = Group(*above, _screens(found, height))
        if len(out.render_lines(drawn)) <= out.height:
            break
    return drawn
