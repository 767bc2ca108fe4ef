"""A statement that runs again and again finds its rows by a partial index, also by a plan that Postgres keeps.

Such a plan serves any parameters. So it can use a partial index only if the words of the index are literals in the
statement; else Postgres reads the table from end to end, or plans each run anew.
"""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import Connection

from headrace.domain.deliveries import Delivery, Terms
from headrace.domain.fleet import WorkerReport
from headrace.domain.ids import new_id
from headrace.store import Store, deliveries
from headrace.store.fleet import decisions, hosts, workers
from tests import one_attempt
from tests.integration.months_of_jobs import with_whole_indexes

#: Rows that the partial indexes leave out, so that another index costs more.
OTHERS = (
    "INSERT INTO deliveries (id, event, url, data, state)"
    " SELECT gen_random_uuid(), 'test', 'https://a.example/', '{}', 'delivered' FROM generate_series(1, 2000)",
    "INSERT INTO decisions (pool, mode, hosts, target, reason, inputs, applied_at)"
    " SELECT 'chat', 'active', 1, 1, 'hold', '{}', now() FROM generate_series(1, 2000)",
    "ANALYZE deliveries, decisions",
)


def renew(db: Connection) -> None:
    workers.renew(db, one_attempt.add_worker(db), 60, WorkerReport(0, ready=True))


def record_gone(db: Connection) -> None:
    host = "receiver.example"
    gone = Delivery(new_id(), None, "test", f"https://{host}/hook", host, (), 1, 0, {}, datetime.now(UTC))
    deliveries.record_gone(db, gone)


IS_PENDING = "ix_deliveries_(pending|receiver)"
CALLS: dict[str, tuple[Callable[[Connection], Any], str]] = {
    "renew a lease": (renew, "ix_jobs_running"),
    "read the fleets": (workers.fleets, "ix_jobs_running"),
    "read the hosts": (lambda db: hosts.work(db, "chat"), "ix_jobs_running"),
    "close decisions": (lambda db: decisions.apply_ordered(db, "chat"), "ix_decisions_open"),
    "pull deliveries": (lambda db: deliveries.pull(db, Terms(1, 1, 1, max_tries=3, lease_s=60)), IS_PENDING),
    "count due deliveries": (lambda db: deliveries.oldest_due(db, 10), IS_PENDING),
    "list failed deliveries": (
        lambda db: deliveries.newest(db, state="failed", app_id=None, limit=10),
        "ix_deliveries_failed",
    ),
    "give up a receiver": (record_gone, IS_PENDING),
}


def generic_plan(db: Connection, sql: str, values: Mapping[str, object]) -> str:
    """How Postgres reads for any parameters of these types. Args: sql, values: as the driver has them."""
    names = dict.fromkeys(re.findall(r"%\((\w+)\)s", sql))
    types = {name: "::interval" for name in names if isinstance(values[name], timedelta)}
    numbers = {name: f"${at}{types.get(name, '')}" for at, name in enumerate(names, 1)}
    return "\n".join(row[0] for row in db.exec_driver_sql(f"EXPLAIN (GENERIC_PLAN) {sql % numbers}"))


@pytest.mark.parametrize(("call", "index"), CALLS.values(), ids=CALLS)
def test_a_kept_plan_uses_the_partial_index(store: Store, call: Callable[[Connection], Any], index: str) -> None:
    said = list[tuple[str, Any]]()

    def keep(_db: Any, _cursor: Any, sql: str, values: Any, _context: Any, _many: bool) -> None:
        said.append((sql, values))

    with store.begin() as db:
        for statement in OTHERS:
            db.exec_driver_sql(statement)
        sa.event.listen(db, "before_cursor_execute", keep)
        call(db)
        sa.event.remove(db, "before_cursor_execute", keep)
        db.exec_driver_sql("SET LOCAL enable_seqscan = off")
        plans = with_whole_indexes(db, "\n".join(generic_plan(db, *each) for each in said))
    assert re.search(index, plans)
