"""Work that many threads do together: what comes while a batch is under way goes with the next.

The first that comes leads, and serves whoever came meanwhile: who is alone waits for nobody, and a crowd shares what a
batch costs. One batch at a time: a second would halve the batches, and gain nothing. Knows nothing of the work.
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

#: A batch that fails after so long, in seconds, has waited for a server that says nothing. Who came meanwhile is told
#: the same: each batch would wait as long, and callers who come faster than those fail would take every thread.
SILENCE_S = 1.0
#: So many that have come within so long, in seconds, are a crowd: more are about to come.
CROWD = 4
CROWD_S = 0.01


class Gathering:
    """A moment's wait for more, while so much comes that it is not for nothing. Safe for many threads.

    Who comes alone waits for nothing, and neither do those who come one after the other.
    """

    def __init__(
        self, for_s: float, clock: Callable[[], float] = time.monotonic, pause: Callable[[float], object] = time.sleep
    ) -> None:
        """Nobody has come yet. Args: for_s: how long the wait is."""
        self._for_s, self._clock, self._pause = for_s, clock, pause
        self._came_at = deque[float](maxlen=CROWD)

    def came(self) -> None:
        """One more has come."""
        self._came_at.append(self._clock())

    def wait(self) -> None:
        """Wait for more in a crowd; else return at once."""
        if len(self._came_at) == CROWD and self._clock() - self._came_at[0] < CROWD_S:
            self._pause(self._for_s)


class _Turn(Enum):
    LEAD = "lead"


class Call(Generic[Argument, Result]):
    """One thread's. What it is told comes by its inbox: to lead perhaps, and then how it ended.

    Attributes:
        key: two of one key are never in the same batch; None for one that may go with any.
    """

    def __init__(self, ask: Argument, key: Hashable | None) -> None:
        self.ask, self.key = ask, key
        self.is_settled = False
        self._inbox: SimpleQueue[tuple[Result] | BaseException | Literal[_Turn.LEAD]] = SimpleQueue()

    def settle(self, outcome: Result) -> None:
        """Tell how it ended."""
        self.is_settled = True
        self._inbox.put((outcome,))

    def fail(self, error: BaseException) -> None:
        """Let it raise this."""
        self.is_settled = True
        self._inbox.put(error)

    def lead(self) -> None:
        """Let it serve the next batch, which it is in."""
        self._inbox.put(_Turn.LEAD)

    def told(self) -> tuple[Result] | BaseException | Literal[_Turn.LEAD]:
        """What it is told next; blocks until then."""
        return self._inbox.get()


class Batching(Generic[Argument, Result]):
    """Serves calls in batches. Safe for many threads."""

    def __init__(
        self, serve: Callable[[Sequence[Call[Argument, Result]]], None], most: int, gathering: Gathering | None = None
    ) -> None:
        """Plan it.

        Args:
            serve: settles or fails each call of a batch. What it raises is told to those that it did not come to.
            most: calls in one batch.
            gathering: how who leads waits for more before a batch; None where he does not.
        """
        self._serve, self._most, self._gathering = serve, most, gathering
        self._lock = threading.Lock()
        self._waiting: list[Call[Argument, Result]] = []
        self._is_led = False

    @property
    def waiting(self) -> int:
        """Calls that no batch has taken yet."""
        return len(self._waiting)

    @property
    def is_idle(self) -> bool:
        """True while nobody leads and nobody waits."""
        return not (self._is_led or self._waiting)

    def call(self, ask: Argument, key: Hashable | None = None) -> Result:
        """The outcome of one. Raises: what its batch was failed with."""
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
        """Serve one batch, and hand the lead to one who waits, if any does."""
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
            # Under the lock: nobody else can settle the successor before he is told to lead.
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
