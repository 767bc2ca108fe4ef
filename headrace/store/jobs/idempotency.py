"""Idempotency-Keys: the job that a key stands for, and which request may create it. Knows only the job's id.

A key is written by the statement that inserts its job, `sql/insert.sql` or one like it. While that transaction is open,
it holds an advisory lock on the key. A second request with the key fails at once, and so does not wait inside a batch
that it shares with others.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import TypeVar
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection

from headrace.errors import IdempotencyInProgress, IdempotencyKeyReused
from headrace.tables import idempotency_keys

#: How long an Idempotency-Key is remembered.
IDEMPOTENCY_TTL = timedelta(hours=24)
#: The most expired keys that one transaction deletes.
FORGET_ROWS = 10_000
#: How long a request waits for another request with its key, and its first pause between two tries, in seconds. Pauses
#: double up to `POLL_AT_MOST_S`: each try reserves a place and uses one request of the app's rate.
PATIENCE_S = 2.0
POLL_S = 0.02
POLL_AT_MOST_S = 0.25

#: A key: the app, and the key's text.
Key = tuple[UUID, str]
#: What a key stands for: a job, and the hash of the request that created it.
Stands = tuple[UUID, bytes]

_Answer = TypeVar("_Answer")


def key_reused() -> IdempotencyKeyReused:
    """The error for a key that was used with two bodies or two paths."""
    message = "This Idempotency-Key was used with another body or path. Use a new key."
    return IdempotencyKeyReused(message, param="Idempotency-Key")


def find_replay(db: Connection, app_id: UUID, key: str) -> Stands | None:
    """The job and request hash of a live Idempotency-Key; None for an unknown key."""
    return find_replays(db, [(app_id, key)]).get((app_id, key))


def find_replays(db: Connection, keys: Sequence[Key]) -> Mapping[Key, Stands]:
    """Like `find_replay` for many keys, in one statement; an unknown key is absent."""
    table = idempotency_keys.c
    statement = sa.select(table.app_id, table.key, table.job_id, table.request_hash)
    statement = statement.where(sa.tuple_(table.app_id, table.key).in_(keys), table.expires_at > sa.func.now())
    return {(row.app_id, row.key): (row.job_id, row.request_hash) for row in db.execute(statement)}


def forget_expired_keys(db: Connection) -> int:
    """Delete expired Idempotency-Keys, at most `FORGET_ROWS`; returns how many."""
    expired = sa.select(idempotency_keys.c.app_id, idempotency_keys.c.key)
    expired = expired.where(idempotency_keys.c.expires_at <= sa.func.now())
    expired = expired.order_by(idempotency_keys.c.expires_at).limit(FORGET_ROWS)
    key = sa.tuple_(idempotency_keys.c.app_id, idempotency_keys.c.key)
    deleted = sa.delete(idempotency_keys).where(key.in_(expired.with_for_update(skip_locked=True)))
    return len(db.execute(deleted.returning(idempotency_keys.c.key)).all())


def until_settled(attempt: Callable[[], _Answer]) -> _Answer:
    """Repeat `attempt` while another request with its key is in progress, for at most `PATIENCE_S`.

    Holds no connection in between. Raises: IdempotencyInProgress, and the errors of `attempt`.
    """
    give_up_at = time.monotonic() + PATIENCE_S
    pause_s = POLL_S
    while True:
        try:
            return attempt()
        except IdempotencyInProgress:
            if time.monotonic() >= give_up_at:
                raise
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, POLL_AT_MOST_S)
