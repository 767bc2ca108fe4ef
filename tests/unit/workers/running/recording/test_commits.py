"""The commit of claims, as the threads of their jobs see it."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from headrace.errors import StoreUnavailable
from workers.running.recording.commits import ON_DISK, Commit

DEADLINE_S = 10


def test_a_thread_waits_until_the_commit_is_over_and_acts_come_before_it_goes_on() -> None:
    commit, told = Commit(), list[bool]()
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(commit.wait)
        commit.then(told.append)
        assert not waiting.done()
        assert told == []
        commit.succeed()
        waiting.result(DEADLINE_S)
    assert told == [True]
    commit.then(told.append)
    assert told == [True, True], "at once, now that it is over"


def test_a_failed_commit_is_a_store_that_is_away_whatever_failed() -> None:
    commit, told = Commit(), list[bool]()
    commit.then(told.append)
    commit.fail(RuntimeError("a bug"))
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="a bug"):
            commit.wait()
    assert told == [False]


def test_a_fault_of_one_job_is_no_other_one_s(caplog: pytest.LogCaptureFixture) -> None:
    commit, told = Commit(), threading.Event()

    def fault(_is_on_disk: bool) -> None:
        raise RuntimeError("a bug")

    commit.then(fault)
    commit.then(lambda _: told.set())
    commit.succeed()
    commit.wait()
    assert told.is_set()
    assert "commit_fault" in caplog.text


def test_what_is_on_disk_needs_no_wait() -> None:
    told = list[bool]()
    ON_DISK.then(told.append)
    ON_DISK.wait()
    assert told == [True]
