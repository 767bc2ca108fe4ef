"""Figures of the caches for operators: what was served and saved, what was tried, and what is stored."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Row

from headrace.domain.ids import oldest_id
from headrace.store.fleet.observations import oldest_entry

#: How far the clock that made a job's id may be off.
CLOCKS_DIFFER = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class ServedJobs:
    """Jobs that were given another job's answer, of one pool and kind.

    Attributes:
        cache: `hit`, `shared` or `semantic`.
    """

    pool: str
    cache: str
    jobs: int
    saved_usd: Decimal


def served(db: Connection, since: datetime, until: datetime) -> list[ServedJobs]:
    """The jobs whose bills were booked after `since`, up to `until`."""
    given = {"after": oldest_entry(db, since), "since": since, "until": until}
    return [ServedJobs(**row._mapping) for row in db.execute(_SERVED, given)]


def saved(db: Connection, since: datetime) -> Sequence[Row[Any]]:
    """What the caches did for the jobs that were accepted since then and for which they were searched, by app and pool.

    Returns: rows of `_SAVED`. `share`: the jobs that were given an answer. `saved_usd`: what those answers have cost.
    """
    return db.execute(_SAVED, {"oldest": oldest_id(since - CLOCKS_DIFFER), "since": since}).all()


def learned(db: Connection, since: datetime) -> Sequence[Row[Any]]:
    """What the semantic cache learned from the jobs that were looked up since then, by app and pool.

    Returns: rows of `_LEARNED`. `entries`: as of now. `tries`: jobs that ran to test an entry without trust, and whose
    answers were compared. `rechecks`: the same of entries that may serve, or would if the pool did not only count.
    `error_share`: how often a served answer is wrong, by the rechecks; None if none was compared.
    """
    return db.execute(_LEARNED, {"since": since}).all()


def entries_of_pools(db: Connection) -> dict[str, int]:
    """The entries of each pool that has any."""
    return {row.pool: row.entries for row in db.execute(_ENTRIES)}


_SERVED = sa.text(
    """
    SELECT l.pool, j.cache, count(*) AS jobs, coalesce(sum(l.saved_usd), 0) AS saved_usd
    FROM ledger l JOIN jobs j ON j.id = l.job_id
    WHERE l.id > :after AND l.at > :since AND l.at <= :until AND l.kind = 'cache' AND j.cache IS NOT NULL
    GROUP BY l.pool, j.cache
    """
)
_SAVED = sa.text(
    """
    SELECT a.name AS app, j.pool,
           count(*) FILTER (WHERE j.cache = 'hit') AS hits,
           count(*) FILTER (WHERE j.cache = 'shared') AS shared,
           count(*) FILTER (WHERE j.cache = 'semantic') AS semantic,
           count(*) FILTER (WHERE j.cache = 'miss') AS misses,
           count(*) FILTER (WHERE j.cache <> 'miss') / count(*)::float8 AS share,
           coalesce(sum(l.saved_usd), 0) AS saved_usd
    FROM jobs j
    JOIN apps a ON a.id = j.app_id
    LEFT JOIN ledger l ON l.job_id = j.id AND l.kind = 'cache'
    WHERE j.id >= :oldest AND j.created_at >= :since AND j.cache IS NOT NULL
    GROUP BY a.name, j.pool
    ORDER BY saved_usd DESC, a.name, j.pool
    """
)
_LEARNED = sa.text(
    """
    WITH stored AS (SELECT app_id, pool, count(*) AS entries FROM cache_entries GROUP BY app_id, pool),
    matched AS (
        SELECT app_id, pool,
               count(*) FILTER (WHERE kind = 'served') AS served,
               count(is_right) FILTER (WHERE kind = 'try') AS tries,
               count(*) FILTER (WHERE kind = 'try' AND NOT is_right) AS wrong_tries,
               count(is_right) FILTER (WHERE kind IN ('recheck', 'shadow')) AS rechecks,
               count(*) FILTER (WHERE kind IN ('recheck', 'shadow') AND NOT is_right) AS wrong_rechecks
        FROM cache_matches WHERE at >= :since GROUP BY app_id, pool
    )
    SELECT a.name AS app, pool, coalesce(s.entries, 0) AS entries,
           coalesce(m.served, 0) AS served,
           coalesce(m.tries, 0) AS tries, coalesce(m.wrong_tries, 0) AS wrong_tries,
           coalesce(m.rechecks, 0) AS rechecks, coalesce(m.wrong_rechecks, 0) AS wrong_rechecks,
           m.wrong_rechecks / nullif(m.rechecks, 0)::float8 AS error_share
    FROM stored s FULL JOIN matched m USING (app_id, pool) JOIN apps a ON a.id = app_id
    ORDER BY served DESC, a.name, pool
    """
)
_ENTRIES = sa.text("SELECT pool, count(*) AS entries FROM cache_entries GROUP BY pool")
