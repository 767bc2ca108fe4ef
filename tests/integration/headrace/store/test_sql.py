"""The hot statements: psql takes each file, and Postgres finds jobs by their keys, whatever it knows of the tables."""

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from uuid import UUID

import pytest
import sqlalchemy as sa

from headrace.config import PROJECT_ROOT, Settings
from headrace.domain.ids import month_of, new_id
from headrace.domain.queues import Ticket
from headrace.stack.postgres import bin_folder
from headrace.store import Store
from headrace.store.sql import text_of

FOLDER = PROJECT_ROOT / "headrace" / "store" / "sql"
#: The statements of the jobs of one month: the file, and its parameters as literals.
BY_MONTH: dict[str, tuple[str, dict[str, str]]] = {
    "claim": ("claim", {"is_before_disk": "'f'"}),
    "hold": ("hold", {}),
    "record": ("record", {}),
    "finish": ("finish", {"state": "'succeeded'"}),
    "find": ("find", {"is_listed": "'f'", "has_tools": "'t'"}),
    "find listed": ("find", {"is_listed": "'t'", "has_tools": "'t'"}),
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


def prepare(db: sa.Connection, statement: str, ids: list[UUID]) -> str:
    """Prepare a statement about these jobs. Returns: the command that executes it."""
    name, literals = BY_MONTH[statement]
    sql = text_of(name, month_of(ids[0])) % {**literals, "given": "$1"}
    db.exec_driver_sql(f"PREPARE tried (json) AS {sql}")
    given = json.dumps([{"job_id": str(job_id), "enqueue_no": 1} for job_id in ids])
    return f"EXECUTE tried ('{given}')"


def scans(store: Store, statement: str, count: int) -> set[Scan]:
    """How each table is read for this number of jobs."""
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
            f" SELECT overlay(gen_random_uuid()::text PLACING left(id::text, 8) FROM 1)::uuid, {columns}"
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
@pytest.mark.parametrize("statement", BY_MONTH)
def test_jobs_are_looked_up_by_their_keys_while_tables_are_young_and_when_they_have_grown(
    store: Store, engine: sa.Engine, queued: Callable[..., Ticket], statement: str
) -> None:
    def check() -> None:
        for scan in scans(store, statement, 1) | scans(store, statement, 9):
            assert scan.table in SMALL or scan.is_by_key, scan

    check()
    grow(store, queued)
    check()
    analyze(engine)
    check()


@pytest.mark.usefixtures("_young_tables")
@pytest.mark.parametrize("count", [1, 9])
@pytest.mark.parametrize("statement", BY_MONTH)
def test_a_statement_about_few_jobs_is_planned_once(
    store: Store, engine: sa.Engine, queued: Callable[..., Ticket], statement: str, count: int
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


#: A value of each parameter, as psql's \\set takes it.
VALUES = {
    "given": "[]",
    "first_id": UUID(int=0),
    "last_id": UUID(int=2**128 - 1),
    **dict.fromkeys(("is_before_disk", "is_listed", "has_tools", "ready", "draining"), "f"),
    **dict.fromkeys(
        ("apps", "app_counts", "full_apps", "receivers", "receiver_counts", "queues", "times", "ids"), "{}"
    ),
    **dict.fromkeys(("most", "most_bytes", "per_app", "per_receiver", "groups", "running", "lease_s"), 1),
    **{"state": "succeeded", "key_ttl": "24 hours", "until": "now", "after_receiver": ""},
    **dict.fromkeys(("worker_id", "after_app", "batch_id"), UUID(int=0)),
}


def psql(url: str, name: str, values: dict[str, Any]) -> str:
    """What psql prints for a file, pasted after its parameters. The transaction is undone."""
    parameters = sorted(set(re.findall(r":'(\w+)'", (FOLDER / f"{name}.sql").read_text())))
    lines = [
        *(f"\\set {each} '{values[each]}'" for each in parameters),
        "BEGIN;",
        f"\\i {FOLDER / name}.sql",
        "ROLLBACK;",
    ]
    argv = [bin_folder() / "psql", "--no-psqlrc", "--set=ON_ERROR_STOP=1", "--expanded", url]
    ran = subprocess.run(argv, input="\n".join(lines), capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.fixture
def url(settings: Settings) -> str:
    return settings.database_url.replace("+psycopg", "")


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.sql")))
def test_psql_runs_each_file_with_its_parameters_set(store: Store, url: str, name: str) -> None:
    assert psql(url, name, VALUES).startswith("BEGIN\n")


def test_psql_finds_a_job_as_the_product_does(store: Store, url: str, queued: Callable[..., Ticket]) -> None:
    ticket = queued()
    given = json.dumps([{"app_id": str(ticket.app_id), "job_id": str(ticket.job_id)}])
    assert re.search(rf"id +\| {ticket.job_id}\n", psql(url, "find", {**VALUES, "given": given}))
