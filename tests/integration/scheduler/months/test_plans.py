"""A query for one job reads the month of its id, and no other."""

import json
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from headrace.domain.ids import month_of, new_id
from headrace.domain.queues import Ticket
from headrace.domain.states import JobState
from headrace.store import Store
from headrace.store.jobs import IN_ORDER, find_all, page
from headrace.store.sql import text_of
from headrace.tables import BY_MONTH as TABLES
from tests.integration.headrace.store.test_sql import BY_MONTH

#: What analysts and operators ask of one job.
QUESTIONS = (
    "SELECT * FROM cost_per_request WHERE job_id = '{}'",
    "SELECT * FROM charges WHERE job_id = '{}'",
    "SELECT * FROM ledger WHERE job_id = '{}'",
    "SELECT * FROM attempts WHERE job_id = '{}'",
    "UPDATE jobs SET cancel_requested_at = now() WHERE id = '{}'",
    "DELETE FROM job_texts WHERE job_id = '{}'",
)
PARTITIONED = ("jobs_2", *(f"{table}_" for table in TABLES if table != "jobs"))
#: Tables and indexes of months that this transaction has locked.
_LOCKED_PARTITIONS = sa.text("""
    SELECT c.relname FROM pg_locks JOIN pg_class c ON c.oid = relation
    WHERE pid = pg_backend_pid() AND c.relispartition
""")


@pytest.fixture
def ticket(
    make_until: Callable[[datetime], list[str]], first_until: datetime, queued_in: Callable[..., Ticket], query: Any
) -> Ticket:
    """A job of the third of six months, each of which has some."""
    make_until(first_until + timedelta(days=100))
    tickets = [queued_in(first_until + timedelta(days=days), stream=True) for days in (-1, 1, 40, 70, 100)]
    query("UPDATE jobs SET state = 'running', worker_id = id, attempt = 1")
    query("INSERT INTO attempts (job_id, number, worker_id, engine, started_at) SELECT id, 1, id, '', now() FROM jobs")
    return tickets[2]


def read_tables(node: dict[str, Any]) -> Iterator[str]:
    """The tables that a plan has really read."""
    if "Relation Name" in node and node["Node Type"] != "ModifyTable" and node["Actual Loops"] > 0:
        yield node["Relation Name"]
    for child in node.get("Plans", ()):
        yield from read_tables(child)


def explained(store: Store, sql: str) -> set[str]:
    """The partitions that a statement reads; it is undone."""
    with store.begin() as db:
        outer = db.begin_nested()
        [plan] = db.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}".replace("%", "%%")).scalar_one()
        outer.rollback()
    return {name for name in read_tables(plan["Plan"]) if name.startswith(PARTITIONED)}


@pytest.mark.parametrize("mode", ["force_generic_plan", "force_custom_plan"])
@pytest.mark.parametrize("statement", BY_MONTH)
def test_a_statement_of_one_job_reads_its_month_alone(store: Store, ticket: Ticket, statement: str, mode: str) -> None:
    given = {"job_id": ticket.job_id, "id": ticket.job_id, "app_id": ticket.app_id, "worker_id": ticket.job_id}
    given |= {"attempt": 1, "enqueue_no": 1, "kind": "compute", "usd": 1, "estimated": False, "charged_usd": 1}
    given |= {"prompt_tokens": 1, "cached_tokens": 0, "output_tokens": 1, "preemptions": 0, "outcome": "succeeded"}
    given |= {"engine": "simulator", "answer": "An answer."}
    with store.begin() as db:
        if statement == "claim":
            db.execute(sa.text("UPDATE jobs SET state = 'queued', worker_id = NULL, attempt = 0"))
            db.execute(sa.text("DELETE FROM attempts"))
            worker = "INSERT INTO workers (id, name, host_id, pool, engine, model, max_running, lease_until)"
            db.execute(
                sa.text(f"{worker} VALUES (:id, '', '', 'chat', '', '', 1, now() + interval '1 day')"),
                {"id": ticket.job_id},
            )
    with store.begin() as db:
        db.exec_driver_sql(f"SET LOCAL plan_cache_mode = {mode}")
        name, literals = BY_MONTH[statement]
        sql = text_of(name, month_of(ticket.job_id)) % {**literals, "given": "$1"}
        db.exec_driver_sql(f"PREPARE tried (json) AS {sql}")
        run = f"EXECUTE tried ('{json.dumps([given], default=str)}')"
        [plan] = db.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {run}").scalar_one()
        locked = set(db.scalars(_LOCKED_PARTITIONS))
        db.exec_driver_sql("DEALLOCATE tried")
    read = {name for name in read_tables(plan["Plan"]) if name.startswith(PARTITIONED)}
    [(home,)] = [tuple(row) for row in _homes(store, ticket)]
    assert {name.rpartition("jobs_")[2] for name in read if name.startswith("jobs_")} <= {home}
    assert all(name.endswith(home) for name in read), read
    assert read, "something is read"
    assert locked
    assert all(home in name for name in locked), locked


def _homes(store: Store, ticket: Ticket) -> list[Any]:
    with store.begin() as db:
        sql = sa.text("SELECT replace(tableoid::regclass::text, 'jobs_', '') FROM jobs WHERE id = :id")
        return list(db.execute(sql, {"id": ticket.job_id}))


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_about_one_job_reads_its_month_alone(store: Store, ticket: Ticket, question: str) -> None:
    read = explained(store, question.format(ticket.job_id))
    [(home,)] = [tuple(row) for row in _homes(store, ticket)]
    assert read
    assert all(name.endswith(home) for name in read), read


def nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A node of a plan, and all below it."""
    yield node
    for child in node.get("Plans", ()):
        yield from nodes(child)


@pytest.mark.parametrize("state", [None, JobState.QUEUED])
def test_a_page_of_an_app_that_statistics_do_not_know_sorts_nothing(
    store: Store, ticket: Ticket, query: Any, state: JobState | None
) -> None:
    columns = "app_id, lane, pool, queue, route, route_reason, overflow, model_requested, background, prompt_tokens"
    query(
        f"INSERT INTO jobs (id, state, {columns}, max_tokens, start_by)"
        f" SELECT overlay(gen_random_uuid()::text PLACING left(id::text, 11) FROM 1)::uuid, 'queued', {columns}, 1,"
        " now()"
        " FROM jobs, generate_series(1, 2000)"
    )
    query("ANALYZE jobs")
    query("INSERT INTO apps (id, name, webhook_secret) VALUES (:id, 'new', 'x')", id=ticket.job_id)
    query("UPDATE jobs SET app_id = :id", id=ticket.job_id)
    with store.begin() as db:
        db.exec_driver_sql(IN_ORDER)
        dialect = db.dialect
        text = page(ticket.job_id, state, None, 21).compile(dialect=dialect, compile_kwargs={"literal_binds": True})
        [plan] = db.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {text}").scalar_one()
    found = list(nodes(plan["Plan"]))
    assert [node["Node Type"] for node in found if "Sort" in node["Node Type"]] == []
    assert sum(node.get("Actual Rows", 0) for node in found if "Relation Name" in node) <= 21 + len(found)


def test_an_unknown_job_of_no_month_is_just_not_found(store: Store, ticket: Ticket) -> None:
    with store.begin() as db:
        beyond = UUID(int=new_id().int | 0xFFFF << 112)
        for job_id in (beyond, UUID(int=0), UUID(int=2**128 - 1)):
            assert find_all(db, [(ticket.app_id, job_id)]) == {}
