"""Accepting jobs: a batch is one statement and one commit. Knows no HTTP and no queue.

The main cost of a durable accept is the commit's fsync. A batch of a few requests shares it.

An Idempotency-Key is written by the statement that inserts its job, `sql/insert.sql` or one like it. While that
transaction is open, it holds an advisory lock on the key. A second request with the key fails at once, and so does not
wait inside a batch that it shares with others.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TypeVar
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError

from headrace.domain.jobs import Idempotency, Inserted, JobSpec
from headrace.domain.prompts.payloads import stored_messages, stored_sampling
from headrace.domain.queues import Candidate
from headrace.domain.states import JobState
from headrace.errors import HeadraceError, IdempotencyInProgress, IdempotencyKeyReused, StoreUnavailable
from headrace.policies.routing import route_of
from headrace.store import Store, sqlstate
from headrace.store.bad_rows import message_of
from headrace.store.sql import Statement, delete_chosen
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

#: SQLSTATE of a key that is there already: only a job's id can be, as a conflict of Idempotency-Keys is settled.
_UNIQUE_VIOLATION = "23505"


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


def keep_key(db: Connection, app_id: UUID, idempotency: Idempotency, batch_id: UUID) -> None:
    """Keep the key of a batch, whose id stands where a job's does. Raises: IdempotencyKeyReused."""
    values = {"request_hash": idempotency.request_hash, "job_id": batch_id}
    values["expires_at"] = sa.func.now() + IDEMPOTENCY_TTL
    kept = insert(idempotency_keys).values(app_id=app_id, key=idempotency.key, **values)
    is_over = idempotency_keys.c.expires_at <= sa.func.now()
    kept = kept.on_conflict_do_update(index_elements=["app_id", "key"], set_=values, where=is_over)
    if not db.execute(kept.returning(idempotency_keys.c.key)).all():
        # A job has taken it since the caller looked.
        raise key_reused()


def forget_expired_keys(db: Connection) -> int:
    """Delete expired Idempotency-Keys, at most `FORGET_ROWS`; returns how many."""
    expired = sa.select(idempotency_keys).where(idempotency_keys.c.expires_at <= sa.func.now())
    expired = expired.order_by(idempotency_keys.c.expires_at).limit(FORGET_ROWS)
    return db.execute(delete_chosen(expired.with_for_update(skip_locked=True), idempotency_keys)).rowcount


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


#: Bounds of one statement. The commit is amortised at 64 rows already; larger batches only add waiting.
BATCH_ROWS = 256
BATCH_BYTES = 16 * 1024 * 1024

_INSERT = Statement("insert")
_encode = json.JSONEncoder(separators=(",", ":")).encode


def insert_batch(store: Store, rows: Sequence[tuple[JobSpec, Candidate]]) -> list[Inserted | HeadraceError]:
    """Insert jobs as `queued`. Returns once they are durable, with the outcome of each, in order.

    It never waits for another transaction's Idempotency-Key: such a row's outcome is IdempotencyInProgress at once, and
    the caller may try again (`until_settled`). Of two rows with one key, the second is a replay of the
    first. A job whose id is there already is a replay of itself: a plugin may submit it twice. A row that
    Postgres refuses fails alone. Other outcomes: IdempotencyKeyReused, StoreUnavailable.
    """
    outcomes: list[Inserted | HeadraceError] = []
    specs, texts = list[JobSpec](), list[str]()
    size_bytes = 0
    for spec, candidate in rows:
        text = _encode(row_of(spec, candidate.queue, candidate.reason))
        size_bytes += len(text)
        if specs and (size_bytes > BATCH_BYTES or len(specs) == BATCH_ROWS):
            outcomes += _insert(store, specs, texts)
            specs, texts, size_bytes = [], [], len(text)
        specs.append(spec)
        texts.append(text)
    return outcomes + _insert(store, specs, texts) if specs else outcomes


def _insert(store: Store, specs: Sequence[JobSpec], texts: Sequence[str]) -> list[Inserted | HeadraceError]:
    """Args: texts: the JSON object of each job, for the statement."""
    given = f"[{','.join(texts)}]"
    try:
        inserted = _INSERT.run(store, given=given, key_ttl=IDEMPOTENCY_TTL)
    except StoreUnavailable as error:
        return [error] * len(specs)
    except DBAPIError as error:
        if len(specs) == 1:
            if sqlstate(error) == _UNIQUE_VIOLATION:
                return [Inserted(specs[0].id, None)]
            # Without its cause: the driver's text quotes the row, which has the prompt.
            return [HeadraceError(f"Postgres refused the job: {message_of(error)}")]
        # One bad row fails the whole statement; halving finds it in a few steps.
        half = len(specs) // 2
        first = _insert(store, specs[:half], texts[:half])
        return first + _insert(store, specs[half:], texts[half:])
    start_by: dict[UUID, datetime] = {row.id: row.start_by for row in inserted}
    others = [spec for spec in specs if spec.id not in start_by]
    outcomes = _settle(store, others) if others else {}
    return [outcomes.get(spec.id) or Inserted(spec.id, start_by[spec.id]) for spec in specs]


def _settle(store: Store, specs: Sequence[JobSpec]) -> dict[UUID, Inserted | HeadraceError]:
    """The outcomes, by job id, of jobs whose Idempotency-Key was taken already."""
    keyed = [(spec, spec.idempotency) for spec in specs if spec.idempotency]
    try:
        with store.autocommit() as db:
            found = find_replays(db, [(spec.app_id, idempotency.key) for spec, idempotency in keyed])
    except StoreUnavailable as error:
        # Only these fail: the other jobs of the batch are already durable.
        return {spec.id: error for spec in specs}
    outcomes: dict[UUID, Inserted | HeadraceError] = {}
    for spec, idempotency in keyed:
        job_id, request_hash = found.get((spec.app_id, idempotency.key), (None, b""))
        if job_id is None:
            outcomes[spec.id] = IdempotencyInProgress()
        else:
            outcomes[spec.id] = Inserted(job_id, None) if request_hash == idempotency.request_hash else key_reused()
    return outcomes


def row_of(spec: JobSpec, queue: str, reason: str) -> dict[str, object]:
    """The JSON object of one job in its queue, as `sql/insert.sql` and its like read it. A missing column is NULL."""
    messages = stored_messages(spec.messages)
    return {
        **_rare(spec),
        "id": str(spec.id),
        "app_id": str(spec.app_id),
        "state": JobState.QUEUED if spec.not_before is None else JobState.WAITING,
        "lane": spec.lane,
        "pool": spec.pool,
        "queue": queue,
        "route": route_of(queue),
        "route_reason": reason,
        "overflow": spec.overflow,
        "model_requested": spec.model,
        "rule": spec.rule,
        "shadow": "wanted" if spec.is_shadowed else None,
        "adapter": spec.adapter,
        "end_user": spec.end_user,
        "metadata": dict(spec.metadata),
        "webhook_url": spec.webhook_url,
        "background": spec.background,
        "stream": spec.stream,
        "max_cost_usd": None if spec.max_cost_usd is None else str(spec.max_cost_usd),
        "prompt_tokens": spec.prompt_tokens,
        "max_tokens": spec.sampling.max_tokens,
        "n": None if spec.sampling.n == 1 else spec.sampling.n,
        "max_wait_s": spec.max_wait_s,
        "not_before": None if spec.not_before is None else spec.not_before.isoformat(),
        "finish_by": None if spec.deadline is None else spec.deadline.isoformat(),
        "messages": messages,
        "sampling": stored_sampling(spec.sampling, messages),
    }


def _rare(spec: JobSpec) -> dict[str, object]:
    """The columns that most jobs do without."""
    columns: dict[str, object] = {"cache": "miss"} if spec.is_cache_miss else {}
    if spec.cache_key:
        columns["cache_key"] = _bytes(spec.cache_key)
    if not spec.is_stored:
        columns["is_unstored"] = True
    if spec.idempotency:
        columns |= {"key": spec.idempotency.key, "request_hash": _bytes(spec.idempotency.request_hash)}
    if spec.start_after:
        columns["start_after"] = spec.start_after.isoformat()
    if spec.notes:
        columns["notes"] = dict(spec.notes)
    return columns


def _bytes(value: bytes) -> str:
    return f"\\x{value.hex()}"
