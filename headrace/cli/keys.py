"""API keys, for operators: made, listed and revoked in Postgres, with no API in between."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import click
from pydantic import SecretStr
from sqlalchemy import Connection

from headrace import connections
from headrace.config import Settings
from headrace.stack.report import Report
from headrace.stack.secret import persistent_secret
from headrace.store import Store, apps


@click.group()
def keys() -> None:
    """Make, list and revoke API keys."""


@keys.command()
@click.argument("app")
@click.option("--days", type=click.IntRange(min=1), help="Days until it expires; never by default.")
def create(app: str, days: int | None) -> None:
    """Make a key for APP, which is made too if it is new. The key is shown this once."""
    if not app.strip():
        raise click.BadParameter("an app needs a name.", param_hint="APP")
    settings = _settings()
    expires_at = datetime.now(UTC) + timedelta(days=days) if days else None
    with _database(settings) as db:
        owner = apps.ensure(db, app)
        key = apps.make_key(db, owner.id, settings.pepper.get_secret_value(), expires_at)
    click.echo(key)


@keys.command("list")
@click.argument("app", required=False)
def list_all(app: str | None) -> None:
    """List the keys of APP, or all of them. Keys themselves are not stored; a hint tells them apart."""
    with _database(_settings()) as db:
        found = apps.list_keys(db, app)
    for key in found:
        times = {"created": key.created_at, "expires": key.expires_at, "revoked": key.revoked_at}
        dates = (f"{word} {at:%Y-%m-%d}" for word, at in times.items() if at)
        click.echo("  ".join((str(key.id), key.app, f"{key.hint}…", *dates)))


@keys.command()
@click.argument("key_id", metavar="ID", type=click.UUID)
def revoke(key_id: UUID) -> None:
    """Revoke the key ID (see `headrace keys list`). It stops working within a few seconds."""
    with _database(_settings()) as db:
        apps.revoke_key(db, key_id)
    click.echo(f"Revoked {key_id}.")


def _settings() -> Settings:
    """With the database and the pepper of the stack that runs on this machine, unless DATABASE_URL names another."""
    settings = Settings.load()
    if "database_url" in settings.model_fields_set:
        return settings
    try:
        stack = Report.read(settings.state_dir / "stack.json")
    except OSError:
        return settings
    changes: dict[str, Any] = {"database_url": stack.database_url}
    if "pepper" not in settings.model_fields_set:
        changes["pepper"] = SecretStr(persistent_secret(settings.state_dir / "pepper"))
    return settings.model_copy(update=changes)


@contextmanager
def _database(settings: Settings) -> Iterator[Connection]:
    store = Store(connections.postgres(settings, pool_size=1))
    try:
        with store.begin() as db:
            yield db
    finally:
        store.close()
