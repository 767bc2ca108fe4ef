"""Idempotency-Keys: which job a key stands for, and who may make it. Knows no job beyond its id.

A key is written in the transaction of the job it stands for. While that is open, an advisory lock says so: whoever
comes second learns it at once, and never waits inside a batch that others share.
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
from headrace.store.locks import NAMESPACE
from headrace.tables import idempotency_keys

#: How long an Idempotency-Key is remembered.
IDEMPOTENCY_TTL = timedelta(hours=24)
#: Expired keys deleted in one transaction.
FORGET_ROWS = 10_000
#: How long a request waits for another one with its key to be settled, and how long before it first asks again. Each
#: further pause is twice as long, up to a limit: each try takes a place, and uses up one request of its app's minute.
PATIENCE_S = 2.0
POLL_S = 0.02
POLL_AT_MOST_S = 0.25

#: What a key belongs to: an app, and the app's own text.
Key = tuple[UUID, str]
#: What a key stands for: a job, and the hash of the body that made it.
Stands = tuple[UUID, bytes]

_Answer = TypeVar("_Answer")


def key_reused() -> IdempotencyKeyReused:
    """The error of a key that came with two bodies, or to two paths."""
    message = "This Idempotency-Key was used with another body or path. Use a new key."
    return IdempotencyKeyReused(message, param="Idempotency-Key")


def find_replay(db: Connection, app_id: UUID, key: str) -> Stands | None:
    """The job and body hash that a live Idempotency-Key stands for."""
    return find_replays(db, [(app_id, key)]).get((app_id, key))


def find_replays(db: Connection, keys: Sequence[Key]) -> Mapping[Key, Stands]:
    """Likewise for many keys, in one statement; a key that stands for nothing is absent."""
    table = idempotency_keys.c
    statement = sa.select(table.app_id, table.key, table.job_id, table.request_hash)
    statement = statement.where(sa.tuple_(table.app_id, table.key).in_(keys), table.expires_at > sa.func.now())
    return {(row.app_id, row.key): (row.job_id, row.request_hash) for row in db.execute(statement)}


def forget_expired_keys(db: Connection) -> int:
    """Delete Idempotency-Keys that no replay can meet any more, `FORGET_ROWS` at most; returns how many."""
    expired = sa.select(idempotency_keys.c.app_id, idempotency_keys.c.key)
    expired = expired.where(idempotency_keys.c.expires_at <= sa.func.now())
    expired = expired.order_by(idempotency_keys.c.expires_at).limit(FORGET_ROWS)
    key = sa.tuple_(idempotency_keys.c.app_id, idempotency_keys.c.key)
    deleted = sa.delete(idempotency_keys).where(key.in_(expired.with_for_update(skip_locked=True)))
    return len(db.execute(deleted.returning(idempotency_keys.c.key)).all())


def until_settled(attempt: Callable[[], _Answer]) -> _Answer:
    """Call `attempt` again for as long as another request with its key is under way, `PATIENCE_S` at most.

    No connection is held in between. Raises: IdempotencyInProgress, and whatever `attempt` does.
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

    Where a key is not taken, `find_replays` tells afterwards which job it stands for; a key that stands for none
    even then is another transaction's that is still open.

    Args:
        given: rows with `id`, `app_id`, `key` (NULL: none) and `request_hash`.

    Returns: `job_id`, the `id` of each row that holds its key from now on.
    """
    wanted = (
        sa.select(given.c.app_id, given.c.key, given.c.request_hash, given.c.id)
        .where(given.c.key.is_not(None))
        .ext(distinct_on(given.c.app_id, given.c.key))
        # In one order in every process, so that no two can come to wait for each other.
        .order_by(given.c.app_id, given.c.key, given.c.id)
        .cte("wanted")
    )
    # Locks with one number are apart from those of `locks`, which have two.
    name = sa.func.hashtextextended(sa.cast(wanted.c.app_id, sa.Text) + wanted.c.key, NAMESPACE)
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
