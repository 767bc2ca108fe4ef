"""How Postgres carries the statements of many jobs out: by the jobs' keys, whatever it knows of the tables."""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from uuid import UUID

import pytest
import sqlalchemy as sa

from headrace.domain.ids import new_id
from headrace.domain.queues import Ticket
from headrace.domain.states import JobState
from headrace.store import Store
from headrace.store.attempts.statements import BOOK, CLAIM, FINISH, HOLD, RECORD
from headrace.store.jobs.reading.finding import FIND, FIND_LISTED
from headrace.store.statement import FEW, StatementByMonth

STATEMENTS = {
    **{"claim": CLAIM, "hold": HOLD, "book": BOOK, "record": RECORD, "finish": FINISH[JobState.SUCCEEDED]},
    **{"find": FIND.alone, "find listed": FIND_LISTED.alone},
}
#: Rows that are found by the key of one job.
KEYS = {
    "jobs": {"pk_jobs", "ix_jobs_app_id_id", "ix_jobs_running"},
    "attempts": {"pk_attempts"},
    "job_texts": {"pk_job_texts"},
}
#: Tables with so few rows here that it is right to read them all.
SMALL = {"workers", "ledger"}
#: How often a statement runs, and how many of the runs Postgres plans in any case.
RUNS, PLANNED = 8, 5


class Scan(NamedTuple):
    """How a table is read. Attributes: index: None where it is read from end to end. by: what is looked up in it."""

    table: str
    index: str | None
    by: str

    @property
    def is_by_key(self) -> bool:
        """Whether it reads the rows of the jobs asked for alone, and not, say, those of their month."""
        return self.index in KEYS[self.table] and re.search(r"\b(job_)?id = ", self.by) is not None


def prepare(db: sa.Connection, statement: StatementByMonth, ids: list[UUID]) -> str:
    """Prepare a statement about these jobs. Returns: the command that executes it."""
    literals = {name: "NULL" if value is None else f"'{value}'" for name, value in statement.parameters.items()}
    sql = statement.within(ids[0], len(ids)) % {**literals, "given": "$1", "ids": "$2"}
    db.exec_driver_sql(f"PREPARE tried (json, uuid[]) AS {sql}")
    given = json.dumps([{"job_id": str(job_id), "enqueue_no": 1} for job_id in ids])
    return f"EXECUTE tried ('{given}', '{{{','.join(map(str, ids))}}}')"


def scans(store: Store, statement: StatementByMonth, count: int) -> set[Scan]:
    """How each table is read, if so many jobs are asked for."""
    with store.begin() as db:
        # As a plan that is kept for any parameter, which is what a worker has after a few of them.
        db.exec_driver_sql("SET LOCAL plan_cache_mode = force_generic_plan")
        execute = prepare(db, statement, [new_id()] * count)
        [plan] = db.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {execute}").scalar_one()
        db.exec_driver_sql("DEALLOCATE tried")
        return {Scan(str(whole(db, table)), whole(db, index), by) for table, index, by in of(plan["Plan"])}


def whole(db: sa.Connection, name: str | None) -> str | None:
    """The table or index that this one is a partition of; itself if it is none."""
    parent = sa.text("SELECT inhparent::regclass::text FROM pg_inherits WHERE inhrelid = CAST(:name AS regclass)")
    return None if name is None else db.scalar(parent, {"name": name}) or name


def of(node: dict[str, Any]) -> list[Scan]:
    is_scan = "Scan" in node["Node Type"] and "Relation Name" in node
    found = [Scan(node["Relation Name"], node.get("Index Name"), node.get("Index Cond", ""))] if is_scan else []
    return found + [each for child in node.get("Plans", ()) for each in of(child)]


def grow(store: Store, queued: Callable[..., Ticket]) -> None:
    """Add thousands of jobs, each with an attempt."""
    job_id = queued().job_id
    with store.begin() as db:
        columns = ", ".join(column["name"] for column in sa.inspect(db).get_columns("jobs") if column["name"] != "id")
        many = (
            f"INSERT INTO jobs (id, {columns})"
            f" SELECT overlay(gen_random_uuid()::text PLACING '0190' FROM 1)::uuid, {columns}"
            " FROM jobs, generate_series(1, 5000)"
        )
        db.execute(sa.text(many))
        texts = "INSERT INTO job_texts SELECT j.id, messages, sampling FROM jobs j, job_texts WHERE j.id <> :id"
        db.execute(sa.text(texts), {"id": job_id})
        tries = (
            "INSERT INTO attempts (job_id, number, worker_id, engine, started_at) SELECT id, 1, id, '', now() FROM jobs"
        )
        db.execute(sa.text(tries))


def analyze(engine: sa.Engine) -> None:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as db:
        db.execute(sa.text("ANALYZE"))


@pytest.fixture
def _young_tables(engine: sa.Engine) -> Iterator[None]:
    """Of which Postgres knows nothing yet; and what it learns of them here, it forgets."""
    truncate = sa.text("TRUNCATE jobs, job_texts, attempts CASCADE")
    with engine.begin() as db:
        db.execute(truncate)
    yield
    with engine.begin() as db:
        db.execute(truncate)


@pytest.mark.usefixtures("_young_tables")
@pytest.mark.parametrize("statement", STATEMENTS.values(), ids=STATEMENTS)
def test_jobs_are_looked_up_by_their_keys_while_tables_are_young_and_when_they_have_grown(
    store: Store, engine: sa.Engine, queued: Callable[..., Ticket], statement: StatementByMonth
) -> None:
    def check() -> None:
        for scan in scans(store, statement, 1) | scans(store, statement, FEW + 1):
            assert scan.table in SMALL or scan.is_by_key, scan

    check()
    grow(store, queued)
    check()
    analyze(engine)
    check()


@pytest.mark.usefixtures("_young_tables")
@pytest.mark.parametrize("count", [1, FEW, FEW + 1])
@pytest.mark.parametrize("statement", STATEMENTS.values(), ids=STATEMENTS)
def test_a_statement_about_few_jobs_is_planned_once(
    store: Store, engine: sa.Engine, queued: Callable[..., Ticket], statement: StatementByMonth, count: int
) -> None:
    """To plan it takes longer than to run it for few jobs. Postgres plans the first five runs, and then chooses."""
    grow(store, queued)
    analyze(engine)
    with store.begin() as db:
        ids = db.exec_driver_sql("SELECT id FROM jobs ORDER BY id LIMIT %s", (count,)).scalars().all()
        execute = prepare(db, statement, [*ids])
        for _ in range(RUNS):
            db.exec_driver_sql(f"EXPLAIN {execute}")
        kept = db.exec_driver_sql("SELECT generic_plans FROM pg_prepared_statements WHERE name = 'tried'").scalar_one()
        db.exec_driver_sql("DEALLOCATE tried")
    assert kept == RUNS - PLANNED
