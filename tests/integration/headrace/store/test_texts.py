"""Which texts go, and what stays."""

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from headrace.errors import JobNotEnded, NotFound
from headrace.queues import Ticket
from headrace.store import Store, texts


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
