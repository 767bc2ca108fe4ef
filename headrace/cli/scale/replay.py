"""`headrace scale replay`: whether a decision comes out the same again."""

from collections.abc import Iterator, Sequence
from typing import Any

import click
from pydantic import ValidationError
from rich.markup import escape

from headrace.cli.database import database
from headrace.cli.output import json_option, out, print_json
from headrace.cli.scale.screen import change
from headrace.domain.fleet import ScalingRecord
from headrace.domain.scaling import Decision
from headrace.policies.scaling import VERSION
from headrace.policies.scaling.replay import from_json
from headrace.policies.scaling.replay import replay as decide_again
from headrace.store.fleet import decisions


@click.command()
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
