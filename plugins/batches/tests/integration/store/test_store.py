"""Batches as Postgres reads them: what a look at many lines costs."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from headrace.domain.apps import App
from headrace.domain.ids import new_id
from headrace.store import Store
from plugins.batches import store as batches
from plugins.batches.domain import noted
from plugins.batches.store import line_texts

LINES = 3000


@pytest.fixture
def make_batch(app: App, query: Callable[..., Any]) -> Callable[..., UUID]:
    """A batch in progress, none of whose lines has started."""

    def make(lines: int = 0) -> UUID:
        batch_id = new_id()
        query(
            "INSERT INTO batches (id, app_id, state, endpoint, input_file_id, completion_window, overflow, total,"
            " expires_at) VALUES (:id, :app, 'in_progress', '/v1/chat/completions', :id, '24h', 'never', :lines,"
            " now() + interval '1 day')",
            id=batch_id,
            app=app.id,
            lines=lines,
        )
        query(
            "INSERT INTO batch_lines (batch_id, number, custom_id, prefix, body)"
            " SELECT :id, no, 'line-' || no, 'Say', repeat('x', 300) FROM generate_series(1, :lines) no",
            id=batch_id,
            lines=lines,
        )
        return batch_id

    return make


@pytest.fixture
def submit(query: Callable[..., Any], queued: Callable[..., Any]) -> Callable[[UUID, int], UUID]:
    """Submits a line. Returns: its job."""

    def take(batch_id: UUID, number: int) -> UUID:
        job_id = new_id()
        queued(id=job_id, notes=noted(batch_id))
        query(
            "UPDATE batch_lines SET state = 'submitted', job_id = :job, submitted_at = now()"
            " WHERE batch_id = :id AND number = :number",
            job=job_id,
            id=batch_id,
            number=number,
        )
        return job_id

    return take


def test_batches_of_which_a_line_has_ended_are_found_by_one_look(
    store: Store, make_batch: Callable[..., UUID], submit: Callable[[UUID, int], UUID], query: Callable[..., Any]
) -> None:
    one, other, third = (make_batch(2) for _ in range(3))
    ended, _ = submit(one, 1), submit(other, 1)
    with store.begin() as db:
        assert batches.with_ended_jobs(db, [one, other, third]) == set()
    query("UPDATE jobs SET state = 'cancelled', ended_at = now() WHERE id = :id", id=ended)
    with store.begin() as db:
        assert batches.with_ended_jobs(db, [one, other, third]) == {one}
        assert batches.with_ended_jobs(db, [other, third]) == set()
        assert batches.settle(db, one, "/v1/chat/completions", is_cancelling=False) == 1
        assert batches.with_ended_jobs(db, [one, other, third]) == set()


def test_batches_without_a_line_that_is_left_are_found_by_one_look(
    store: Store, make_batch: Callable[..., UUID], query: Callable[..., Any]
) -> None:
    done, open_one = make_batch(2), make_batch(2)
    query("UPDATE batches SET completed = 1, failed = 1 WHERE id = :id", id=done)
    with store.begin() as db:
        assert batches.with_all_ended(db, [done, open_one]) == {done}
        assert batches.with_all_ended(db, [open_one]) == set()


def test_a_page_of_results_is_read_in_the_order_of_the_file_while_most_lines_wait(
    store: Store, app: App, make_batch: Callable[..., UUID], query: Callable[..., Any]
) -> None:
    """Sorted, each page would cost as much as all lines."""
    batch_id = make_batch(LINES)
    query("UPDATE batch_lines SET state = 'expired' WHERE batch_id = :id AND number % 100 = 0", id=batch_id)
    query("ANALYZE batch_lines")
    said = list[tuple[str, Any]]()
    with store.begin() as db:
        batch = batches.find(db, app.id, batch_id)
        sa.event.listen(db, "before_cursor_execute", lambda _db, _cursor, *given: said.append(given[:2]))
        found = line_texts.ended(db, batch, 500, 5, has_tools=True)
        [(statement, values)] = said
        plan = "\n".join(row[0] for row in db.exec_driver_sql(f"EXPLAIN {statement}", values))
    assert [line.number for line in found] == [600, 700, 800, 900, 1000]
    assert "Sort" not in plan
