import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import pytest

from headrace.batching import CROWD, Gathering
from headrace.domain.ids import new_id
from headrace.errors import BrokerUnavailable
from workers.running.publisher import Notices

DEADLINE_S = 10
FIRST, SECOND, THIRD = new_id(), new_id(), new_id()


class Recorder:
    """In Redis's place: keeps each call, and refuses those whose names are in `failing`. Waits for `open`."""

    def __init__(self) -> None:
        self.calls = list[tuple[str, Any]]()
        self.failing: dict[str, Exception] = {}
        self.entered, self.open = threading.Event(), threading.Event()
        self.open.set()

    def announce_ended(self, job_ids: Sequence[UUID], *, has_webhooks: bool) -> None:
        self._call("ended, webhooks due" if has_webhooks else "ended", list(job_ids))

    def leave(self, stays: Sequence[tuple[UUID, int]]) -> None:
        self._call("left", [tuple(stay) for stay in stays])

    def _call(self, name: str, words: list[Any]) -> None:
        if not words:
            return
        self.calls.append((name, words))
        self.entered.set()
        assert self.open.wait(DEADLINE_S)
        if name in self.failing:
            raise self.failing[name]


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def threads(recorder: Recorder) -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as made:
        yield made
        recorder.open.set()


@pytest.fixture
def notices(recorder: Recorder, threads: ThreadPoolExecutor) -> Notices:
    return Notices(recorder, threads)  # type: ignore[arg-type]


def test_words_that_come_together_are_passed_on_together(
    notices: Notices, recorder: Recorder, threads: ThreadPoolExecutor
) -> None:
    recorder.open.clear()
    notices.left(THIRD, 1)
    assert recorder.entered.wait(DEADLINE_S)
    notices.left(FIRST, 1)
    notices.left(SECOND, 3)
    notices.ended(FIRST, has_webhook=True)
    notices.ended(SECOND, has_webhook=False)
    recorder.open.set()
    threads.shutdown()
    assert recorder.calls == [
        ("left", [(THIRD, 1)]),
        ("ended, webhooks due", [FIRST, SECOND]),
        ("left", [(FIRST, 1), (SECOND, 3)]),
    ]


def test_while_many_jobs_come_words_wait_for_more(recorder: Recorder, threads: ThreadPoolExecutor) -> None:
    now = 0.0

    def pause(for_s: float) -> None:
        nonlocal now
        now += for_s
        notices.ended(FIRST, has_webhook=False)

    notices = Notices(recorder, threads, Gathering(1.0, lambda: now, pause))  # type: ignore[arg-type]
    recorder.open.clear()
    notices.left(THIRD, 1)
    assert recorder.entered.wait(DEADLINE_S)
    for _ in range(CROWD):
        notices.left(FIRST, 1)
    recorder.open.set()
    threads.shutdown()
    assert recorder.calls[1:] == [("ended", [FIRST]), ("left", [(FIRST, 1)] * CROWD)]


@pytest.mark.parametrize("failing", ["ended", "left"])
def test_a_redis_that_does_not_take_one_word_is_given_the_others(
    notices: Notices,
    recorder: Recorder,
    threads: ThreadPoolExecutor,
    failing: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    recorder.failing[failing] = BrokerUnavailable("Redis is away.")
    notices.left(FIRST, 1)
    notices.ended(FIRST, has_webhook=False)
    threads.shutdown()
    assert sorted(name for name, _ in recorder.calls) == ["ended", "left"]
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_after_a_fault_later_words_are_passed_on(
    notices: Notices, recorder: Recorder, threads: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    recorder.failing["left"] = ValueError("a fault")
    notices.left(FIRST, 1)
    notices.left(SECOND, 1)
    notices.ended(FIRST, has_webhook=False)
    threads.shutdown()
    assert ("ended", [FIRST]) in recorder.calls
    assert "notices_fault" in caplog.messages
