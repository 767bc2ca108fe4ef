"""The use case with fakes around it: what is done in which order, and undone when a step fails."""

from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from api.drafts import Draft, Spelling
from api.submit import FAILPOINT_INSERTED, Submitter
from headrace.errors import (
    BrokerUnavailable,
    IdempotencyKeyReused,
    InvalidRequest,
    ModelNotFound,
    QueueFull,
    StoreUnavailable,
)
from headrace.jobs import Idempotency, Message, Overflow, new_id
from headrace.store.apps import App

DRAFT = Draft(Spelling("prompt"), (Message("user", "Why is the sky blue?"),))
KEYED = Idempotency("key", b"hash")


def test_a_submit_takes_a_place_then_inserts_then_publishes(submitter: Submitter, door: Any, app: App) -> None:
    accepted = submitter.submit(DRAFT, app)

    assert door.steps == ["reserve", "insert", FAILPOINT_INSERTED, "commit"]
    assert (accepted.queue, accepted.position, accepted.depth) == ("chat.normal", 3, 3)
    assert accepted.start_by == door.start_by
    assert [ticket.job_id for ticket in door.committed] == [accepted.job_id]


def test_a_full_queue_is_counted_and_costs_no_insert(submitter: Submitter, door: Any, app: App) -> None:
    door.failures["reserve"] = QueueFull("chat.normal", 500, 500, 7)

    with pytest.raises(QueueFull):
        submitter.submit(DRAFT, app)

    assert door.steps == ["reserve"]
    [(app_id, queue, reason, tokens)] = door.refused
    assert (app_id, queue, reason) == (app.id, "chat.normal", "queue_full")
    assert tokens > 256


@pytest.mark.parametrize("failure", [StoreUnavailable(), IdempotencyKeyReused()])
def test_the_place_is_given_back_when_the_insert_fails(
    submitter: Submitter, door: Any, app: App, failure: Exception
) -> None:
    door.failures["insert"] = failure

    with pytest.raises(type(failure)):
        submitter.submit(DRAFT, app)

    assert door.steps == ["reserve", "insert", "release"]


def test_the_inserts_own_error_is_told_when_the_place_cannot_be_given_back(
    submitter: Submitter, door: Any, app: App
) -> None:
    door.failures = {"insert": StoreUnavailable(), "release": BrokerUnavailable()}

    with pytest.raises(StoreUnavailable):
        submitter.submit(DRAFT, app)


def test_a_job_is_accepted_when_only_its_publish_fails(submitter: Submitter, door: Any, app: App) -> None:
    door.failures["commit"] = BrokerUnavailable()

    accepted = submitter.submit(DRAFT, app)

    assert accepted.job_id == door.inserted[0].id
    assert "release" not in door.steps


def test_a_job_is_accepted_when_its_wait_cannot_be_told(
    submitter: Submitter, door: Any, app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(_: str) -> float:
        raise BrokerUnavailable

    monkeypatch.setattr(door, "drain_rate", down)
    assert submitter.submit(DRAFT, app).expected_wait_s is None


def test_a_replay_takes_no_place(submitter: Submitter, door: Any, app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    first = new_id()
    monkeypatch.setattr("headrace.store.insertion.find_replay", lambda *_: (first, KEYED.request_hash))
    replayed: list[UUID] = []
    monkeypatch.setattr(Submitter, "_replayed", lambda _, app, job_id: replayed.append(job_id) or job_id)

    submitter.submit(DRAFT, app, KEYED)

    assert replayed == [first]
    assert door.steps == []


def test_a_key_that_came_with_another_body_is_refused(
    submitter: Submitter, door: Any, app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.store.insertion.find_replay", lambda *_: (new_id(), b"other"))

    with pytest.raises(IdempotencyKeyReused) as raised:
        submitter.submit(DRAFT, app, KEYED)

    assert raised.value.param == "Idempotency-Key"
    assert door.steps == []


def test_a_replay_that_shows_only_at_the_insert_gives_its_place_back(
    submitter: Submitter, door: Any, app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.store.insertion.find_replay", lambda *_: None)
    monkeypatch.setattr(Submitter, "_replayed", lambda _, app, job_id: job_id)
    door.start_by = None

    submitter.submit(DRAFT, app, KEYED)

    assert door.steps == ["reserve", "insert", "release"]


def test_an_unknown_model_takes_no_place(submitter: Submitter, door: Any, app: App) -> None:
    with pytest.raises(ModelNotFound):
        submitter.submit(replace(DRAFT, model="nope"), app)
    assert door.steps == []


def test_an_overflow_that_is_not_open_is_refused_under_the_callers_own_name(
    submitter: Submitter, door: Any, app: App
) -> None:
    draft = replace(DRAFT, spelling=Spelling("input", "max_output_tokens", "job."), overflow=Overflow.ONLY)
    with pytest.raises(InvalidRequest) as raised:
        submitter.submit(draft, app)
    assert raised.value.param == "job.overflow"
    assert door.steps == []
