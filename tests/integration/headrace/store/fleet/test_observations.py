"""What a worker that starts is told of answers made before."""

from collections.abc import Callable

import pytest
import sqlalchemy as sa

from headrace.domain.queues import Lane, Route, Ticket
from headrace.domain.states import JobState
from headrace.store import Store
from headrace.store.fleet import observations
from headrace.tables import jobs


@pytest.fixture
def answered(store: Store, queued: Callable[..., Ticket]) -> Callable[..., None]:
    """Inserts a job of the pool `chat`, ended with an answer of so many tokens; keyword arguments set its columns."""

    def insert(tokens: int | None, lane: Lane = Lane.NORMAL, **columns: object) -> None:
        ticket = queued(lane=lane)
        values = {
            "state": JobState.SUCCEEDED,
            "ended_at": sa.func.now(),
            "output_tokens": tokens,
            "finish_reason": "stop",
            **columns,
        }
        with store.begin() as db:
            db.execute(sa.update(jobs).where(jobs.c.id == ticket.job_id).values(**values))

    return insert


def lengths(store: Store) -> list[tuple[Lane, int, bool]]:
    with store.begin() as db:
        return observations.answer_lengths(db, "chat", ["test-model", "an-adapter"])


def test_the_answers_of_a_pool_count_with_their_lanes_in_the_order_in_which_they_came(
    store: Store, answered: Callable[..., None]
) -> None:
    answered(16)
    answered(64, Lane.HIGH)
    answered(8, model_requested="an-adapter", finish_reason="length")

    assert lengths(store) == [(Lane.NORMAL, 16, False), (Lane.HIGH, 64, False), (Lane.NORMAL, 8, True)]


def test_what_another_engine_answered_or_nobody_does_not(
    store: Store, answered: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    answered(1, pool="other")
    answered(2, model_requested="of-former-days")
    answered(3, route=Route.OVERFLOW)
    answered(4, state=JobState.FAILED)
    answered(None, state=JobState.QUEUED, ended_at=None)
    answered(5)
    assert lengths(store) == [(Lane.NORMAL, 5, False)]

    monkeypatch.setattr(observations, "LENGTHS_ROWS", 1)
    answered(6, pool="other")
    assert lengths(store) == [], "no more jobs than that are looked at"
