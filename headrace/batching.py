"""Batching of calls from many threads: calls that arrive while a batch is served form the next batch.

The first caller leads: it serves a batch of all waiting calls. A lone call does not wait; many calls share the cost of
a batch. One batch runs at a time: two at once would only be half as large. Knows nothing about the work itself.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from enum import Enum
from queue import SimpleQueue
from typing import Generic, Literal, TypeVar

from headrace.errors import Unavailable

Argument = TypeVar("Argument")
Result = TypeVar("Result")

#: A batch that fails with Unavailable after this many seconds waited for a server that does not answer. The calls that
#: arrived meanwhile fail with it. Otherwise each of their batches would wait as long, and calls that arrive faster than
#: batches fail would occupy every thread.
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
        crowd: int = CROWD,
        each_s: float = CROWD_S / CROWD,
    ) -> None:
        """Start without calls.

        Args:
            for_s: length of the wait, in seconds.
            crowd: the calls of the smallest crowd; more than come together where they come one burst at a time.
            each_s: seconds from one call of a crowd to the next, on average and at most.
        """
        self._for_s, self._clock, self._pause = for_s, clock, pause
        self._crowd, self._within_s = crowd, crowd * each_s
        self._came_at = deque[float](maxlen=crowd)

    def came(self) -> None:
        """Count a call that has arrived."""
        self._came_at.append(self._clock())

    def wait(self) -> None:
        """Wait for more calls if there is a crowd; else return at once."""
        if len(self._came_at) == self._crowd and self._clock() - self._came_at[0] < self._within_s:
            self._pause(self._for_s)


class _Turn(Enum):
    LEAD = "lead"


class Call(Generic[Argument, Result]):
    """The call of one thread. Its inbox tells the thread to lead, or how the call ended.

    Attributes:
        key: two calls with the same key are never in one batch; None for no such restriction.
    """

    def __init__(self, ask: Argument, key: Hashable | None) -> None:
        self.ask, self.key = ask, key
        self.is_settled = False
        self._inbox: SimpleQueue[tuple[Result] | BaseException | Literal[_Turn.LEAD]] = SimpleQueue()

    def settle(self, outcome: Result) -> None:
        """End the call with this result."""
        self.is_settled = True
        self._inbox.put((outcome,))

    def fail(self, error: BaseException) -> None:
        """Let the call raise this error."""
        self.is_settled = True
        self._inbox.put(error)

    def lead(self) -> None:
        """Let the call's thread serve the next batch, which contains this call."""
        self._inbox.put(_Turn.LEAD)

    def told(self) -> tuple[Result] | BaseException | Literal[_Turn.LEAD]:
        """The next message in the inbox; blocks until one comes."""
        return self._inbox.get()

    def outcome(self) -> Result | BaseException:
        """How the call ended, for the thread that served it and never waited in `Batching.call`."""
        assert self.is_settled
        told = self.told()
        assert told is not _Turn.LEAD
        return told if isinstance(told, BaseException) else told[0]

    def result(self) -> Result:
        """The result of a call that another thread serves. Blocks until it has ended. Raises: what it failed with."""
        told = self.told()
        assert told is not _Turn.LEAD, "Such a call is in no batch that it could lead."
        if isinstance(told, BaseException):
            raise told
        return told[0]


class Batching(Generic[Argument, Result]):
    """Serves calls in batches. Safe for many threads."""

    def __init__(
        self, serve: Callable[[Sequence[Call[Argument, Result]]], None], most: int, gathering: Gathering | None = None
    ) -> None:
        """Create it without calls.

        Args:
            serve: settles or fails each call of a batch. If it raises, the calls not yet ended fail with that error.
            most: maximum calls in one batch.
            gathering: how the leader waits for more calls before a batch; None for no wait.
        """
        self._serve, self._most, self._gathering = serve, most, gathering
        self._lock = threading.Lock()
        self._waiting: list[Call[Argument, Result]] = []
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
        """Make one call and return its result. Raises: the error that the call or its batch failed with."""
        call = Call[Argument, Result](ask, key)
        if self._gathering is not None:
            self._gathering.came()
        with self._lock:
            self._waiting.append(call)
            leads, self._is_led = not self._is_led, True
        if leads:
            call.lead()
        while (told := call.told()) is _Turn.LEAD:
            self._lead()
        if isinstance(told, BaseException):
            raise told
        return told[0]

    def _lead(self) -> None:
        """Serve one batch, then hand the lead to a waiting call, if any."""
        if self._gathering is not None and len(self._waiting) < self._most:
            self._gathering.wait()
        batch = self._next_batch()
        began = time.monotonic()
        try:
            self._serve(batch)
        except BaseException as error:
            if isinstance(error, Unavailable) and time.monotonic() - began >= SILENCE_S:
                with self._lock:
                    batch, self._waiting = [*batch, *self._waiting], []
            for call in batch:
                if not call.is_settled:
                    call.fail(error)
        finally:
            # Under the lock, so that nothing can settle the next leader before it is told to lead.
            with self._lock:
                if self._waiting:
                    self._waiting[0].lead()
                else:
                    self._is_led = False

    def _next_batch(self) -> list[Call[Argument, Result]]:
        with self._lock:
            batch: list[Call[Argument, Result]] = []
            rest: list[Call[Argument, Result]] = []
            keys: set[Hashable] = set()
            for call in self._waiting:
                fits = len(batch) < self._most and (call.key is None or call.key not in keys)
                (batch if fits else rest).append(call)
                keys |= {call.key} if fits else set()
            self._waiting = rest
        return batch
