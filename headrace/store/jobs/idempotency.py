"""Idempotency-Keys: the job that a key stands for, and which request may create it. Knows only the job's id.

A key is written in the transaction of its job. While that transaction is open, it holds an advisory lock on the key. A
second request with the key fails at once, and so does not wait inside a batch that it shares with others.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import TypeVar
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import CTE, Connection
from sqlalchemy.dialects.postgresql import distinct_on, insert

from headrace.errors import IdempotencyInProgress, IdempotencyKeyReused
from headrace.tables import apps, idempotency_keys

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


def take(given: CTE) -> CTE:
    """The part of an inserting statement that takes its keys.

    For a key that it cannot take, `find_replays` finds the job afterwards. If it finds none, another transaction with
    the key is still open.

    Args:
        given: rows with `id`, `app_id`, `key` (NULL: none) and `request_hash`.

    Returns: `job_id`, the `id` of each row that holds its key from now on.
    """
    wanted = (
        sa.select(given.c.app_id, given.c.key, given.c.request_hash, given.c.id)
        .where(given.c.key.is_not(None))
        .ext(distinct_on(given.c.app_id, given.c.key))
        # The same order in every process, so that no two deadlock.
        .order_by(given.c.app_id, given.c.key, given.c.id)
        .cte("wanted")
    )
    # Any role may take an advisory lock. No analyst can read the app's secret, and so compute the number beforehand.
    secret = sa.select(apps.c.webhook_secret).where(apps.c.id == wanted.c.app_id).scalar_subquery()
    name = sa.func.hashtextextended(secret + wanted.c.key, 0)
    free = sa.select(wanted).where(sa.func.pg_try_advisory_xact_lock(name)).cte("free")
    columns = idempotency_keys.c
    taking = insert(idempotency_keys).from_select(
        ["app_id", "key", "request_hash", "job_id", "expires_at"], sa.select(*free.c, sa.func.now() + IDEMPOTENCY_TTL)
    )
    taking = taking.on_conflict_do_update(
        index_elements=[columns.app_id, columns.key],
        set_={name: taking.excluded[name] for name in ("request_hash", "job_id", "expires_at")},
        where=columns.expires_at <= sa.func.now(),
    )
    return taking.returning(columns.job_id).cte("taken")
