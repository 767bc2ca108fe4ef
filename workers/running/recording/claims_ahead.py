"""Claims jobs while Celery still hands them to threads: one thread, and one statement for all jobs of a take.

A job's thread finds its claim made, or waits for the rest of the statement. Without this, each thread would ask for its
claim and be woken once more, and the first of them would claim alone.

With `ends_behind.py` it gives 2,379 jobs a second in place of 1,466 (`benchmarks/drain.py`, two cores, 2026-11-28).
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Row

from workers.running.recording.commits import Commit

#: Seconds that `end` waits for a statement under way: longer than Postgres may take for one.
END_TIMEOUT_S = 10.0
#: The most takes that share a statement.
MOST_TAKES = 4

#: A message: the job and its `enqueue_no`.
Message = tuple[UUID, int]
#: Starts a message's thread. Must not block.
Start = Callable[[], object]


class ClaimedRow(NamedTuple):
    """The row of a job that was claimed, and the commit of its claim. The row is None if there is nothing to claim."""

    row: Row[Any] | None
    commit: Commit


class ClaimCall(Future[ClaimedRow]):
    """The claim of one message. Its thread can be started once it is done.

    Attributes:
        is_alone: True if no other job was taken with this one, or waited for its claim then.
    """

    def __init__(self, message: Message, *, is_alone: bool = False) -> None:
        super().__init__()
        self.message, self.is_alone = message, is_alone


class ClaimsAhead:
    """Claims jobs that are on their way to their threads. Safe for many threads."""

    def __init__(self, serve: Callable[[Sequence[ClaimCall]], None]) -> None:
        """Claim nothing before `begin`.

        Args:
            serve: ends each of these calls. If it raises, the calls that have not ended get that error.
        """
        self._serve = serve
        self._changed = threading.Condition()
        self._calls: dict[Message, ClaimCall] = {}
        #: None ends the thread.
        self._asked: SimpleQueue[list[ClaimCall] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._serve_until_ended, name="claims", daemon=True)

    def begin(self) -> None:
        """Start to claim."""
        self._thread.start()

    def end(self) -> None:
        """Stop, after the last statement."""
        self._asked.put(None)
        if self._thread.is_alive():
            self._thread.join(END_TIMEOUT_S)

    def expect(self, asked: Mapping[UUID, int]) -> None:
        """Claim these jobs, `{job id: enqueue_no}`, whose threads will fetch their claims."""
        with self._changed:
            new = [message for message in asked.items() if message not in self._calls]
            is_alone = len(asked) == 1 and not self._calls
            calls = [ClaimCall(message, is_alone=is_alone) for message in new]
            self._calls |= {call.message: call for call in calls}
        if calls:
            self._asked.put(calls)

    def fetch(self, job_id: UUID, enqueue_no: int) -> ClaimCall | None:
        """The call that claims this message's job. None if it was not expected, or was fetched by another message."""
        with self._changed:
            call = self._calls.pop((job_id, enqueue_no), None)
            self._changed.notify_all()
            return call

    def when_claimed(self, job_id: UUID, enqueue_no: int, start: Start) -> None:
        """Call `start` once this message's job is claimed, or cannot be; at once if it was not expected.

        A job that was taken alone starts at once, too: its thread comes up while the claim is made.
        """
        if (call := self._calls.get((job_id, enqueue_no))) is None or call.is_alone:
            start()
        else:
            call.add_done_callback(lambda _: start())

    def expects(self, job_id: UUID, enqueue_no: int) -> bool:
        """True if this message's job is claimed, or being claimed, and its claim was not fetched."""
        return (job_id, enqueue_no) in self._calls

    def wait_until_fetched(self, timeout_s: float) -> bool:
        """Wait until every claim has been fetched by its thread. False if one is left after `timeout_s`."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._calls, timeout_s)

    def _serve_until_ended(self) -> None:
        is_ending = False
        while not is_ending:
            asked = [self._asked.get()]
            with suppress(Empty):
                # What was taken during the last statement shares the next one.
                while len(asked) < MOST_TAKES:
                    asked.append(self._asked.get_nowait())
            is_ending = None in asked
            self._serve_all([call for calls in asked if calls is not None for call in calls])

    def _serve_all(self, calls: Sequence[ClaimCall]) -> None:
        try:
            if calls:
                self._serve(calls)
        except BaseException as error:
            for call in calls:
                if not call.done():
                    call.set_exception(error)
