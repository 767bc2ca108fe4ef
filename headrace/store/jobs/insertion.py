"""Accepting jobs: a batch is one statement and one commit. Knows no HTTP and no queue.

The main cost of a durable accept is the commit's fsync. A batch of a few requests shares it.
"""

import json
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy.exc import DBAPIError

from headrace.domain.jobs import Inserted, JobSpec
from headrace.domain.prompts.payloads import stored_messages, stored_sampling
from headrace.domain.queues import Candidate
from headrace.domain.states import JobState
from headrace.errors import HeadraceError, IdempotencyInProgress, StoreUnavailable
from headrace.policies.routing import route_of
from headrace.store.bad_rows import told
from headrace.store.jobs.idempotency import IDEMPOTENCY_TTL, find_replays, key_reused
from headrace.store.session import Store
from headrace.store.sql import Statement

#: Bounds of one statement. The commit is amortised at 64 rows already; larger batches only add waiting.
BATCH_ROWS = 256
BATCH_BYTES = 16 * 1024 * 1024

_INSERT = Statement("insert")
_encode = json.JSONEncoder(separators=(",", ":")).encode


def insert_batch(
    store: Store, rows: Sequence[tuple[JobSpec, Candidate]], *, is_before_disk: bool = False
) -> list[Inserted | HeadraceError]:
    """Insert jobs as `queued`. Returns once they are durable, with the outcome of each, in order.

    Args: is_before_disk: returns a moment earlier; new jobs are durable after `Store.wait_for_disk`.

    It never waits for another transaction's Idempotency-Key: such a row's outcome is IdempotencyInProgress at once, and
    the caller may try again (`idempotency.until_settled`). Of two rows with one key, the second is a replay of the
    first. A row that Postgres refuses fails alone. Other outcomes: IdempotencyKeyReused, StoreUnavailable.
    """
    outcomes: list[Inserted | HeadraceError] = []
    specs, texts = list[JobSpec](), list[str]()
    size_bytes = 0
    for spec, candidate in rows:
        text = _encode(row_of(spec, candidate.queue, candidate.reason))
        size_bytes += len(text)
        if specs and (size_bytes > BATCH_BYTES or len(specs) == BATCH_ROWS):
            outcomes += _insert(store, specs, texts, is_before_disk)
            specs, texts, size_bytes = [], [], len(text)
        specs.append(spec)
        texts.append(text)
    return outcomes + _insert(store, specs, texts, is_before_disk) if specs else outcomes


def _insert(
    store: Store, specs: Sequence[JobSpec], texts: Sequence[str], is_before_disk: bool
) -> list[Inserted | HeadraceError]:
    """Args: texts: the JSON object of each job, for the statement."""
    given = f"[{','.join(texts)}]"
    try:
        inserted = _INSERT.run(store, given=given, key_ttl=IDEMPOTENCY_TTL, is_before_disk=is_before_disk)
    except StoreUnavailable as error:
        return [error] * len(specs)
    except DBAPIError as error:
        if len(specs) == 1:
            return [_not_stored(error)]
        # One bad row fails the whole statement; halving finds it in a few steps.
        half = len(specs) // 2
        first = _insert(store, specs[:half], texts[:half], is_before_disk)
        return first + _insert(store, specs[half:], texts[half:], is_before_disk)
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


def _not_stored(error: DBAPIError) -> HeadraceError:
    """The error of a refused row, without its cause: the driver's text quotes the row, which has the prompt."""
    return HeadraceError(f"Postgres refused the job: {told(error)}")


def row_of(spec: JobSpec, queue: str, reason: str) -> dict[str, object]:
    """The JSON object of one job in its queue, as `sql/insert.sql` and its like read it. A missing column is NULL."""
    idempotency = spec.idempotency
    cached = {"cache": "miss"} if spec.is_cache_miss else {}
    cached |= {"cache_key": _bytes(spec.cache_key)} if spec.cache_key else {}
    unstored = {} if spec.is_stored else {"is_unstored": True}
    messages = stored_messages(spec.messages)
    return {
        **cached,
        **unstored,
        "id": str(spec.id),
        "app_id": str(spec.app_id),
        "state": JobState.QUEUED,
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
        "finish_by": None if spec.deadline is None else spec.deadline.isoformat(),
        "messages": messages,
        "sampling": stored_sampling(spec.sampling, messages),
        "key": idempotency and idempotency.key,
        "request_hash": idempotency and _bytes(idempotency.request_hash),
    }


def _bytes(value: bytes) -> str:
    return f"\\x{value.hex()}"
