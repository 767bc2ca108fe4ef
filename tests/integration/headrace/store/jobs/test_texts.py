"""Which texts go, and how Postgres finds the old ones."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from headrace.domain.ids import oldest_id
from headrace.domain.queues import Ticket
from headrace.errors import JobNotEnded, NotFound
from headrace.store import Store
from headrace.store.jobs import texts
from tests.integration.months_of_jobs import make_past_months

#: Jobs as the API makes them, one each ten minutes: the id is a UUIDv7 of the time of acceptance.
PAST = """
    INSERT INTO jobs (id, created_at, ended_at, state, {columns})
    SELECT (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0')
            || '7000800000000000' || lpad(no::text, 4, '0'))::uuid, at, at, 'succeeded', {columns}
    FROM jobs, (SELECT no, now() - make_interval(mins => 10 * no + 5) AS at FROM generate_series(1, 9999) AS no) AS past
"""
#: That long ago, and how many of them are older.
DAYS, OLD = 69, 64


def rows(store: Store, statement: str) -> list[tuple[Any, ...]]:
    with store.begin() as db:
        return [tuple(row) for row in db.execute(sa.text(statement))]


def test_of_an_erased_job_there_is_left_what_it_cost_and_nothing_that_was_said(
    store: Store, queued: Callable[..., Ticket]
) -> None:
    ticket, other = queued(metadata={"order": "17"}), queued()
    with store.begin() as db, pytest.raises(JobNotEnded):
        texts.erase(db, ticket.app_id, ticket.job_id)
    with store.begin() as db:
        end = "state = 'failed', ended_at = now(), error_code = 'rejected', error_message = 'Not this: a prompt'"
        db.execute(sa.text(f"UPDATE jobs SET {end}"))
        texts.erase(db, ticket.app_id, ticket.job_id)
        with pytest.raises(NotFound):
            texts.erase(db, ticket.app_id, ticket.job_id)
    assert rows(store, "SELECT job_id FROM job_texts") == [(other.job_id,)]
    facts = "SELECT metadata, error_code, error_message FROM jobs WHERE erased_at IS NOT NULL"
    assert rows(store, facts) == [({}, "rejected", None)]


def work(db: sa.Connection) -> dict[str, int]:
    """The rows that this connection has read so far: of either table from end to end, and by an index."""
    counts = "pg_partition_root(relid)::text AS relname, sum(seq_tup_read) AS scanned, sum(idx_tup_fetch) AS found"
    tables = "pg_partition_root(relid)::text IN ('jobs', 'job_texts') AND relid <> pg_partition_root(relid)"
    statement = f"SELECT {counts} FROM pg_stat_xact_user_tables WHERE {tables} GROUP BY 1"
    found = db.execute(sa.text(statement)).all()
    return {f"{kind} of {each.relname}": getattr(each, kind) for each in found for kind in ("scanned", "found")}


def test_old_texts_are_found_by_their_keys_and_no_others_are_looked_at(
    store: Store, engine: sa.Engine, queued: Callable[..., Ticket]
) -> None:
    queued()
    with store.begin() as db:
        make_past_months(db, oldest_id(datetime.now(UTC) - timedelta(days=DAYS + 1)))
        given = {"id", "created_at", "ended_at", "state"}
        columns = [column["name"] for column in sa.inspect(db).get_columns("jobs") if column["name"] not in given]
        db.execute(sa.text(PAST.format(columns=", ".join(columns))))
        copied = "INSERT INTO job_texts (job_id, messages, sampling) SELECT j.id, messages, sampling"
        db.execute(sa.text(f"{copied} FROM jobs j, job_texts WHERE j.state = 'succeeded'"))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as db:
        db.execute(sa.text("ANALYZE"))

    def forget() -> tuple[int, dict[str, int]]:
        with store.begin() as db:
            before = work(db)
            erased = texts.forget_old(db, DAYS)
            return erased, {name: count - before[name] for name, count in work(db).items()}

    erased, done = forget()
    assert (erased, done["scanned of jobs"], done["scanned of job_texts"]) == (OLD, 0, 0)
    assert OLD <= done["found of jobs"] <= 4 * OLD
    assert OLD <= done["found of job_texts"] <= 4 * OLD
    # Those that were erased stay in `jobs`, and cost the next sweep nothing, though no statistics tell of it yet.
    erased, done = forget()
    assert done.pop("found of job_texts") <= 1, "the planner itself looks at an index's end"
    assert (erased, set(done.values())) == (0, {0})
