"""The semantic cache: the questions of queued jobs, the entries that match them, and jobs that end with their answers.

A search is for the most alike questions of one app and scope. The guard lets few entries serve a question, and an index
finds these by their fingerprints. So the search compares few embeddings, and takes no longer where an app has many
entries. No index of vectors would be as exact.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection, Row, Select, Update
from sqlalchemy.dialects.postgresql import ARRAY, insert

from headrace.domain.prompts import Message, Sampling
from headrace.domain.prompts.payloads import read_payload
from headrace.domain.queues import Overflow, Ticket
from headrace.domain.states import JobState
from headrace.policies.caching import CANDIDATES, LEAST_SIMILARITY, CachedAnswer
from headrace.policies.reuse.bound import MAX_TRIES, Try
from headrace.store.bad_rows import BadRows
from headrace.store.cache import exact_cache
from headrace.store.cache.exact_cache import serves
from headrace.store.sql import few, is_one_of, rows_sent
from headrace.store.states import moving
from headrace.tables import apps, cache_entries, job_texts, jobs


@dataclass(frozen=True, slots=True)
class SemanticQuestion:
    """A job that has an answer of its own, or may yet get one.

    Attributes:
        cache_s, max_error: its app's own settings, as in `App`.
        waits: True while the job waits for its first start, and may be served.
    """

    job_id: UUID
    app_id: UUID
    pool: str
    model: str
    adapter: str | None
    messages: tuple[Message, ...]
    sampling: Sampling
    overflow: Overflow
    cache_s: int | None
    max_error: float | None
    waits: bool


#: The states of such a job.
_OPEN = (JobState.QUEUED, JobState.RUNNING, JobState.WAITING, JobState.SUCCEEDED)
#: A job that has started may have readers of a part of its own answer.
WAITS_FOR_ITS_START = sa.and_(jobs.c.started_at.is_(None), jobs.c.cancel_requested_at.is_(None))


def read_questions(db: Connection, job_ids: Sequence[UUID]) -> list[SemanticQuestion]:
    """The jobs that may become entries: neither failed, nor given another job's answer.

    Leaves out, and logs, those whose prompts cannot be read.
    """
    these = is_one_of(jobs.c.id, job_ids)
    statement: sa.Select[Any] = (
        sa.select(
            *(jobs.c[name] for name in ("id", "app_id", "pool", "model_requested", "adapter", "overflow")),
            *(apps.c.cache_s, apps.c.max_error, job_texts.c.messages, job_texts.c.sampling),
            sa.and_(jobs.c.state + "" == JobState.QUEUED, WAITS_FOR_ITS_START).label("waits"),
        )
        .join(job_texts, job_texts.c.job_id == jobs.c.id)
        .join(apps, apps.c.id == jobs.c.app_id)
        .where(these, (jobs.c.state + "").in_(_OPEN), jobs.c.served_by_job.is_(None))
        .order_by(jobs.c.id)
    )
    return BadRows("look_up").readable(db.execute(statement).all(), _question, len(job_ids))


def _question(row: Row[Any]) -> SemanticQuestion:
    messages, sampling = read_payload(row.messages, row.sampling)
    return SemanticQuestion(
        row.id,
        row.app_id,
        row.pool,
        row.model_requested,
        row.adapter,
        messages,
        sampling,
        Overflow(row.overflow),
        row.cache_s,
        row.max_error,
        row.waits,
    )


#: How many of the entries with a question's fingerprint have their jobs looked up, the most alike first. Entries that
#: are not answered yet are passed over.
NEAREST = 64
#: Entries of one app. Beyond it, those that were unused for longest are deleted.
MOST_ENTRIES = 5_000
#: The most rows that one `forget` deletes for one reason.
FORGET_ROWS = 5_000
#: What to do where the extension is missing.
REMEDY = (
    "Postgres has no extension 'vector' here, so the semantic cache is off. Install pgvector on the server, run "
    "'CREATE EXTENSION vector' in Headrace's database as a superuser, and restart this worker."
)


@dataclass(frozen=True, slots=True)
class Sought:
    """A question whose entries are sought, and which becomes an entry.

    Attributes:
        job_id: the job that asks.
        scope: see `semantic.scope_of`.
        fingerprints: see `semantic.fingerprints_of`.
        keep_s: how old an answer may be, in seconds.
    """

    job_id: UUID
    app_id: UUID
    pool: str
    text: str
    scope: bytes
    fingerprints: Sequence[bytes]
    embedding: Sequence[float]
    keep_s: float
    overflow: Overflow


class _Vector(sa.types.UserDefinedType[Any]):
    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "vector"


def has_vectors(db: Connection) -> bool:
    return db.scalar(sa.text("SELECT to_regtype('vector') IS NOT NULL")) is True


def nearest(db: Connection, sought: Sequence[Sought]) -> dict[UUID, list[CachedAnswer]]:
    """The entries that may serve each job, the most alike first; `CANDIDATES` of each at most."""
    rows = [_sought_row(each) for each in sought]
    found: dict[UUID, list[Any]] = {}
    for row in db.execute(_nearest(), {"rows": rows}):
        of_job = found.setdefault(row.id, [])
        if len(of_job) < CANDIDATES:
            of_job.append(row)
    tried = _tries(db, {row.job_id for of_job in found.values() for row in of_job})
    return {
        job_id: [CachedAnswer(row.job_id, row.question, row.similarity, tried.get(row.job_id, ())) for row in of_job]
        for job_id, of_job in found.items()
    }


def _sought_row(sought: Sought) -> dict[str, object]:
    return {
        "id": str(sought.job_id),
        "app_id": str(sought.app_id),
        "fingerprints": [f"\\x{each.hex()}" for each in sought.fingerprints],
        "embedding": list(sought.embedding),
        "keep_s": sought.keep_s,
        "overflow": sought.overflow,
    }


@cache
def _nearest() -> Select[Any]:
    columns: list[sa.ColumnClause[Any]] = [sa.column(name, sa.Uuid) for name in ("id", "app_id")]
    columns += [sa.column("fingerprints", ARRAY(sa.LargeBinary)), sa.column("embedding", _Vector)]
    columns += [sa.column("keep_s", sa.Double), sa.column("overflow", sa.Text)]
    # Read as vectors once for each job, not once for each entry.
    given = few(rows_sent("rows", columns)).cte("given").prefix_with("MATERIALIZED")
    entry = cache_entries.c
    distance = sa.func.cosine_distance(sa.cast(entry.embedding, _Vector), given.c.embedding, type_=sa.Float)
    near = (
        sa.select(entry.job_id, distance.label("distance"))
        # Each is of one scope.
        .where(
            entry.fingerprints.overlap(given.c.fingerprints), entry.app_id == given.c.app_id, entry.job_id != given.c.id
        )
        # By its name, so that it is computed once for each entry.
        .order_by(sa.asc("distance"))
        .limit(NEAREST)
        .lateral("near")
    )
    question = job_texts.c.messages[-1]["content"].astext.label("question")
    return (
        sa.select(given.c.id, near.c.job_id, (1.0 - near.c.distance).label("similarity"), question)
        .select_from(given)
        .join(near, sa.true())
        # The app is compared again in the job's own row.
        .join(jobs, sa.and_(jobs.c.id == near.c.job_id, serves(given.c)))
        .join(job_texts, sa.and_(job_texts.c.job_id == jobs.c.id, job_texts.c.answer.is_not(None)))
        .where(near.c.distance <= 1.0 - LEAST_SIMILARITY)
        .order_by(given.c.id, near.c.distance, near.c.job_id)
    )


_TRIES = sa.text(
    """
    SELECT entry.id, tried.similarity, tried.is_right
    FROM unnest(CAST(:ids AS uuid[])) AS entry (id)
    CROSS JOIN LATERAL (
        SELECT similarity, is_right, at FROM cache_matches
        WHERE entry_id = entry.id AND is_right IS NOT NULL ORDER BY at DESC LIMIT :most
    ) AS tried
    ORDER BY tried.at
    """
)


def _tries(db: Connection, job_ids: set[UUID]) -> Mapping[UUID, tuple[Try, ...]]:
    """The newest tries of each entry, oldest first."""
    found: dict[UUID, list[Try]] = {}
    if job_ids:
        for row in db.execute(_TRIES, {"ids": list(job_ids), "most": MAX_TRIES}):
            found.setdefault(row.id, []).append(Try(row.similarity, row.is_right))
    return {job_id: tuple(tries) for job_id, tries in found.items()}


def add_entries(db: Connection, made: Sequence[Sought]) -> None:
    """Make entries of questions that have none. They serve once their jobs are answered.

    A job whose texts were erased meanwhile gets none.
    """
    if not made:
        return
    lock = sa.select(job_texts.c.job_id).where(is_one_of(job_texts.c.job_id, [each.job_id for each in made]))
    there = set(db.scalars(lock.with_for_update(key_share=True, read=True)))
    rows = [
        {
            "job_id": each.job_id,
            "app_id": each.app_id,
            "pool": each.pool,
            "scope": each.scope,
            "digest": hashlib.sha256(each.text.encode()).digest(),
            "fingerprints": list(each.fingerprints),
            "embedding": list(each.embedding),
        }
        for each in made
        if each.job_id in there
    ]
    if rows:
        db.execute(insert(cache_entries).on_conflict_do_nothing(), rows)


def remove_entries(db: Connection, job_ids: Sequence[UUID]) -> None:
    db.execute(sa.delete(cache_entries).where(is_one_of(cache_entries.c.job_id, job_ids)))


#: The job is looked up by its key for each entry: with a join, a plan could scan `jobs`. Entries go by their physical
#: position: see `headrace.store.sql.delete_chosen`.
_TOO_OLD = sa.text(
    """
    DELETE FROM cache_entries WHERE ctid = ANY(ARRAY(
        SELECT e.ctid FROM cache_entries e JOIN apps a ON a.id = e.app_id
        LEFT JOIN json_to_recordset(CAST(:pools AS json)) AS p (name text, keep_s float8) ON p.name = e.pool
        WHERE coalesce(
            (
                SELECT coalesce(j.ended_at, now()) FROM jobs j
                WHERE j.id = e.job_id AND j.erased_at IS NULL AND j.state NOT IN ('failed', 'cancelled', 'expired')
            ),
            '-infinity'
        ) <= now() - coalesce(a.cache_s, p.keep_s, 0) * interval '1 s'
        LIMIT :most
    ))
    """
)
_TOO_MANY = sa.text(
    """
    DELETE FROM cache_entries WHERE ctid = ANY(ARRAY(
        SELECT position FROM (
            SELECT ctid AS position, row_number() OVER (PARTITION BY app_id ORDER BY used_at DESC) AS place
            FROM cache_entries
            WHERE app_id IN (SELECT app_id FROM cache_entries GROUP BY app_id HAVING count(*) > :keep)
        ) AS placed
        WHERE place > :keep LIMIT :most
    ))
    """
)


def forget_entries(db: Connection, keep_s: Mapping[str, float]) -> int:
    """Delete entries that are too old, serve nothing any more, or are too many for their app; returns how many.

    Args: keep_s: for how many seconds an answer of each pool with a semantic cache serves.
    """
    pools = json.dumps([{"name": name, "keep_s": seconds} for name, seconds in keep_s.items()])
    old = db.execute(_TOO_OLD, {"pools": pools, "most": FORGET_ROWS}).rowcount
    return old + db.execute(_TOO_MANY, {"keep": MOST_ENTRIES, "most": FORGET_ROWS}).rowcount


_SOURCE = jobs.alias("source")
#: Columns that the job takes over from the one whose answer it is given. Its prompt is its own.
_TAKEN = ("model_served", "finish_reason", "output_tokens", "reasoning_tokens")


@dataclass(frozen=True, slots=True)
class SemanticHit:
    """A queued job, and the job whose answer it is to be given.

    Attributes:
        keep_s: how old that answer may be, in seconds.
    """

    job_id: UUID
    app_id: UUID
    source_id: UUID
    keep_s: float
    overflow: Overflow


@dataclass(frozen=True, slots=True)
class Served:
    """A job that has ended with an answer of the cache."""

    ticket: Ticket
    has_webhook: bool


def serve(db: Connection, hits: Sequence[SemanticHit]) -> list[Served]:
    """End queued jobs with the answers that were found for them, book them, and write their webhooks.

    The compare-and-set is that of a claim: a job that a worker has claimed is left out. So is one whose answer was
    erased, or grew too old, since the search. Call it in one transaction.
    """
    there = exact_cache.hold_answers(db, {hit.source_id for hit in hits})
    rows = [_hit_row(hit) for hit in sorted(hits, key=lambda each: each.job_id) if hit.source_id in there]
    if not rows:
        return []
    moved = db.execute(_serve().returning(jobs), {"rows": rows}).all()
    ended = exact_cache.give_answers(db, moved)
    # It serves no identical job: its answer is another question's.
    these = is_one_of(job_texts.c.job_id, ended)
    db.execute(sa.update(job_texts).where(these).values(cache_key=None))
    return [Served(Ticket.of(row), row.webhook_url is not None) for row in moved]


def _hit_row(hit: SemanticHit) -> dict[str, Any]:
    ids = {"id": str(hit.job_id), "app_id": str(hit.app_id), "source_id": str(hit.source_id)}
    return {**ids, "keep_s": hit.keep_s, "overflow": hit.overflow}


def _serve() -> Update:
    columns = [sa.column(name, sa.Uuid) for name in ("id", "app_id", "source_id")]
    given = few(rows_sent("rows", [*columns, sa.column("keep_s", sa.Double), sa.column("overflow", sa.Text)])).cte(
        "given"
    )
    taken: dict[str, Any] = {name: _SOURCE.c[name] for name in _TAKEN}
    return moving(
        [JobState.QUEUED],
        JobState.SUCCEEDED,
        jobs.c.id == given.c.id,
        jobs.c.app_id == given.c.app_id,
        WAITS_FOR_ITS_START,
        jobs.c.start_by > sa.func.now(),
        sa.or_(jobs.c.finish_by.is_(None), jobs.c.finish_by > sa.func.now()),
        _SOURCE.c.id == given.c.source_id,
        serves(given.c, _SOURCE),
        by_key=True,
        cache="semantic",
        served_by_job=given.c.source_id,
        cached_tokens=0,
        **taken,
    )
