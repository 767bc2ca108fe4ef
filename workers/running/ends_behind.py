"""Writes the ends of jobs behind their threads: one thread, and one statement for all jobs that ended meanwhile.

A job's thread is free for the next job while its end goes to disk. The job stays among the running ones until then, and
nothing of its end leaves the worker before.
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
from headrace.errors import StoreUnavailable
from workers.running.commits import Commit
from workers.sharing import MOST

log = logging.getLogger(__name__)

#: Seconds before a write that Postgres did not accept is retried.
REWRITE_AFTER_S = 0.5
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
    """Writes ends in the order in which they come. Safe for many threads.

    Attributes:
        is_open: True from `begin` to `end`.
    """

    def __init__(self, write: Write, gathering: Gathering) -> None:
        """Write nothing before `begin`. Args: gathering: how a statement waits for more ends."""
        self._write, self._gathering = write, gathering
        self.is_open = False
        #: None ends the thread.
        self._asked: SimpleQueue[_Ask | None] = SimpleQueue()
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
            asked = [self._asked.get()]
            self._gathering.wait()
            with suppress(Empty):
                while len(asked) < MOST:
                    asked.append(self._asked.get_nowait())
            is_ending = None in asked
            self._write_all([ask for ask in asked if ask is not None])

    def _write_all(self, asks: list[_Ask]) -> None:
        """Write these ends; retry through a Postgres outage."""
        while asks:
            try:
                held = self._write([(ask.claim, ask.end) for ask in asks])
            except StoreUnavailable as error:
                asks = _in_time(asks, error)
                time.sleep(REWRITE_AFTER_S)
            except Exception as error:
                _apart(asks, error, self._write_all)
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
            log.error("result_dropped", extra=_facts(ask))
            ask.commit.fail(error)
    return [ask for ask in asks if ask.give_up_at >= now]


def _apart(asks: Sequence[_Ask], error: Exception, write: Callable[[list[_Ask]], object]) -> None:
    """Write each end alone, so that only the bad one fails."""
    if len(asks) > 1:
        for ask in asks:
            write([ask])
        return
    log.error("end_not_written", extra=_facts(asks[0]), exc_info=error)
    asks[0].commit.fail(error)


def _tell(ask: _Ask, *, is_held: bool) -> None:
    if is_held:
        ask.commit.succeed()
    else:
        log.warning("claim_lost", extra=_facts(ask))
        ask.commit.fail(LookupError("The claim is lost."))


def _facts(ask: _Ask) -> dict[str, object]:
    return {"job_id": show_id(ask.claim.job_id), "attempt": ask.claim.attempt}
