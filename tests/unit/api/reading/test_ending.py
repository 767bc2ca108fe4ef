"""What ends from outside leaves its queue and is announced; a job that runs on is its worker's to stop."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import pytest

from headrace.broker.admission import Admission
from headrace.broker.ending import cancel, read
from headrace.domain.ids import new_id
from headrace.domain.jobs import Job
from headrace.domain.queues import Lane, Ticket
from headrace.domain.states import JobState
from headrace.errors import BrokerUnavailable, NotFound
from headrace.store import Store

APP, JOB = new_id(), new_id()
TICKET = Ticket(JOB, APP, "chat.high", Lane.HIGH, 6, 4, datetime(2026, 1, 1, tzinfo=UTC))


class FakeDeps:
    """Store and Admission; `steps` is what was asked of them, in order."""

    def __init__(self) -> None:
        self.steps: list[Any] = []
        self.is_down = False

    @contextmanager
    def begin(self) -> Iterator[None]:
        yield
        self.steps.append("commit")

    autocommit = nullcontext

    def remove(self, tickets: Sequence[str]) -> int:
        self.steps.append(("remove", *tickets))
        if self.is_down:
            raise BrokerUnavailable("gone")
        return len(tickets)

    def announce_ended(self, job_ids: Iterable[UUID], *, moved: Any = ()) -> None:
        self.steps.append(("announce", *job_ids))


@pytest.fixture
def deps() -> FakeDeps:
    return FakeDeps()


@pytest.fixture
def cancel_as(deps: FakeDeps, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Cancels a job that is in the given state once Postgres was told."""

    def act(state: JobState) -> Job:
        def cancelled(_: None, app_id: UUID, job_id: UUID) -> Any:
            assert (app_id, job_id) == (APP, JOB)
            return SimpleNamespace(id=JOB, state=state, ticket=TICKET)

        monkeypatch.setattr("headrace.store.jobs.cancel", cancelled)
        return cancel(cast(Store, deps), cast(Admission, deps), APP, JOB)

    return act


def test_a_cancelled_job_leaves_its_queue_after_the_commit(cancel_as: Any, deps: FakeDeps) -> None:
    assert cancel_as(JobState.CANCELLED).id == JOB
    assert deps.steps == ["commit", ("remove", TICKET), ("announce", JOB)]


@pytest.mark.parametrize("state", [JobState.RUNNING, JobState.SUCCEEDED])
def test_a_job_that_was_not_cancelled_is_left_alone(cancel_as: Any, deps: FakeDeps, state: JobState) -> None:
    assert cancel_as(state).state is state
    assert deps.steps == ["commit"]


def test_a_cancel_holds_while_redis_is_down(cancel_as: Any, deps: FakeDeps, caplog: pytest.LogCaptureFixture) -> None:
    deps.is_down = True
    assert cancel_as(JobState.CANCELLED).state is JobState.CANCELLED
    [record] = caplog.records
    assert (record.message, record.jobs) == ("end_not_announced", 1)  # type: ignore[attr-defined]


def test_another_apps_job_reaches_no_queue(deps: FakeDeps, monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(*_: Any) -> Any:
        raise NotFound

    monkeypatch.setattr("headrace.store.jobs.cancel", nowhere)
    with pytest.raises(NotFound):
        cancel(cast(Store, deps), cast(Admission, deps), APP, JOB)
    assert deps.steps == []


@pytest.mark.parametrize("is_over", [True, False])
def test_a_reader_ends_a_job_whose_time_is_over_and_frees_its_place(
    deps: FakeDeps, monkeypatch: pytest.MonkeyPatch, is_over: bool
) -> None:
    state = [JobState.QUEUED]

    def expire(_: None, job_ids: list[UUID]) -> list[Ticket]:
        assert job_ids == [JOB]
        state[:] = [JobState.EXPIRED]
        return [TICKET]

    monkeypatch.setattr("headrace.store.jobs.expire", expire)
    monkeypatch.setattr(
        "headrace.store.jobs.find",
        lambda *_: SimpleNamespace(
            id=JOB, app_id=APP, state=state[0], is_over=is_over and state[0] == "queued", is_leader_ended=False
        ),
    )

    job = read(cast(Store, deps), cast(Admission, deps), APP, JOB)

    assert job.state == (JobState.EXPIRED if is_over else JobState.QUEUED)
    assert deps.steps == (["commit", ("remove", TICKET), ("announce", JOB)] if is_over else [])


def test_a_job_that_somebody_else_has_ended_meanwhile_is_his_to_announce(
    deps: FakeDeps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.store.jobs.expire", lambda *_: [])
    monkeypatch.setattr(
        "headrace.store.jobs.find", lambda *_: SimpleNamespace(id=JOB, app_id=APP, is_over=True, is_leader_ended=False)
    )
    read(cast(Store, deps), cast(Admission, deps), APP, JOB)
    assert deps.steps == ["commit"]
