"""Entries of the semantic cache: the search for the most alike questions of one app and scope, and their end.

The guard lets few entries serve a question, and an index finds these by their fingerprints. So the search compares few
embeddings, and takes no longer where an app has many entries. No index of vectors would be as exact.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection, Select
from sqlalchemy.dialects.postgresql import ARRAY, insert

from headrace.domain.queues import Overflow
from headrace.policies.caching.semantic import CANDIDATES, LEAST_SIMILARITY, Candidate
from headrace.policies.reuse.bound import MAX_TRIES, Try
from headrace.store.jobs.cached_answers import serves
from headrace.store.rows import few, rows_sent
from headrace.tables import cache_entries, job_texts, jobs

#: Of the entries with a question's fingerprint, the most alike whose jobs are looked up: those that are not answered
#: yet are passed over.
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
    """pgvector's type."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        """Its name in SQL."""
        return "vector"


def has_vectors(db: Connection) -> bool:
    """Whether the database has pgvector."""
    return db.scalar(sa.text("SELECT to_regtype('vector') IS NOT NULL")) is True


def nearest(db: Connection, sought: Sequence[Sought]) -> dict[UUID, list[Candidate]]:
    """The entries that may serve each job, the most alike first; `CANDIDATES` of each at most."""
    rows = [_row(each) for each in sought]
    found: dict[UUID, list[Any]] = {}
    for row in db.execute(_nearest(), {"rows": rows}):
        of_job = found.setdefault(row.id, [])
        if len(of_job) < CANDIDATES:
            of_job.append(row)
    tried = _tries(db, {row.job_id for of_job in found.values() for row in of_job})
    return {
        job_id: [Candidate(row.job_id, row.question, row.similarity, tried.get(row.job_id, ())) for row in of_job]
        for job_id, of_job in found.items()
    }


def _row(sought: Sought) -> dict[str, object]:
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


def add(db: Connection, made: Sequence[Sought]) -> None:
    """Make entries of questions that have none. They serve once their jobs are answered.

    A job whose texts were erased meanwhile gets none.
    """
    if not made:
        return
    lock = sa.select(job_texts.c.job_id).where(_is_one_of(job_texts.c.job_id, [each.job_id for each in made]))
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


def remove(db: Connection, job_ids: Sequence[UUID]) -> None:
    """Delete the entries of these jobs."""
    db.execute(sa.delete(cache_entries).where(_is_one_of(cache_entries.c.job_id, job_ids)))


#: The job is looked up by its key for each entry: with a join, a plan could scan `jobs`.
_TOO_OLD = sa.text(
    """
    DELETE FROM cache_entries WHERE job_id IN (
        SELECT e.job_id FROM cache_entries e JOIN apps a ON a.id = e.app_id
        LEFT JOIN json_to_recordset(CAST(:pools AS json)) AS p (name text, keep_s float8) ON p.name = e.pool
        WHERE coalesce(
            (
                SELECT coalesce(j.ended_at, now()) FROM jobs j
                WHERE j.id = e.job_id AND j.erased_at IS NULL AND j.state NOT IN ('failed', 'cancelled', 'expired')
            ),
            '-infinity'
        ) <= now() - coalesce(a.cache_s, p.keep_s, 0) * interval '1 s'
        LIMIT :most
    )
    """
)
_TOO_MANY = sa.text(
    """
    DELETE FROM cache_entries WHERE job_id IN (
        SELECT job_id FROM (
            SELECT job_id, row_number() OVER (PARTITION BY app_id ORDER BY used_at DESC) AS place
            FROM cache_entries
            WHERE app_id IN (SELECT app_id FROM cache_entries GROUP BY app_id HAVING count(*) > :keep)
        ) AS placed
        WHERE place > :keep LIMIT :most
    )
    """
)


def forget(db: Connection, keep_s: Mapping[str, float]) -> int:
    """Delete entries that are too old, serve nothing any more, or are too many for their app; returns how many.

    Args: keep_s: for how many seconds an answer of each pool with a semantic cache serves.
    """
    pools = json.dumps([{"name": name, "keep_s": seconds} for name, seconds in keep_s.items()])
    old = db.execute(_TOO_OLD, {"pools": pools, "most": FORGET_ROWS}).rowcount
    return old + db.execute(_TOO_MANY, {"keep": MOST_ENTRIES, "most": FORGET_ROWS}).rowcount


def _is_one_of(column: sa.Column[UUID], job_ids: Sequence[UUID]) -> sa.ColumnElement[bool]:
    return column == sa.any_(sa.cast(list(job_ids), ARRAY(sa.Uuid)))
