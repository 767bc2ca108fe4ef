"""When a wait ends: told by an event, at its time, at once without a free slot, or when the process must go."""

import threading
import time
from collections.abc import Iterator
from typing import Any, cast

import pytest
from redis import Redis, RedisError

from api.waits import Waits
from headrace.jobs import JobState, new_id
from headrace.store.jobs import Job


class FakeJob:
    def __init__(self, state: JobState) -> None:
        self.state = state


class SilentRedis:
    """No message ever comes, and the reader says that Redis is gone."""

    def pubsub(self, **_: Any) -> Any:
        raise RedisError("gone")


@pytest.fixture
def waits() -> Iterator[Waits]:
    waits = Waits(cast(Redis, SilentRedis()), slots=1)
    yield waits
    waits.close()


class Reads:
    """Reads a job that is in each of the given states in turn, and in the last for ever."""

    def __init__(self, *states: JobState) -> None:
        self.states = list(states)
        self.count = 0
        self.is_watching = threading.Event()

    def __call__(self) -> Job:
        state = self.states[min(self.count, len(self.states) - 1)]
        self.count += 1
        if self.count == 2:
            self.is_watching.set()
        return cast(Job, FakeJob(state))


def test_an_ended_job_is_answered_at_once(waits: Waits) -> None:
    reads = Reads(JobState.SUCCEEDED)
    assert waits.until_ended(new_id(), reads, 60).state is JobState.SUCCEEDED
    assert reads.count == 1


def test_an_end_that_came_before_anyone_watched_is_seen(waits: Waits) -> None:
    reads = Reads(JobState.RUNNING, JobState.FAILED)
    assert waits.until_ended(new_id(), reads, 60).state is JobState.FAILED
    assert reads.count == 2


def test_a_wait_ends_at_its_time_with_the_job_as_it_stands(waits: Waits) -> None:
    assert waits.until_ended(new_id(), Reads(JobState.RUNNING), 0.05).state is JobState.RUNNING


def test_without_a_free_slot_the_answer_comes_at_once(waits: Waits) -> None:
    holding = Reads(JobState.RUNNING)
    thread = threading.Thread(target=waits.until_ended, args=(new_id(), holding, 60))
    thread.start()
    assert holding.is_watching.wait(5)

    reads = Reads(JobState.RUNNING)
    assert waits.until_ended(new_id(), reads, 60).state is JobState.RUNNING
    assert reads.count == 1

    waits.close()
    thread.join(5)
    assert not thread.is_alive()


def test_a_lost_message_is_healed_by_looking_again(waits: Waits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.waits.RECHECK_S", 0.01)
    reads = Reads(*[JobState.RUNNING] * 4, JobState.SUCCEEDED)
    started = time.monotonic()
    assert waits.until_ended(new_id(), reads, 60).state is JobState.SUCCEEDED
    assert time.monotonic() - started < 30
