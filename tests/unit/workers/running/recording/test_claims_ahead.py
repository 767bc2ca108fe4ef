"""Claims that are made while their jobs are on the way to threads."""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import pytest

from headrace.domain.ids import new_id
from headrace.errors import StoreUnavailable
from workers.running.recording.claims_ahead import ClaimCall, ClaimsAhead

DEADLINE_S = 10
JOBS = [new_id() for _ in range(3)]


class Claiming:
    """Serves calls with their own messages, or fails; may be held up.

    Attributes:
        batches: the jobs that it was asked for together.
    """

    def __init__(self) -> None:
        self.batches: list[list[UUID]] = []
        self.error: Exception | None = None
        self.open = threading.Event()
        self.open.set()

    def serve(self, calls: Sequence[ClaimCall]) -> None:
        self.batches.append([call.message[0] for call in calls])
        assert self.open.wait(DEADLINE_S)
        if self.error is not None:
            raise self.error
        for call in calls:
            call.set_result(call.message)  # type: ignore[arg-type]


@pytest.fixture
def claiming() -> Claiming:
    return Claiming()


@pytest.fixture
def ahead(claiming: Claiming) -> Iterator[ClaimsAhead]:
    made = ClaimsAhead(claiming.serve)
    made.begin()
    yield made
    claiming.open.set()
    made.end()


def fetched(ahead: ClaimsAhead, job_id: UUID) -> Any:
    call = ahead.fetch(job_id, 1)
    assert call is not None
    return call.result()


def test_the_jobs_of_a_take_are_claimed_together_and_each_thread_gets_its_own(
    ahead: ClaimsAhead, claiming: Claiming
) -> None:
    claiming.open.clear()
    ahead.expect(dict.fromkeys(JOBS, 1))
    with ThreadPoolExecutor(len(JOBS)) as threads:
        found = [threads.submit(fetched, ahead, job_id) for job_id in JOBS]
        claiming.open.set()
        assert [each.result(DEADLINE_S) for each in found] == [(job_id, 1) for job_id in JOBS]
    assert claiming.batches == [JOBS]


def test_a_second_message_of_a_job_asks_for_itself(ahead: ClaimsAhead, claiming: Claiming) -> None:
    job = JOBS[0]
    ahead.expect({job: 1})
    ahead.expect({job: 1})
    assert ahead.expects(job, 1)
    assert not ahead.expects(job, 2)
    assert fetched(ahead, job) == (job, 1)
    assert ahead.fetch(job, 1) is None
    assert not ahead.expects(job, 1)
    assert claiming.batches == [[job]]


def test_a_failure_reaches_each_thread_and_the_next_jobs_are_claimed(ahead: ClaimsAhead, claiming: Claiming) -> None:
    claiming.error = StoreUnavailable("Postgres is away.")
    ahead.expect(dict.fromkeys(JOBS[:2], 1))
    for job_id in JOBS[:2]:
        with pytest.raises(StoreUnavailable):
            fetched(ahead, job_id)
    claiming.error = None
    ahead.expect({JOBS[2]: 1})
    assert fetched(ahead, JOBS[2]) == (JOBS[2], 1)


@pytest.mark.parametrize("error", [None, StoreUnavailable("Postgres is away.")])
def test_a_thread_starts_once_its_claim_is_made_or_has_failed(
    ahead: ClaimsAhead, claiming: Claiming, error: Exception | None
) -> None:
    started, has_started = list[str](), threading.Event()
    claiming.error = error
    claiming.open.clear()
    ahead.expect(dict.fromkeys(JOBS[:2], 1))
    ahead.when_claimed(JOBS[0], 1, lambda: started.append("first"))
    ahead.when_claimed(JOBS[0], 1, lambda: 1 / 0)
    ahead.when_claimed(JOBS[0], 1, has_started.set)
    assert started == []
    claiming.open.set()
    assert has_started.wait(DEADLINE_S), "a start that fails holds up no other one"
    ahead.when_claimed(JOBS[0], 1, lambda: started.append("late"))
    ahead.when_claimed(JOBS[2], 1, lambda: started.append("not expected"))
    assert started == ["first", "late", "not expected"]


def test_a_thread_of_a_job_that_was_taken_alone_comes_up_while_the_claim_is_made(
    ahead: ClaimsAhead, claiming: Claiming
) -> None:
    started = list[str]()
    claiming.open.clear()
    ahead.expect({JOBS[0]: 1})
    ahead.when_claimed(JOBS[0], 1, lambda: started.append("alone"))
    assert started == ["alone"]
    ahead.expect({JOBS[1]: 1})
    ahead.when_claimed(JOBS[1], 1, lambda: started.append("not alone"))
    assert started == ["alone"]


def test_a_worker_that_stops_waits_for_claims_to_reach_their_threads(ahead: ClaimsAhead) -> None:
    ahead.expect({JOBS[0]: 1})
    assert not ahead.wait_until_fetched(0)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(ahead.wait_until_fetched, DEADLINE_S)
        fetched(ahead, JOBS[0])
        assert waiting.result(DEADLINE_S)
