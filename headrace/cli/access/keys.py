"""`headrace keys`, for operators: makes, lists, rotates and ends API keys in Postgres, without the API."""

from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

import click
from rich.markup import escape
from rich.table import Table

from headrace.cli import parameters
from headrace.cli.database import database, operating, operator_settings
from headrace.cli.output import json_option, notes, out, print_json, table
from headrace.config import Settings
from headrace.domain.apps import KeyRecord, Scope
from headrace.errors import Unauthenticated
from headrace.stack.state_folder import write_private
from headrace.store import actions, apps
from headrace.store import keys as store

#: The app of the one-machine stack, without limits.
DEVELOPMENT_APP = "development"
DAYS = click.IntRange(min=1, max=36_500)
HOURS = click.IntRange(min=1, max=24 * 36_500)


@click.group()
def keys() -> None:
    """Make, list, rotate and end API keys.

    A key is shown only once, when it is made, because only a hash is stored. Afterwards, name a key by its hint (its
    first 8 characters, as 'headrace keys list' shows them), by its id, or by the first digits of its id.

    Changes take effect everywhere within 3 seconds.
    """


@keys.command()
@click.argument("app", callback=parameters.app_name)
@click.option("--days", type=DAYS, help="Days until it expires; never by default.")
@click.option(
    "--scope",
    "scopes",
    type=click.Choice([str(scope) for scope in Scope]),
    multiple=True,
    help="What it may do; repeat it for more than one. Everything by default. 'submit': submit, cancel and delete "
    "jobs. 'read': read and list them. A job is read by GET, which needs 'read'; a POST that waits for the answer or "
    "streams it needs 'submit' alone.",
)
@json_option
def create(app: str, days: int | None, scopes: tuple[str, ...], as_json: bool) -> None:
    """Make a key for APP and print it, only this once. 'headrace apps create' makes an app.

    \b
    headrace keys create shop
    headrace keys create shop --scope read --days 90
    """
    settings = operator_settings()
    settings.check_pepper()
    chosen = [Scope(scope) for scope in scopes or Scope]
    with operating(settings) as audit:
        key, made = actions.create_key(audit, app, settings.pepper.get_secret_value(), chosen, _days(days))
    if as_json:
        print_json({"key": key, **key_json(made)})
    else:
        click.echo(key)


@keys.command("list")
@click.argument("app", required=False, callback=parameters.app_name)
@click.option("--json", "as_json", is_flag=True, help="Print every field of each, ids too, as JSON.")
def list_all(app: str | None, as_json: bool) -> None:
    """List the keys of APP, or all keys. Shows their hints, because keys themselves are not stored."""
    with database() as db:
        found = store.list_keys(db, apps.find_app(db, app).id if app else None)
    if as_json:
        print_json([key_json(key) for key in found])
    else:
        out.print(key_table(found))


@keys.command()
@click.argument("key_id", metavar="ID")
@click.option("--keep-old-hours", type=HOURS, default=24, show_default=True, help="Hours in which both keys work.")
@click.option("--days", type=DAYS, help="Days until the new key expires. Needed when the old one has an end.")
@json_option
def rotate(key_id: str, keep_old_hours: int, days: int | None, as_json: bool) -> None:
    """Replace the key ID. Prints a new key with the same scopes, only this once. The old key expires after a while.

    Do not rotate a leaked key. Revoke it: 'headrace keys revoke'.
    """
    settings = operator_settings()
    settings.check_pepper()
    pepper, overlap = settings.pepper.get_secret_value(), timedelta(hours=keep_old_hours)
    with operating(settings) as audit:
        key, made, old = actions.rotate_key(audit, key_id, pepper, overlap, _days(days))
    ends_at = old.expires_at
    if as_json:
        print_json({"key": key, **key_json(made), "old_key_works_until": ends_at and ends_at.isoformat()})
        return
    click.echo(key)
    _note(f"The old key {old.hint}… of '{old.app}' works until {_minute(ends_at)} UTC.")


@keys.command()
@click.argument("key_id", metavar="ID")
@click.option("--hours", type=HOURS, required=True, help="Hours from now.")
@json_option
def expire(key_id: str, hours: int, as_json: bool) -> None:
    """Let the key ID expire in some hours. This may be earlier or later than its present end."""
    with operating() as audit:
        key = actions.expire_key(audit, key_id, timedelta(hours=hours))
    if as_json:
        print_json(key_json(key))
        return
    click.echo(f"The key {key.hint}… of '{key.app}' works until {_minute(key.expires_at)} UTC.")


@keys.command()
@click.argument("key_id", metavar="ID")
@json_option
def revoke(key_id: str, as_json: bool) -> None:
    """Revoke the key ID for good. It stops working within 3 seconds. Safe to repeat."""
    with operating() as audit:
        key = actions.revoke_key(audit, key_id)
    if as_json:
        print_json(key_json(key))
        return
    click.echo(f"Revoked the key {key.hint}… of '{key.app}'.")


def key_table(records: Iterable[KeyRecord]) -> Table:
    rows = table("key", "app", "scopes", "state", "created", "expires (UTC)")
    for key in records:
        ends_at = key.revoked_at or key.expires_at
        cells = (f"{key.hint}…", key.app, _scopes(key), str(key.state), f"{key.created_at:%Y-%m-%d}", _minute(ends_at))
        rows.add_row(*map(escape, cells))
    return rows


def key_json(key: KeyRecord) -> dict[str, Any]:
    times = {"created_at": key.created_at, "expires_at": key.expires_at, "revoked_at": key.revoked_at}
    return {
        "id": str(key.id),
        "app": key.app,
        "hint": key.hint,
        "scopes": sorted(key.scopes),
        "state": str(key.state),
        **{name: at and at.isoformat() for name, at in times.items()},
    }


def _scopes(key: KeyRecord) -> str:
    return ",".join(sorted(key.scopes)) or "-"


def _minute(at: datetime | None) -> str:
    return "never" if at is None else f"{at:%Y-%m-%d %H:%M}"


def _days(days: int | None) -> timedelta | None:
    return None if days is None else timedelta(days=days)


def _note(text: str) -> None:
    notes.print(text, markup=False, soft_wrap=True)


def make_development_key(settings: Settings) -> str:
    """The API key of the stack on this machine: the one that a file keeps if it is still valid, else a new one."""
    path, pepper = settings.state_dir / "api-key", settings.pepper.get_secret_value()
    if path.exists():
        kept = path.read_text().strip()
        with suppress(Unauthenticated), database(settings) as db:
            store.authenticate(db, kept, pepper)
            return kept
    with operating(settings) as audit:
        apps.ensure(audit.db, DEVELOPMENT_APP)
        key, _ = actions.create_key(audit, DEVELOPMENT_APP, pepper)
    write_private(path, key)
    return key
