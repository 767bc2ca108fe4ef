"""Serves the calls of many threads in shared batches.

Each call has a key and its own outcome. A call that makes its batch fail fails alone. Independent of the work.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from headrace.batching import Batching, Call, Gathering
from headrace.errors import StoreBusy, Unavailable

Key = TypeVar("Key", bound=Hashable)
Argument = TypeVar("Argument")
Result = TypeVar("Result")
AnyCall = TypeVar("AnyCall", bound=Call[Any, Any])

#: The most rows in one statement. With more, each call would only wait longer for the slowest one.
MOST = 64
#: Calls of the paid API take a second or more, and each would cost 16 queries by itself. Calls that come so many
#: seconds apart are a crowd, and a statement waits so many seconds for more of them.
PAID_EACH_S, PAID_GATHER_S = 0.025, 0.02

#: Calls of a batch that may fail because Postgres is busy before the rest of it fails, too: then more than single rows
#: is locked, and each call would wait for as long.
MOST_BUSY = 2


def gathering_paid() -> Gathering:
    """How statements about calls of the paid API wait for more of them."""
    return Gathering(PAID_GATHER_S, each_s=PAID_EACH_S)


class Sharing(Generic[Key, Argument, Result]):
    """Serves calls in batches, one batch at a time. Safe for many threads."""

    def __init__(
        self,
        serve: Callable[[Mapping[Key, Argument]], Mapping[Key, Result]],
        most: int,
        gathering: Gathering | None = None,
    ) -> None:
        """Serve nothing yet.

        Args:
            serve: does the work of a batch. Returns the outcomes by key; a key may be missing.
            most: the most calls in one batch.
            gathering: as for `Batching`.
        """
        self._serve = serve
        self.batching = Batching[tuple[Key, Argument], Result | None](self.settle, most, gathering)

    def call(self, key: Key, ask: Argument) -> Result | None:
        """Return the call's outcome, or None without one. A batch never holds two calls with the same key.

        Raises: what `serve` raises. After a failure each call is served alone; an outage fails the whole batch.
        """
        return self.batching.call((key, ask), key)

    def settle(self, calls: Sequence[Call[tuple[Key, Argument], Result | None]]) -> None:
        """Settle or fail each of these calls, as one batch. Raises: an outage, and none of them has ended."""
        try:
            outcomes = self._serve(dict(call.ask for call in calls))
        except Exception as error:
            if len(calls) == 1 or is_outage(error):
                raise
            apart(calls, self._settle_alone)
            return
        for call in calls:
            call.settle(outcomes.get(call.ask[0]))

    def _settle_alone(self, call: Call[tuple[Key, Argument], Result | None]) -> None:
        call.settle(self._serve(dict([call.ask])).get(call.ask[0]))


def is_outage(error: Exception) -> bool:
    """True if no call of the failed batch can succeed now. Alone, those whose rows are not locked can."""
    return isinstance(error, Unavailable) and not isinstance(error, StoreBusy)


def apart(calls: Iterable[AnyCall], settle: Callable[[AnyCall], object]) -> None:
    """Settle each of these calls alone. Args: settle: raises what its call fails with."""
    busy = list[StoreBusy]()
    for call in calls:
        if len(busy) == MOST_BUSY:
            call.fail(busy[-1])
            continue
        try:
            settle(call)
        except Exception as error:
            call.fail(error)
            if isinstance(error, StoreBusy):
                busy.append(error)
