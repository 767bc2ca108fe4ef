"""Writes the ends of jobs behind their threads: one thread, and one statement for all jobs that ended meanwhile.

A job's thread is free for the next job while its end goes to disk. The job stays among the running ones until then, and
nothing of its end leaves the worker before. What that gives: see `claims_ahead.py`.
"""

import logging
import threading
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import NamedTuple
from uuid import UUID

from headrace.batching import Gathering
from headrace.domain.attempts import AttemptEnd, Claim
from headrace.domain.ids import show_id
from headrace.errors import StoreBusy, StoreUnavailable
from workers.running.recording.commits import Commit
from workers.sharing import MOST

log = logging.getLogger(__name__)

#: Seconds before a write that Postgres did not accept is retried.
REWRITE_AFTER_S = 0.5
#: Seconds before the write of an end whose row is locked is retried. Meanwhile the others are written: the retry holds
#: them up for as long as Postgres waits for a lock.
LOCKED_FOR_S = 5.0
#: Seconds for which the write of an answer is retried. Must be longer than `rescue` waits after an outage before it
#: takes a job from a live worker. Otherwise a restart of Postgres would cost a second generation.
REWRITE_FOR_S = 60.0
#: Seconds that `end` waits for a statement under way: longer than Postgres may take for one.
END_TIMEOUT_S = 10.0

#: Writes ends, and returns the jobs whose claims still held.
Write = Callable[[Sequence[tuple[Claim, AttemptEnd]]], Collection[UUID]]


class _Ask(NamedTuple):
    claim: Claim
    end: AttemptEnd
    commit: Commit
    give_up_at: float


class EndsBehind:
    """Writes ends in the order in which they come; those whose rows are locked come later. Safe for many threads.

    Attributes:
        is_open: True from `begin` to `end`.
    """

    def __init__(self, write: Write, gathering: Gathering) -> None:
        """Write nothing before `begin`. Args: gathering: how a statement waits for more ends."""
        self._write, self._gathering = write, gathering
        self.is_open = False
        #: None ends the thread.
        self._asked: SimpleQueue[_Ask | None] = SimpleQueue()
        #: Ends whose rows were locked, and when they are written again.
        self._late, self._late_at = list[_Ask](), 0.0
        self._thread = threading.Thread(target=self._write_until_ended, name="ends", daemon=True)

    def begin(self) -> None:
        """Start to write."""
        self.is_open = True
        self._thread.start()

    def end(self) -> None:
        """Stop, after the last statement."""
        self.is_open = False
        self._asked.put(None)
        if self._thread.is_alive():
            self._thread.join(END_TIMEOUT_S)

    def finish(self, claim: Claim, end: AttemptEnd) -> Commit:
        """End the job soon. Returns: its commit, which fails if the claim or the answer is lost."""
        commit = Commit()
        self._gathering.came()
        self._asked.put(_Ask(claim, end, commit, time.monotonic() + REWRITE_FOR_S))
        return commit

    def _write_until_ended(self) -> None:
        is_ending = False
        while not is_ending:
            asked = self._gathered()
            is_ending = None in asked
            self._write_all([ask for ask in asked if ask is not None])
            if is_ending or time.monotonic() >= self._late_at:
                self._write_late()
        for ask in self._late:
            _drop(ask, StoreUnavailable("The worker has stopped."))

    def _gathered(self) -> list[_Ask | None]:
        """The next ends; none if late ones are due before any comes."""
        asked = list[_Ask | None]()
        with suppress(Empty):
            asked.append(self._asked.get(timeout=max(0.0, self._late_at - time.monotonic()) if self._late else None))
            self._gathering.wait()
            while len(asked) < MOST:
                asked.append(self._asked.get_nowait())
        return asked

    def _put_off(self, asks: list[_Ask]) -> None:
        if not self._late:
            self._late_at = time.monotonic() + LOCKED_FOR_S
        self._late += asks

    def _write_late(self) -> None:
        late, self._late = self._late, []
        _apart(late, self._write_all)

    def _write_all(self, asks: list[_Ask]) -> None:
        """Write these ends; retry through a Postgres outage."""
        while asks:
            try:
                held = self._write([(ask.claim, ask.end) for ask in asks])
            except StoreBusy as error:
                if len(asks) > 1:
                    _apart(asks, self._write_all)
                else:
                    self._put_off(_in_time(asks, error))
                return
            except StoreUnavailable as error:
                asks = _in_time(asks, error)
                time.sleep(REWRITE_AFTER_S)
            except Exception as error:
                if len(asks) > 1:
                    _apart(asks, self._write_all)
                else:
                    log.error("end_not_written", extra=_facts(asks[0]), exc_info=error)
                    asks[0].commit.fail(error)
                return
            else:
                for ask in asks:
                    _tell(ask, is_held=ask.claim.job_id in held)
                return


def _in_time(asks: Sequence[_Ask], error: StoreUnavailable) -> list[_Ask]:
    """The ends that are written again; drops the others."""
    now = time.monotonic()
    for ask in asks:
        if ask.give_up_at < now:
            _drop(ask, error)
    return [ask for ask in asks if ask.give_up_at >= now]


def _drop(ask: _Ask, error: StoreUnavailable) -> None:
    log.error("result_dropped", extra=_facts(ask))
    ask.commit.fail(error)


def _apart(asks: Sequence[_Ask], write: Callable[[list[_Ask]], object]) -> None:
    """Write each end alone, so that only the one that cannot be written fails, or comes later."""
    for ask in asks:
        write([ask])


def _tell(ask: _Ask, *, is_held: bool) -> None:
    if is_held:
        ask.commit.succeed()
    else:
        log.warning("claim_lost", extra=_facts(ask))
        ask.commit.fail(LookupError("The claim is lost."))


def _facts(ask: _Ask) -> dict[str, object]:
    return {"job_id": show_id(ask.claim.job_id), "attempt": ask.claim.attempt}
