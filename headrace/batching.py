"""Batching of calls from many threads: calls that arrive while a batch is served form the next batch.

The first caller leads: it serves a batch of all waiting calls. A lone call does not wait; many calls share the cost of
a batch. One batch runs at a time: two at once would only be half as large. Knows nothing about the work itself.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from queue import SimpleQueue
from typing import Generic, Literal, TypeVar

from headrace.errors import StoreBusy, Unavailable

Argument = TypeVar("Argument")
Result = TypeVar("Result")

#: A batch with an outage after this many seconds waited for a server that does not answer. The calls that arrived
#: meanwhile fail with it. Otherwise each of their batches would wait as long, and calls that arrive faster than batches
#: fail would occupy every thread.
SILENCE_S = 1.0
#: `CROWD` calls within `CROWD_S` seconds are a crowd: more are about to arrive. So are more calls at the same rate.
CROWD = 4
CROWD_S = 0.01


class Gathering:
    """A short wait before a batch, so that more calls join it. Only a crowd waits. Safe for many threads.

    A lone call does not wait, and neither do calls that come one after the other.
    """

    def __init__(
        self,
        for_s: float,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], object] = time.sleep,
    ) -> None:
        """Start without calls. Args: for_s: length of the wait, in seconds."""
        self._for_s, self._clock, self._pause = for_s, clock, pause
        self._came_at = deque[float](maxlen=CROWD)

    def came(self) -> None:
        """Count a call that has arrived."""
        self._came_at.append(self._clock())

    def wait(self) -> None:
        """Wait for more calls if there is a crowd; else return at once."""
        if len(self._came_at) == CROWD and self._clock() - self._came_at[0] < CROWD_S:
            self._pause(self._for_s)


class _Turn(Enum):
    LEAD = "lead"


@dataclass(slots=True)
class _Call(Generic[Argument, Result]):
    """One call. Attributes: inbox: its thread waits there for its outcome, or for its turn to lead a batch."""

    ask: Argument
    key: Hashable | None
    inbox: "SimpleQueue[Result | BaseException | Literal[_Turn.LEAD]]" = field(default_factory=SimpleQueue)


class Batching(Generic[Argument, Result]):
    """Serves calls in batches. Safe for many threads."""

    def __init__(
        self,
        serve: Callable[[Sequence[Argument]], Sequence[Result | BaseException]],
        most: int,
        gathering: Gathering | None = None,
    ) -> None:
        """Create it without calls.

        Args:
            serve: returns the outcome of each call of a batch, in their order: its result, or the error that it
                raises. If it raises, each call of the batch raises that error.
            most: maximum calls in one batch.
            gathering: how the leader waits for more calls before a batch; None for no wait.
        """
        self._serve, self._most, self._gathering = serve, most, gathering
        self._lock = threading.Lock()
        self._waiting: list[_Call[Argument, Result]] = []
        self._is_led = False

    @property
    def waiting(self) -> int:
        """Number of calls that are in no batch yet."""
        return len(self._waiting)

    @property
    def is_idle(self) -> bool:
        """True while no batch is served and no call waits."""
        return not (self._is_led or self._waiting)

    def call(self, ask: Argument, key: Hashable | None = None) -> Result:
        """Make one call and return its result. Raises: the error that the call or its batch failed with.

        Args: key: two calls with the same key are never in one batch; None for no such restriction.
        """
        call = _Call[Argument, Result](ask, key)
        if self._gathering is not None:
            self._gathering.came()
        with self._lock:
            self._waiting.append(call)
            leads, self._is_led = not self._is_led, True
        if leads:
            self._lead()
        while (outcome := call.inbox.get()) is _Turn.LEAD:
            self._lead()
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def _lead(self) -> None:
        """Serve one batch, then hand the lead to a waiting call, if any."""
        if self._gathering is not None and len(self._waiting) < self._most:
            self._gathering.wait()
        batch = self._next_batch()
        began = time.monotonic()
        try:
            outcomes = self._serve([call.ask for call in batch])
            assert len(outcomes) == len(batch), "Each call must have an outcome."
        except BaseException as error:
            outcomes = [error] * len(batch)
        if time.monotonic() - began >= SILENCE_S and (outage := _outage(outcomes)) is not None:
            with self._lock:
                late, self._waiting = self._waiting, []
            batch, outcomes = [*batch, *late], [*outcomes, *[outage] * len(late)]
        # Under the lock, so that nothing can end the next leader's call before it is told to lead.
        with self._lock:
            if self._waiting:
                self._waiting[0].inbox.put(_Turn.LEAD)
            else:
                self._is_led = False
        for call, outcome in zip(batch, outcomes, strict=True):
            call.inbox.put(outcome)

    def _next_batch(self) -> list[_Call[Argument, Result]]:
        with self._lock:
            batch: list[_Call[Argument, Result]] = []
            rest: list[_Call[Argument, Result]] = []
            keys: set[Hashable] = set()
            for call in self._waiting:
                fits = len(batch) < self._most and (call.key is None or call.key not in keys)
                (batch if fits else rest).append(call)
                keys |= {call.key} if fits else set()
            self._waiting = rest
        return batch


def _outage(outcomes: Sequence[object]) -> Unavailable | None:
    """The error of a server that did not answer; None if it did. StoreBusy is one only where no call got through."""
    failed = [each for each in outcomes if isinstance(each, Unavailable)]
    if len(failed) < len(outcomes):
        failed = [each for each in failed if not isinstance(each, StoreBusy)]
    return failed[0] if failed else None
