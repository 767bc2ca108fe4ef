"""`headrace audit`, for operators: what operators did."""

import json
from datetime import datetime
from typing import Any

import click
from rich.markup import escape

from headrace.cli import parameters
from headrace.cli.database import database
from headrace.cli.output import json_option, note_more, out, print_json, print_uncut, table
from headrace.store import apps
from headrace.store import audit as store
from headrace.store.audit import Entry, WantedEntries


@click.command()
@click.option("--actor", metavar="NAME", help="Only what this operator did.")
@click.option("--action", type=click.Choice(store.ACTIONS), help="Only this.")
@click.option("--app", metavar="NAME", callback=parameters.app_name, help="Only what was done to this app.")
@click.option("--since", metavar="TIME", callback=parameters.moment, help="Only what was done at this time or later.")
@click.option("--until", metavar="TIME", callback=parameters.moment, help="Only what was done before this time.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="How many at most.")
@json_option
def audit(app: str | None, limit: int, as_json: bool, **filters: Any) -> None:
    """List what operators did, newest first: at /ops, in a terminal, and by Flower or 'celery control'.

    \b
    headrace audit --app shop --since 7d
    headrace audit --action job.read_texts --json

    Each row was written in the transaction that did it, and Postgres lets no row change. TIME is an age such as 2h or
    7d, or a date with a time, in UTC unless it has an offset.
    """
    with database() as db:
        app_id = apps.find_app(db, app).id if app is not None else None
        found = store.newest(db, WantedEntries(app_id=app_id, **filters), limit)
    if as_json:
        print_json([_json(each) for each in found])
        return
    if not found:
        out.print("No operator has done anything." if not (app or any(filters.values())) else "There are no such rows.")
        return
    rows = table("at (UTC)", "operator", "by", "action", "subject", "app", "details")
    for each in found:
        cells = (each.actor, each.source, each.action, each.subject, each.app or "-", _details(each))
        rows.add_row(_minute(each.at), *map(escape, cells))
    print_uncut(out, rows)
    if len(found) == limit:
        note_more(limit)


def _minute(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M}"


def _details(entry: Entry) -> str:
    return " ".join(f"{name}={_text(value)}" for name, value in entry.details.items())


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def _json(entry: Entry) -> dict[str, Any]:
    return {
        "id": entry.id,
        "at": entry.at.isoformat(),
        **{name: getattr(entry, name) for name in ("actor", "source", "action", "subject", "app")},
        "details": dict(entry.details),
    }
