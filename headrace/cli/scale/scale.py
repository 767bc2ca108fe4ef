"""`headrace scale`, for operators: what the autoscaler sees, what it wants and why, and what it expects."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import click
from pydantic import ValidationError
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.text import Text

from headrace.cli.database import database, operator_settings
from headrace.cli.output import json_option, out, plain, print_json, watch
from headrace.cli.scale.overview import OverviewReader, PoolOverview
from headrace.cli.scale.screen import CHART_HEIGHT, LOUD, change, screen
from headrace.config import Settings
from headrace.domain.fleet import ScalingRecord
from headrace.domain.scaling import Decision
from headrace.errors import ConfigError, StoreUnavailable
from headrace.policies.scaling.decisions import VERSION, from_json
from headrace.policies.scaling.decisions import replay as decide_again
from headrace.policies.scaling.horizon import Horizon
from headrace.policies.scaling.schedule import Occurrence
from headrace.store.fleet import decisions
from headrace.store.fleet.decisions import MadeDecision

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
    seen     what was offered: accepted, refused for lack of room or time, or sent to the paid API; refused jobs that
             are repeats, or far beyond what their app was served, order no host
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
    pools, reader = _pools(settings, pool), OverviewReader(settings, num_decisions)
    if is_watched:
        found = watch(lambda: _read(settings, reader, pools), _fitted, StoreUnavailable)
    else:
        found = _read(settings, reader, pools)
    if as_json:
        print_json([pool_json(each) for each in found])
    else:
        out.print(_screens(found, CHART_HEIGHT))


def _pools(settings: Settings, pool: str | None) -> Sequence[str]:
    """The pools to show. Raises: ConfigError."""
    known = ", ".join(settings.own_pools) or "none"
    if pool is not None and pool not in settings.own_pools:
        raise ConfigError(f"There is no pool '{pool}' with hosts of its own: headrace.toml has {known}.", param="pool")
    if not settings.own_pools:
        raise ConfigError("No pool has hosts of its own, so there is nothing to scale.", param="pools")
    return settings.own_pools if pool is None else [pool]


def _read(settings: Settings, reader: OverviewReader, pools: Sequence[str]) -> list[PoolOverview]:
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


def pool_json(found: PoolOverview) -> dict[str, Any]:
    """All of it, without the inputs of its decisions."""
    seen = found.seen
    rate = None if found.inputs is None else found.inputs.hosts.tokens_per_s
    data = {
        "pool": found.pool,
        "now": found.now,
        "seen": None if seen is None else {**asdict(seen), "age_s": found.age_s},
        "is_stale": found.is_stale,
        "stale_after_s": found.stale_after_s,
        "decision": _decision(found.decision),
        "failing": _decision(found.failing),
        "hosts": {**asdict(found.hosts), "usd_per_hour": found.usd_per_hour, "unpriced": found.unpriced},
        "host_tokens_per_s": rate,
        "past": [asdict(span) for span in found.past],
        "ahead": None if found.ahead is None else _ahead(found.ahead),
        "decisions": [asdict(run) for run in found.runs],
    }
    return {name: plain(value) for name, value in data.items()}


def _decision(made: MadeDecision | None) -> dict[str, Any] | None:
    if made is None:
        return None
    record = asdict(made.record)
    del record["inputs"]
    fields = {"applied_at": made.applied_at, "tries": made.tries, "error": made.error}
    return {"id": made.id, "at": made.at, **record, **fields}


def _ahead(ahead: Horizon) -> dict[str, Any]:
    return {
        "points": [asdict(point) for point in ahead.points],
        "events": [_event(event) for event in ahead.events],
        "season_until": ahead.season_until,
        "unknown": list(ahead.unknown),
    }


def _event(each: Occurrence) -> dict[str, Any]:
    event = each.event
    times = {"starts_at": each.starts_at, "ends_at": each.ends_at}
    return {"name": event.name, **times, "jobs_per_s": event.jobs_per_s, "hosts": event.hosts}


@scale.command()
@click.argument("decision_id", metavar="ID", type=click.IntRange(1, 2**63 - 1))
@json_option
@click.pass_context
def replay(context: click.Context, decision_id: int, as_json: bool) -> None:
    """Compute the decision ID again from its row, and say whether it is the same.

    The status is 1 if it is not, or if another version of the policies made it.
    """
    with database() as db:
        record = decisions.find(db, decision_id)
    try:
        again = decide_again(from_json(record.inputs))
    except ValidationError as error:
        raise click.ClickException(
            f"Decision {decision_id} cannot be computed again: version {record.version} of the policies wrote inputs"
            f" that version {VERSION} does not read ({error.error_count()} fields)."
        ) from error
    changes = list(differences(record, again))
    is_same = not changes and record.version == VERSION
    if as_json:
        about = {"id": decision_id, "pool": record.pool, "action": record.action, "target": record.target}
        versions = {"version": record.version, "current_version": VERSION}
        print_json({**about, "reason": record.reason, **versions, "is_same": is_same, "differences": changes})
    else:
        _print(decision_id, record, changes)
    context.exit(0 if is_same else 1)


def _print(decision_id: int, record: ScalingRecord, changes: Sequence[str]) -> None:
    wanted = change(record.action, record.hosts, record.target)
    then = f"{record.policy}, {wanted}: {record.reason.removeprefix(f'{record.action}: ')}"
    lines = [f"Decision {decision_id} of pool {record.pool}: {then}", *(f"  {change}" for change in changes)]
    if record.version != VERSION:
        lines.append(f"Version {record.version} of the policies made it; this is version {VERSION}.")
    lines.append("Computed again, it differs." if changes else "Computed again, it is the same.")
    for line in lines:
        out.print(escape(line), soft_wrap=True, highlight=False)


def differences(record: ScalingRecord, again: Decision) -> Iterator[str]:
    """A line for each value in which a decision that is computed again differs from its row."""
    forecast = again.forecast
    values: dict[str, Any] = {
        "target": again.target,
        "action": again.action,
        "reason": again.reason,
        "need": again.need,
        "spare_need": again.spare_need,
        "forecast_tokens_per_s": None if forecast is None else forecast.tokens_per_s,
        "forecast_at": None if forecast is None else forecast.at,
        "burst_until": again.burst_until,
    }
    for name, value in values.items():
        if (before := getattr(record, name)) != value:
            yield f"{name}: was {before}, is now {value}"
