"""Work that many threads do together: what comes while a batch is under way goes with the next.

The first that comes leads, and serves whoever came meanwhile: who is alone waits for nobody, and a crowd shares what a
batch costs. Knows nothing of the work.
"""

import threading
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from queue import SimpleQueue
from typing import Generic, Literal, TypeVar

from headrace.errors import Unavailable

Key = TypeVar("Key", bound=Hashable)
Ask = TypeVar("Ask")
Outcome = TypeVar("Outcome")


class _Turn(Enum):
    LEAD = "lead"


@dataclass(eq=False, slots=True)
class _Call(Generic[Key, Ask, Outcome]):
    """One thread's. What it is told comes by its inbox: to lead perhaps, and then how it ended."""

    key: Key
    ask: Ask
    inbox: "SimpleQueue[tuple[Outcome | None] | BaseException | Literal[_Turn.LEAD]]" = field(
        default_factory=SimpleQueue
    )
    is_settled: bool = False

    def settle(self, told: tuple[Outcome | None] | BaseException) -> None:
        self.is_settled = True
        self.inbox.put(told)


class Sharing(Generic[Key, Ask, Outcome]):
    """Serves calls in batches, one batch at a time. Safe for many threads."""

    def __init__(self, serve: Callable[[Mapping[Key, Ask]], Mapping[Key, Outcome]], most: int) -> None:
        """Plan it.

        Args:
            serve: does the work of a batch; its outcomes by key, without those for which there is none.
            most: calls in one batch.
        """
        self._serve, self._most = serve, most
        self._lock = threading.Lock()
        self._waiting: list[_Call[Key, Ask, Outcome]] = []
        self._is_led = False

    def call(self, key: Key, ask: Ask) -> Outcome | None:
        """The outcome of one, or None when there is none for it. Two of one key are never in the same batch.

        Raises: what `serve` raises. A call that makes a batch fail fails alone, unless a server does not answer.
        """
        call = _Call[Key, Ask, Outcome](key, ask)
        with self._lock:
            self._waiting.append(call)
            leads, self._is_led = not self._is_led, True
        if leads:
            call.inbox.put(_Turn.LEAD)
        while (told := call.inbox.get()) is _Turn.LEAD:
            self._lead()
        if isinstance(told, BaseException):
            raise told
        return told[0]

    def _lead(self) -> None:
        """Serve one batch, and hand the lead to one who waits, if any does."""
        with self._lock:
            batch: dict[Key, _Call[Key, Ask, Outcome]] = {}
            for call in self._waiting:
                if len(batch) < self._most:
                    batch.setdefault(call.key, call)
            self._waiting = [call for call in self._waiting if batch.get(call.key) is not call]
        try:
            self._settle(batch)
        except BaseException as error:
            for call in batch.values():
                if not call.is_settled:
                    call.settle(error)
        finally:
            with self._lock:
                if self._waiting:
                    self._waiting[0].inbox.put(_Turn.LEAD)
                else:
                    self._is_led = False

    def _settle(self, batch: Mapping[Key, _Call[Key, Ask, Outcome]]) -> None:
        try:
            outcomes = self._serve({key: call.ask for key, call in batch.items()})
        except Unavailable:
            raise
        except Exception:
            if len(batch) == 1:
                raise
            for key, call in batch.items():
                self._settle_alone(key, call)
            return
        for key, call in batch.items():
            call.settle((outcomes.get(key),))

    def _settle_alone(self, key: Key, call: _Call[Key, Ask, Outcome]) -> None:
        try:
            call.settle((self._serve({key: call.ask}).get(key),))
        except Exception as error:
            call.settle(error)
