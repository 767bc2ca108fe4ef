"""Ends that are written after their jobs' threads have gone on."""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import cast
from uuid import UUID

import pytest

from headrace.batching import Gathering
from headrace.domain.attempts import AttemptEnd, Claim
from headrace.domain.ids import new_id
from headrace.errors import StoreBusy, StoreUnavailable
from workers.running.recording.commits import Commit
from workers.running.recording.ends_behind import EndsBehind

DEADLINE_S = 10
END = cast("AttemptEnd", None)
JOBS = [new_id() for _ in range(3)]


@dataclass
class Writing:
    """Writes ends, unless it is told otherwise.

    Attributes:
        batches: the jobs that it was asked for together.
        lost: jobs whose claims do not hold.
        errors: raised by the next writes, one each.
        bad: fails each write that contains it.
        locked: is busy in each write that contains it.
        began: set once it was asked.
        open: set while writes go through.
    """

    batches: list[list[UUID]] = field(default_factory=list)
    lost: set[UUID] = field(default_factory=set)
    errors: list[Exception] = field(default_factory=list)
    bad: UUID | None = None
    locked: UUID | None = None
    began: threading.Event = field(default_factory=threading.Event)
    open: threading.Event = field(default_factory=threading.Event)

    def write(self, ends: Sequence[tuple[Claim, AttemptEnd]]) -> set[UUID]:
        named = [claim.job_id for claim, _ in ends]
        self.batches.append(named)
        self.began.set()
        assert self.open.wait(DEADLINE_S)
        if self.errors:
            raise self.errors.pop()
        if self.bad in named:
            raise ValueError("a bad row")
        if self.locked in named:
            raise StoreBusy("The row is locked.")
        return set(named) - self.lost


@pytest.fixture
def writing(monkeypatch: pytest.MonkeyPatch) -> Writing:
    monkeypatch.setattr("workers.running.recording.ends_behind.REWRITE_AFTER_S", 0.001)
    monkeypatch.setattr("workers.running.recording.ends_behind.LOCKED_FOR_S", 0.001)
    made = Writing()
    made.open.set()
    return made


@pytest.fixture
def behind(writing: Writing) -> Iterator[EndsBehind]:
    made = EndsBehind(writing.write, Gathering(0.0))
    made.begin()
    yield made
    writing.open.set()
    made.end()


def claim(job_id: UUID) -> Claim:
    return cast("Claim", SimpleNamespace(job_id=job_id, attempt=1))


def outcome(commit: Commit) -> bool:
    """Whether the end is on disk, once that is known."""
    told, is_told = list[bool](), threading.Event()
    commit.then(told.append)
    commit.then(lambda _: is_told.set())
    assert is_told.wait(DEADLINE_S)
    return told[0]


def test_ends_that_come_during_a_statement_share_the_next_one(behind: EndsBehind, writing: Writing) -> None:
    writing.open.clear()
    first = behind.finish(claim(JOBS[0]), END)
    assert writing.began.wait(DEADLINE_S)
    others = [behind.finish(claim(job_id), END) for job_id in JOBS[1:]]
    writing.open.set()
    assert [outcome(each) for each in (first, *others)] == [True] * 3
    assert writing.batches == [JOBS[:1], JOBS[1:]]


def test_an_end_whose_claim_is_lost_is_told_so(behind: EndsBehind, writing: Writing) -> None:
    writing.lost = {JOBS[1]}
    assert [outcome(behind.finish(claim(job_id), END)) for job_id in JOBS] == [True, False, True]


def test_an_end_is_written_again_after_an_outage(behind: EndsBehind, writing: Writing) -> None:
    writing.errors = [StoreUnavailable("Postgres is away.")] * 2
    assert outcome(behind.finish(claim(JOBS[0]), END))
    assert writing.batches == [JOBS[:1]] * 3


def test_an_end_is_dropped_after_a_long_outage(
    behind: EndsBehind, writing: Writing, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("workers.running.recording.ends_behind.REWRITE_FOR_S", -1)
    writing.errors = [StoreUnavailable("Postgres is away.")]
    assert not outcome(behind.finish(claim(JOBS[0]), END))
    assert [record.message for record in caplog.records] == ["result_dropped"]
    assert writing.batches == [JOBS[:1]]


def test_a_bad_row_fails_alone(behind: EndsBehind, writing: Writing, caplog: pytest.LogCaptureFixture) -> None:
    writing.bad = JOBS[1]
    writing.open.clear()
    behind.finish(claim(new_id()), END)
    commits = [behind.finish(claim(job_id), END) for job_id in JOBS]
    writing.open.set()
    assert [outcome(each) for each in commits] == [True, False, True]
    assert "end_not_written" in [record.message for record in caplog.records]


def test_a_locked_row_is_written_alone_until_it_is_free(behind: EndsBehind, writing: Writing) -> None:
    writing.locked = JOBS[0]
    writing.open.clear()
    behind.finish(claim(new_id()), END)
    assert writing.began.wait(DEADLINE_S)
    locked, other = (behind.finish(claim(job_id), END) for job_id in JOBS[:2])
    writing.open.set()
    assert outcome(other)
    later = behind.finish(claim(JOBS[2]), END)
    assert outcome(later)
    writing.locked = None
    assert outcome(locked)
    assert [batch for batch in writing.batches if len(batch) > 1] == [JOBS[:2]]


def test_a_row_that_stays_locked_is_dropped_when_the_worker_stops(
    writing: Writing, caplog: pytest.LogCaptureFixture
) -> None:
    behind = EndsBehind(writing.write, Gathering(0.0))
    behind.begin()
    writing.locked = JOBS[0]
    locked = behind.finish(claim(JOBS[0]), END)
    behind.end()
    assert not outcome(locked)
    assert [record.message for record in caplog.records] == ["result_dropped"]


def test_a_worker_that_stops_writes_the_last_ends(writing: Writing) -> None:
    behind = EndsBehind(writing.write, Gathering(0.0))
    behind.begin()
    commits = [behind.finish(claim(job_id), END) for job_id in JOBS]
    behind.end()
    assert not behind.is_open
    assert [outcome(each) for each in commits] == [True] * 3
