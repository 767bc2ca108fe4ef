"""A cancel: what is cancelled leaves its queue and is announced; a job that runs on is its worker's to stop."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import pytest

from api.cancellation import cancel
from headrace.admission import Admission
from headrace.errors import BrokerUnavailable, NotFound
from headrace.jobs import JobState, new_id
from headrace.store import Store
from headrace.store.jobs import Job

APP, JOB = new_id(), new_id()


class FakeParts:
    """Store and Admission; `steps` is what was asked of them, in order."""

    def __init__(self) -> None:
        self.steps: list[Any] = []
        self.is_down = False

    @contextmanager
    def begin(self) -> Iterator[None]:
        yield
        self.steps.append("commit")

    def remove(self, tickets: Sequence[str]) -> int:
        self.steps.append(("remove", *tickets))
        if self.is_down:
            raise BrokerUnavailable("gone")
        return len(tickets)

    def announce_ended(self, job_ids: Iterable[UUID]) -> None:
        self.steps.append(("announce", *job_ids))


@pytest.fixture
def parts() -> FakeParts:
    return FakeParts()


@pytest.fixture
def cancel_as(parts: FakeParts, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Cancels a job that is in the given state once Postgres was told."""

    def act(state: JobState) -> Job:
        def cancelled(_: None, app_id: UUID, job_id: UUID) -> Any:
            assert (app_id, job_id) == (APP, JOB)
            return SimpleNamespace(id=JOB, state=state, ticket="ticket")

        monkeypatch.setattr("headrace.store.jobs.cancel", cancelled)
        return cancel(cast(Store, parts), cast(Admission, parts), APP, JOB)

    return act


def test_a_cancelled_job_leaves_its_queue_after_the_commit(cancel_as: Any, parts: FakeParts) -> None:
    assert cancel_as(JobState.CANCELLED).id == JOB
    assert parts.steps == ["commit", ("remove", "ticket"), ("announce", JOB)]


@pytest.mark.parametrize("state", [JobState.RUNNING, JobState.SUCCEEDED])
def test_a_job_that_was_not_cancelled_is_left_alone(cancel_as: Any, parts: FakeParts, state: JobState) -> None:
    assert cancel_as(state).state is state
    assert parts.steps == ["commit"]


def test_a_cancel_holds_while_redis_is_down(cancel_as: Any, parts: FakeParts, caplog: pytest.LogCaptureFixture) -> None:
    parts.is_down = True
    assert cancel_as(JobState.CANCELLED).state is JobState.CANCELLED
    [record] = caplog.records
    assert (record.message, record.job_id) == ("cancel_not_announced", JOB.hex)  # type: ignore[attr-defined]


def test_another_apps_job_reaches_no_queue(parts: FakeParts, monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(*_: Any) -> Any:
        raise NotFound

    monkeypatch.setattr("headrace.store.jobs.cancel", nowhere)
    with pytest.raises(NotFound):
        cancel(cast(Store, parts), cast(Admission, parts), APP, JOB)
    assert parts.steps == []
