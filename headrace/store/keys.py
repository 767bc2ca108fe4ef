"""API keys: a key is shown once, at its creation; only its HMAC is stored. Knows nothing about HTTP headers.

A key is `hr-`, 43 random characters, and 6 characters of a checksum that needs the pepper. So an invented key is
refused without asking Postgres. Old keys have no checksum and are recognised by their length.
"""

import base64
import hashlib
import hmac
import re
import secrets
import shlex
from collections.abc import Collection, Iterable
from datetime import datetime, timedelta
from functools import cache
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection, Row
from sqlalchemy.dialects.postgresql import ARRAY

from headrace.domain.apps import KEY_PREFIX, App, KeyRecord, KeyState, Scope
from headrace.domain.ids import new_id
from headrace.errors import InvalidRequest, NotFound, Unauthenticated
from headrace.store.apps import COLUMNS, read_app
from headrace.tables import api_keys, apps

#: How many characters of a key may be shown to identify it.
HINT_CHARS = 8
#: Random bytes of a key, and characters of its checksum: one invented key in 2^36 has the right checksum.
SECRET_BYTES = 32
CHECKSUM_CHARS = 6
#: The length of a key without a checksum.
PLAIN_CHARS = len(KEY_PREFIX) + 43
#: The fewest digits that may abbreviate an id.
ID_CHARS_MIN = 4

_ID = re.compile(f"[0-9a-f]{{{ID_CHARS_MIN},32}}")


_IS_REVOKED = api_keys.c.revoked_at.is_not(None)
_IS_OVER = api_keys.c.expires_at <= sa.func.now()
_STATE = sa.case((_IS_REVOKED, "revoked"), (_IS_OVER, "expired"), else_="live").label("state")
_SELECT_RECORD = (
    sa.select(api_keys, _STATE, apps.c.name.label("app"))
    .join(apps, apps.c.id == api_keys.c.app_id)
    .order_by(api_keys.c.id)
)
_SELECT_LIVE = (
    sa.select(*COLUMNS, api_keys.c.digest, api_keys.c.scopes)
    .join(api_keys, api_keys.c.app_id == apps.c.id)
    .where(api_keys.c.digest == sa.any_(sa.bindparam("digests", type_=ARRAY(sa.LargeBinary))))
    .where(api_keys.c.revoked_at.is_(None))
    .where(sa.or_(api_keys.c.expires_at.is_(None), api_keys.c.expires_at > sa.func.now()))
)


def make(
    db: Connection,
    app_id: UUID,
    pepper: str,
    *,
    scopes: Iterable[Scope] = tuple(Scope),
    lifetime: timedelta | None = None,
) -> str:
    """Create an API key and return it; it cannot be shown again. Without a lifetime it never expires."""
    plain = KEY_PREFIX + secrets.token_urlsafe(SECRET_BYTES)
    key = plain + _checksum(plain, pepper)
    row = {"id": new_id(), "app_id": app_id, "hint": key[:HINT_CHARS], "digest": digest(key, pepper)}
    expires_at = None if lifetime is None else sa.func.now() + lifetime
    db.execute(sa.insert(api_keys).values(scopes=sorted(map(str, scopes)), expires_at=expires_at, **row))
    return key


def digest(key: str, pepper: str) -> bytes:
    """The stored form of a key: HMAC-SHA256 under the pepper. A key is random, so a slow hash would add nothing."""
    # Not hmac.digest: it releases the GIL, and under load each request would then wait for all other threads.
    keyed = _keyed(pepper).copy()
    keyed.update(key.encode())
    return keyed.digest()


@cache
def _keyed(pepper: str) -> hmac.HMAC:
    """The function under a pepper, made once: that takes longer than a digest."""
    return hmac.new(pepper.encode(), digestmod=hashlib.sha256)


def may_exist(key: str, pepper: str) -> bool:
    """False for a text that cannot be a key under this pepper. Asks no server."""
    plain, checksum = key[:PLAIN_CHARS], key[PLAIN_CHARS:]
    if len(plain) < PLAIN_CHARS or not plain.startswith(KEY_PREFIX):
        return False
    return not checksum or hmac.compare_digest(checksum, _checksum(plain, pepper))


def _checksum(plain: str, pepper: str) -> str:
    # The signed message differs from any in `digest`, so that a checksum reveals nothing about the stored HMAC.
    signed = hmac.new(pepper.encode(), b"checksum of " + plain.encode(), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(signed)[:CHECKSUM_CHARS].decode()


def authenticate(db: Connection, key: str, pepper: str) -> App:
    """The app behind a key, with the key's scopes. Raises: Unauthenticated: unknown, expired or revoked."""
    wanted = digest(key, pepper)
    if (app := authenticate_all(db, [wanted]).get(wanted)) is None:
        raise invalid()
    return app


def authenticate_all(db: Connection, digests: Collection[bytes]) -> dict[bytes, App]:
    """The apps of the live keys among these digests, by digest, in one statement.

    The lookup is by digest, so that its time reveals nothing about a key. A found digest is compared in constant time.
    """
    rows = db.execute(_SELECT_LIVE, {"digests": list(digests)})
    found = {row.digest: row for row in rows}
    return {
        wanted: read_app(row, row.scopes)
        for wanted in digests
        if (row := found.get(wanted)) is not None and hmac.compare_digest(row.digest, wanted)
    }


def invalid() -> Unauthenticated:
    """The error for an invalid key. It must not tell which of the three cases it is."""
    return Unauthenticated(
        "This API key is not valid: unknown, expired or revoked. Ask this API's operator for another one."
    )


def list_keys(db: Connection, app_id: UUID | None = None) -> list[KeyRecord]:
    """Every key, of one app or of all, oldest first."""
    statement = _SELECT_RECORD if app_id is None else _SELECT_RECORD.where(api_keys.c.app_id == app_id)
    return [_record(row) for row in db.execute(statement)]


def find(db: Connection, text: str) -> KeyRecord:
    """The key named by its hint, the key itself, its id, or the first digits of its id.

    Locks the key, so that its state cannot change before the caller changes it.
    Raises: NotFound. InvalidRequest: the text names several keys.
    """
    found = [_record(row) for row in db.execute(_SELECT_RECORD.where(_means(text)).with_for_update(of=api_keys))]
    # The text may be a whole key, which must not appear in an error.
    shown = text[:HINT_CHARS] if text.startswith(KEY_PREFIX) else text[:40]
    if not found:
        raise NotFound(f"There is no API key '{shown}': 'headrace keys list' shows those there are.")
    if len(found) > 1:
        ids = ", ".join(str(key.id) for key in found[:4])
        raise InvalidRequest(f"'{shown}' means {len(found)} API keys: give the whole id of one ({ids}).", param="id")
    return found[0]


def record_of(db: Connection, key: str, pepper: str) -> KeyRecord:
    """What is stored of a key that was made under this pepper."""
    return _record(db.execute(_SELECT_RECORD.where(api_keys.c.digest == digest(key, pepper))).one())


def _means(text: str) -> sa.ColumnElement[bool]:
    if text.startswith(KEY_PREFIX) and len(text) >= HINT_CHARS:
        return api_keys.c.hint == text[:HINT_CHARS]
    digits = text.lower().replace("-", "")
    if not _ID.fullmatch(digits):
        return sa.false()
    first, last = (UUID(hex=digits.ljust(32, fill)) for fill in "0f")
    return api_keys.c.id.between(first, last)


def rotate(
    db: Connection, key: KeyRecord, pepper: str, *, keep_old_for: timedelta, lifetime: timedelta | None = None
) -> str:
    """Create a key with the scopes of the old one, and let the old one expire. Returns the new key.

    Args:
        keep_old_for: how long both keys work, unless the old one expires sooner.
        lifetime: of the new key. Required if the old key has an end, so that an expiring key is not replaced by one
            that never expires.
    Raises: InvalidRequest: the old key is expired or revoked, or the lifetime is missing.
    """
    _check_live(key)
    if key.expires_at is not None and lifetime is None:
        raise InvalidRequest(
            f"The key {key.hint}… expires at {key.expires_at:%Y-%m-%d %H:%M} UTC: say with --days how long the new one "
            f"lives, or make one without an end with 'headrace keys create {shlex.quote(key.app)}'.",
            param="days",
        )
    # `least` ignores NULL, the value of a key that never expires.
    ends_at = sa.func.least(api_keys.c.expires_at, sa.func.now() + keep_old_for)
    old = sa.update(api_keys).where(api_keys.c.id == key.id).values(expires_at=ends_at)
    app_id: UUID = db.execute(old.returning(api_keys.c.app_id)).scalar_one()
    return make(db, app_id, pepper, scopes=key.scopes, lifetime=lifetime)


def expire(db: Connection, key: KeyRecord, after: timedelta) -> datetime:
    """Let a live key expire `after` from now, sooner or later than before. Returns when.

    Raises: InvalidRequest: the key is expired or revoked, which is final.
    """
    _check_live(key)
    statement = sa.update(api_keys).where(api_keys.c.id == key.id).values(expires_at=sa.func.now() + after)
    at: datetime = db.execute(statement.returning(api_keys.c.expires_at)).scalar_one()
    return at


def revoke(db: Connection, key: KeyRecord) -> None:
    """Make a key invalid from now on; safe to repeat."""
    revoked_at = sa.func.coalesce(api_keys.c.revoked_at, sa.func.now())
    db.execute(sa.update(api_keys).where(api_keys.c.id == key.id).values(revoked_at=revoked_at))


def _check_live(key: KeyRecord) -> None:
    if key.state is not KeyState.LIVE:
        raise InvalidRequest(
            f"The key {key.hint}… is {key.state}, for good: 'headrace keys create {shlex.quote(key.app)}' "
            "makes a new one.",
            param="id",
        )


def _record(row: Row[Any]) -> KeyRecord:
    scopes, state = frozenset(map(Scope, row.scopes)), KeyState(row.state)
    return KeyRecord(row.id, row.app, row.hint, scopes, state, row.created_at, row.expires_at, row.revoked_at)
