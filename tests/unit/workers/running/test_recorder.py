"""Claims that are made while their jobs are on the way to threads, and ends that are written behind these."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import pytest

from headrace.domain.attempts import AttemptEnd, Claim, Outcome
from headrace.domain.ids import new_id
from headrace.domain.queues import Route
from headrace.domain.states import JobState
from headrace.errors import StoreBusy, StoreUnavailable
from headrace.store import Store
from workers.running.recorder import ELSEWHERE, Recorder

DEADLINE_S = 10
END = cast("AttemptEnd", SimpleNamespace(error_code=None, engine_s=0.1, logprobs=None, text="", others=()))
END.reasoning, END.tool_calls = "", ()  # type: ignore[misc]
JOBS = [new_id() for _ in range(3)]
SUCCEEDED = Outcome(JobState.SUCCEEDED)


@dataclass
class Postgres:
    """Claims and ends what it is asked for, unless it is told otherwise.

    Attributes:
        batches: the jobs that it was asked for together.
        lost: jobs whose claims do not hold.
        errors: raised by the next statements, one each.
        bad: fails each statement that contains it.
        locked: is busy in each statement that contains it.
        began: set once it was asked.
        open: set while statements go through.
    """

    batches: list[list[UUID]] = field(default_factory=list)
    lost: set[UUID] = field(default_factory=set)
    errors: list[Exception] = field(default_factory=list)
    bad: UUID | None = None
    locked: UUID | None = None
    began: threading.Event = field(default_factory=threading.Event)
    open: threading.Event = field(default_factory=threading.Event)

    def run(self, jobs: Sequence[UUID]) -> None:
        self.batches.append(list(jobs))
        self.began.set()
        assert self.open.wait(DEADLINE_S)
        if self.errors:
            raise self.errors.pop()
        if self.bad in jobs:
            raise ValueError("a bad row")
        if self.locked in jobs:
            raise StoreBusy("The row is locked.")

    def claim_all(self, _store: Store, asked: Mapping[UUID, int], *_: object, is_before_disk: bool) -> dict[UUID, Any]:
        self.run(list(asked))
        return {job_id: (job_id, no) for job_id, no in asked.items() if job_id not in self.lost}

    def finish_all(self, _store: Store, _target: JobState, ends: Sequence[tuple[Claim, AttemptEnd]]) -> set[UUID]:
        jobs = [claim.job_id for claim, _ in ends]
        self.run(jobs)
        return set(jobs) - self.lost


@pytest.fixture
def postgres(monkeypatch: pytest.MonkeyPatch) -> Postgres:
    made = Postgres()
    made.open.set()
    monkeypatch.setattr("workers.running.recorder.REWRITE_AFTER_S", 0.001)
    monkeypatch.setattr("workers.running.recorder.LOCKED_FOR_S", 0.001)
    monkeypatch.setattr("workers.running.recorder.attempts.claim_all", made.claim_all)
    monkeypatch.setattr("workers.running.recorder.attempts.finish_all", made.finish_all)
    monkeypatch.setattr("workers.running.recorder.claim_of", lambda row: row)
    return made


@dataclass
class Disk:
    """Where claims come that were made before it had them. Attributes: waits: set while it writes."""

    error: Exception | None = None
    waits: threading.Event = field(default_factory=threading.Event)

    def wait_for_disk(self) -> None:
        assert self.waits.wait(DEADLINE_S)
        if self.error is not None:
            raise self.error


@pytest.fixture
def disk() -> Disk:
    made = Disk()
    made.waits.set()
    return made


@dataclass
class Told:
    """In place of the notices and the publisher. Attributes: ended, forgotten: jobs."""

    ended_jobs: list[UUID] = field(default_factory=list)
    forgotten: list[UUID] = field(default_factory=list)

    def ended(self, job_id: UUID, *, has_webhook: bool) -> None:
        self.ended_jobs.append(job_id)

    def forget(self, job_id: UUID) -> None:
        self.forgotten.append(job_id)


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def recorder(postgres: Postgres, disk: Disk, told: Told) -> Iterator[Recorder]:
    stand_ins: Any = (disk, new_id(), "simulator", told, told)
    made = Recorder(*stand_ins)
    yield made
    postgres.open.set()
    made.close()


def claimed(recorder: Recorder, job_id: UUID, enqueue_no: int = 1) -> object:
    found = recorder.claim(job_id, enqueue_no)
    return found and found.claim


def claim(job_id: UUID, **fields: object) -> Claim:
    given = {"job_id": job_id, "attempt": 1, "has_webhook": False, "stream": False, "route": Route.POOL, **fields}
    return cast("Claim", SimpleNamespace(**given))


def finish(recorder: Recorder, job_id: UUID, **fields: object) -> Future[Outcome]:
    return recorder.finish(claim(job_id, **fields), JobState.SUCCEEDED, END)


class TestClaims:
    def test_the_jobs_of_a_take_are_claimed_together_and_each_thread_gets_its_own(
        self, recorder: Recorder, postgres: Postgres
    ) -> None:
        postgres.open.clear()
        recorder.expect(dict.fromkeys(JOBS, 1))
        with ThreadPoolExecutor(len(JOBS)) as threads:
            found = [threads.submit(claimed, recorder, job_id) for job_id in JOBS]
            postgres.open.set()
            assert [each.result(DEADLINE_S) for each in found] == [(job_id, 1) for job_id in JOBS]
        assert [sorted(batch) for batch in postgres.batches] == [sorted(JOBS)]

    def test_a_second_message_of_a_job_asks_for_itself(self, recorder: Recorder, postgres: Postgres) -> None:
        job = JOBS[0]
        recorder.expect({job: 1})
        recorder.expect({job: 1})
        assert recorder.expects(job, 1)
        assert not recorder.expects(job, 2)
        assert claimed(recorder, job) == (job, 1)
        assert not recorder.expects(job, 1)
        assert postgres.batches == [[job]]
        postgres.lost = {job}
        assert recorder.claim(job, 1) is None
        assert postgres.batches == [[job]] * 2

    def test_of_two_messages_of_a_job_in_one_statement_one_has_the_claim_the_one_with_the_higher_number(
        self, recorder: Recorder, postgres: Postgres
    ) -> None:
        postgres.open.clear()
        recorder.expect({JOBS[2]: 1})
        assert postgres.began.wait(DEADLINE_S)
        messages = [(JOBS[0], 2), (JOBS[0], 1), (JOBS[1], 1), (JOBS[1], 1)]
        with ThreadPoolExecutor(len(messages)) as threads:
            found = [threads.submit(claimed, recorder, *message) for message in messages]
            while recorder._claims.waiting < len(messages):
                assert not found[0].done()
            postgres.open.set()
            first, stale, *equal = (each.result(DEADLINE_S) for each in found)
        assert (first, stale) == ((JOBS[0], 2), None)
        assert equal.count(None) == 1
        assert (JOBS[1], 1) in equal

    def test_a_failure_reaches_each_thread_and_the_next_jobs_are_claimed(
        self, recorder: Recorder, postgres: Postgres
    ) -> None:
        postgres.errors = [StoreUnavailable("Postgres is away.")]
        recorder.expect(dict.fromkeys(JOBS[:2], 1))
        for job_id in JOBS[:2]:
            with pytest.raises(StoreUnavailable):
                recorder.claim(job_id, 1)
        recorder.expect({JOBS[2]: 1})
        assert claimed(recorder, JOBS[2]) == (JOBS[2], 1)

    @pytest.mark.parametrize("error", [None, StoreUnavailable("Postgres is away.")])
    def test_a_thread_starts_once_its_claim_is_made_or_has_failed(
        self, recorder: Recorder, postgres: Postgres, error: Exception | None
    ) -> None:
        started, has_started = list[str](), threading.Event()
        postgres.errors = [error] if error else []
        postgres.open.clear()
        recorder.expect(dict.fromkeys(JOBS[:2], 1))
        recorder.when_claimed(JOBS[0], 1, lambda: started.append("first"))
        recorder.when_claimed(JOBS[0], 1, lambda: 1 / 0)
        recorder.when_claimed(JOBS[0], 1, has_started.set)
        assert started == []
        postgres.open.set()
        assert has_started.wait(DEADLINE_S), "a start that fails holds up no other one"
        recorder.when_claimed(JOBS[0], 1, lambda: started.append("late"))
        recorder.when_claimed(JOBS[2], 1, lambda: started.append("not expected"))
        assert started == ["first", "late", "not expected"]

    def test_a_thread_of_a_job_that_was_taken_alone_comes_up_while_the_claim_is_made(
        self, recorder: Recorder, postgres: Postgres
    ) -> None:
        started = list[str]()
        postgres.open.clear()
        recorder.expect({JOBS[0]: 1})
        recorder.when_claimed(JOBS[0], 1, lambda: started.append("alone"))
        assert started == ["alone"]
        recorder.expect({JOBS[1]: 1})
        recorder.when_claimed(JOBS[1], 1, lambda: started.append("not alone"))
        assert started == ["alone"]

    def test_a_worker_that_stops_waits_for_claims_to_reach_their_threads(self, recorder: Recorder) -> None:
        recorder.expect({JOBS[0]: 1})
        assert not recorder.wait_until_fetched(0)
        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(recorder.wait_until_fetched, DEADLINE_S)
            recorder.claim(JOBS[0], 1)
            assert waiting.result(DEADLINE_S)

    def test_a_claim_that_comes_alone_is_there_before_the_disk_has_it(self, recorder: Recorder, disk: Disk) -> None:
        disk.waits.clear()
        recorder.expect({JOBS[0]: 1})
        found = recorder.claim(JOBS[0], 1)
        assert found is not None
        assert not found.on_disk.done()
        disk.waits.set()
        assert found.on_disk.result(DEADLINE_S) is None

    def test_a_failed_commit_is_a_store_that_is_away_whatever_failed(self, recorder: Recorder, disk: Disk) -> None:
        disk.error = RuntimeError("a bug")
        recorder.expect({JOBS[0]: 1})
        found = recorder.claim(JOBS[0], 1)
        assert found is not None
        for _ in range(2):
            with pytest.raises(StoreUnavailable, match="a bug"):
                found.on_disk.result(DEADLINE_S)


class TestEnds:
    def test_ends_that_come_during_a_statement_share_the_next_one(self, recorder: Recorder, postgres: Postgres) -> None:
        postgres.open.clear()
        first = finish(recorder, JOBS[0])
        assert postgres.began.wait(DEADLINE_S)
        others = [finish(recorder, job_id) for job_id in JOBS[1:]]
        postgres.open.set()
        assert [each.result(DEADLINE_S) for each in (first, *others)] == [SUCCEEDED] * 3
        assert postgres.batches == [JOBS[:1], JOBS[1:]]

    def test_jobs_that_end_differently_share_no_statement(self, recorder: Recorder, postgres: Postgres) -> None:
        postgres.open.clear()
        finish(recorder, new_id())
        assert postgres.began.wait(DEADLINE_S)
        states = [JobState.SUCCEEDED, JobState.FAILED, JobState.SUCCEEDED]
        ends = [recorder.finish(claim(job_id), state, END) for job_id, state in zip(JOBS, states, strict=True)]
        postgres.open.set()
        assert [each.result(DEADLINE_S).state for each in ends] == states
        assert postgres.batches[1:] == [[JOBS[0], JOBS[2]], [JOBS[1]]]

    def test_readers_are_told_of_an_end_that_is_on_disk(
        self, recorder: Recorder, postgres: Postgres, told: Told
    ) -> None:
        postgres.open.clear()
        ending = finish(recorder, JOBS[0], stream=True)
        assert postgres.began.wait(DEADLINE_S)
        assert (told.ended_jobs, told.forgotten) == ([], [])
        postgres.open.set()
        ending.result(DEADLINE_S)
        assert (told.ended_jobs, told.forgotten) == ([JOBS[0]], [JOBS[0]])

    def test_an_end_whose_claim_is_lost_is_told_so_and_nobody_else_hears_of_it(
        self, recorder: Recorder, postgres: Postgres, told: Told
    ) -> None:
        postgres.lost = {JOBS[1]}
        ends = [finish(recorder, job_id) for job_id in JOBS]
        assert [each.result(DEADLINE_S) for each in ends] == [SUCCEEDED, ELSEWHERE, SUCCEEDED]
        assert told.ended_jobs == [JOBS[0], JOBS[2]]

    def test_an_end_is_written_again_after_an_outage(self, recorder: Recorder, postgres: Postgres) -> None:
        postgres.errors = [StoreUnavailable("Postgres is away.")] * 2
        assert finish(recorder, JOBS[0]).result(DEADLINE_S) == SUCCEEDED
        assert postgres.batches == [JOBS[:1]] * 3

    def test_an_end_is_dropped_after_a_long_outage(
        self,
        recorder: Recorder,
        postgres: Postgres,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        monkeypatch.setattr("workers.running.recorder.REWRITE_FOR_S", -1)
        postgres.errors = [StoreUnavailable("Postgres is away.")]
        assert finish(recorder, JOBS[0]).result(DEADLINE_S) == ELSEWHERE
        assert [record.message for record in caplog.records] == ["result_dropped"]
        assert postgres.batches == [JOBS[:1]]

    def test_a_bad_row_fails_alone(
        self, recorder: Recorder, postgres: Postgres, caplog: pytest.LogCaptureFixture
    ) -> None:
        postgres.bad = JOBS[1]
        postgres.open.clear()
        finish(recorder, new_id())
        assert postgres.began.wait(DEADLINE_S)
        ends = [finish(recorder, job_id) for job_id in JOBS]
        postgres.open.set()
        assert [each.result(DEADLINE_S) for each in ends] == [SUCCEEDED, ELSEWHERE, SUCCEEDED]
        assert "end_not_written" in [record.message for record in caplog.records]

    def test_a_locked_row_is_written_alone_until_it_is_free(self, recorder: Recorder, postgres: Postgres) -> None:
        postgres.locked = JOBS[0]
        postgres.open.clear()
        finish(recorder, new_id())
        assert postgres.began.wait(DEADLINE_S)
        locked, other = (finish(recorder, job_id) for job_id in JOBS[:2])
        postgres.open.set()
        assert other.result(DEADLINE_S) == SUCCEEDED
        assert finish(recorder, JOBS[2]).result(DEADLINE_S) == SUCCEEDED
        assert not locked.done()
        postgres.locked = None
        assert locked.result(DEADLINE_S) == SUCCEEDED
        assert [batch for batch in postgres.batches if len(batch) > 1] == [JOBS[:2]]

    def test_a_row_that_stays_locked_is_dropped_when_the_worker_stops(
        self, recorder: Recorder, postgres: Postgres, caplog: pytest.LogCaptureFixture
    ) -> None:
        postgres.locked = JOBS[0]
        locked = finish(recorder, JOBS[0])
        recorder.close()
        assert locked.result(0) == ELSEWHERE
        assert [record.message for record in caplog.records] == ["result_dropped"]

    def test_a_worker_that_stops_writes_the_last_ends(self, recorder: Recorder) -> None:
        ends = [finish(recorder, job_id) for job_id in JOBS]
        recorder.close()
        assert [each.result(0) for each in ends] == [SUCCEEDED] * 3

    def test_a_fault_of_what_waits_for_one_job_is_no_other_one_s(
        self, recorder: Recorder, caplog: pytest.LogCaptureFixture
    ) -> None:
        has_heard = threading.Event()
        ending = finish(recorder, JOBS[0])
        ending.add_done_callback(lambda _: 1 / 0)
        ending.add_done_callback(lambda _: has_heard.set())
        assert has_heard.wait(DEADLINE_S)
        assert "exception calling callback" in caplog.text
