"""Apps and their API keys. A key is shown once, when it is made; only its HMAC is stored."""

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import insert

from headrace.errors import NotFound, Unauthenticated
from headrace.jobs import Lane, new_id
from headrace.tables import api_keys, apps
from headrace.webhooks import new_secret

#: What every key starts with, so that a leaked one can be recognised.
KEY_PREFIX = "hr-"
#: Characters of a key that may be shown to tell it from others.
HINT_CHARS = 8


class Scope(StrEnum):
    """What an API key may be used for."""

    SUBMIT = "submit"
    READ = "read"


@dataclass(frozen=True, slots=True)
class AppLimits:
    """What one app may take of the whole; None where it has no limit of its own.

    Attributes:
        queued_jobs: jobs of it that wait at once, in all queues together.
        tokens_per_minute: prompt and the most output of what it submits.
    """

    queued_jobs: int | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None


UNLIMITED = AppLimits()


@dataclass(frozen=True, slots=True)
class App:
    """A client of the API, as it calls.

    Attributes:
        webhook_secret: signs its webhooks.
        lanes: those it may use; None for all.
        scopes: of the key it called with.
    """

    id: UUID
    name: str
    webhook_secret: str
    limits: AppLimits = UNLIMITED
    lanes: frozenset[Lane] | None = None
    scopes: frozenset[Scope] = frozenset(Scope)


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """What may be shown of a key after it was made."""

    id: UUID
    app: str
    hint: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


def ensure(db: Connection, name: str) -> App:
    """The app of this name, made if need be. Safe to run twice at once."""
    values = {"id": new_id(), "name": name, "webhook_secret": new_secret()}
    db.execute(insert(apps).values(**values).on_conflict_do_nothing(index_elements=["name"]))
    return _app_where(db, apps.c.name == name)


def find_app(db: Connection, name: str) -> App:
    """An app by name. Raises: NotFound."""
    return _app_where(db, apps.c.name == name)


def _app_where(db: Connection, condition: sa.ColumnElement[bool]) -> App:
    row = db.execute(sa.select(apps.c.id, apps.c.name, apps.c.webhook_secret).where(condition)).first()
    if row is None:
        raise NotFound("There is no such app.")
    return App(*row)


def make_key(db: Connection, app_id: UUID, pepper: str, expires_at: datetime | None = None) -> str:
    """Make an API key and return it: the one time it can be seen."""
    key = KEY_PREFIX + secrets.token_urlsafe(32)
    values = {"id": new_id(), "app_id": app_id, "hint": key[:HINT_CHARS], "digest": digest(key, pepper)}
    db.execute(sa.insert(api_keys).values(expires_at=expires_at, **values))
    return key


def digest(key: str, pepper: str) -> bytes:
    """How a key is stored: HMAC-SHA256 under the pepper. A key is random, so a slow hash would add nothing."""
    return hmac.digest(pepper.encode(), key.encode(), hashlib.sha256)


def authenticate(db: Connection, key: str, pepper: str) -> App:
    """The app behind a key. Raises: Unauthenticated: unknown, expired or revoked.

    The lookup is by digest, so that its time tells nothing about the key.
    """
    row = db.execute(
        sa.select(apps.c.id, apps.c.name, apps.c.webhook_secret)
        .join(api_keys, api_keys.c.app_id == apps.c.id)
        .where(api_keys.c.digest == digest(key, pepper), api_keys.c.revoked_at.is_(None))
        .where(sa.or_(api_keys.c.expires_at.is_(None), api_keys.c.expires_at > sa.func.now()))
    ).first()
    if row is None:
        raise Unauthenticated("This API key is not valid: unknown, expired or revoked.")
    return App(*row)


def list_keys(db: Connection, app_name: str | None = None) -> list[KeyRecord]:
    """Every key, of one app or of all, oldest first."""
    columns = (api_keys.c.id, apps.c.name, api_keys.c.hint)
    times = (api_keys.c.created_at, api_keys.c.expires_at, api_keys.c.revoked_at)
    statement = sa.select(*columns, *times).join(apps, apps.c.id == api_keys.c.app_id).order_by(api_keys.c.id)
    if app_name is not None:
        statement = statement.where(apps.c.name == app_name)
    return [KeyRecord(*row) for row in db.execute(statement)]


def revoke_key(db: Connection, key_id: UUID) -> None:
    """Make a key invalid from now on; safe to repeat. Raises: NotFound."""
    statement = sa.update(api_keys).where(api_keys.c.id == key_id)
    revoked = statement.values(revoked_at=sa.func.coalesce(api_keys.c.revoked_at, sa.func.now()))
    if db.execute(revoked.returning(api_keys.c.id)).first() is None:
        raise NotFound(f"There is no API key {key_id}.")
