"""Reads of a job whose time is over while Postgres does not let it end: the reader gets an answer, never a 500."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from headrace.domain.ids import show_id
from headrace.domain.queues import Ticket
from headrace.store import Store
from tests.web import ApiClient

Run = Callable[..., None]
#: Statements that make Postgres refuse the end of the job :id.
WAYS = {
    "constraint": ["ALTER TABLE jobs ADD CONSTRAINT refused CHECK (id <> '{id}' OR state = 'queued') NOT VALID"],
    "at the commit": [
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''No end.''; END'",
        "CREATE CONSTRAINT TRIGGER at_commit AFTER UPDATE OF state ON jobs DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION refuse()",
    ],
}


@pytest.fixture
def run(store: Store) -> Iterator[Run]:
    """Runs statements, each in its own transaction. Afterwards every job can end again."""

    def execute(*statements: str) -> None:
        for each in statements:
            with store.begin() as db:
                db.exec_driver_sql(each)

    repair = (
        "ALTER TABLE jobs DROP CONSTRAINT IF EXISTS refused",
        "DROP TRIGGER IF EXISTS at_commit ON jobs",
        "DROP FUNCTION IF EXISTS refuse",
    )
    execute(*repair)
    yield execute
    execute(*repair)


@pytest.fixture
def over(queued: Callable[..., Ticket], age: Callable[[UUID, timedelta], None]) -> UUID:
    """A job whose `start_by` has passed."""
    job_id = queued().job_id
    age(job_id, timedelta(seconds=31))
    return job_id


@pytest.mark.parametrize("way", WAYS)
def test_a_job_that_postgres_refuses_to_expire_is_read_as_it_is(
    client: ApiClient, run: Run, over: UUID, caplog: pytest.LogCaptureFixture, way: str
) -> None:
    run(*(each.format(id=over) for each in WAYS[way]))

    answer = client.get(f"/v1/jobs/{show_id(over)}")

    assert (answer.status_code, answer.get_json()["status"]) == (200, "queued")
    refused: list[Any] = [record for record in caplog.records if record.message == "row_refused"]
    assert [(each.sweep, each.job_id) for each in refused] == [("read", show_id(over))]


def test_a_job_past_its_time_is_read_from_a_read_only_postgres_as_in_any_outage(
    client: ApiClient, over: UUID, read_only: Callable[[], AbstractContextManager[None]]
) -> None:
    with read_only():
        answer = client.get(f"/v1/jobs/{show_id(over)}")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")


def test_a_job_past_its_time_whose_end_takes_too_long_is_read_as_in_any_outage(
    client: ApiClient, over: UUID, engine: sa.Engine, store: Store
) -> None:
    with engine.begin() as other:
        other.execute(sa.text("SELECT 1 FROM jobs WHERE id = :id FOR UPDATE"), {"id": over})
        answer = client.get(f"/v1/jobs/{show_id(over)}")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
