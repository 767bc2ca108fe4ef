"""Serves the calls of many threads in shared batches.

Each call has a key and its own outcome. A call that makes its batch fail fails alone. Independent of the work.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Generic, TypeVar

from headrace.batching import Batching, Gathering
from headrace.errors import StoreBusy, Unavailable

Key = TypeVar("Key", bound=Hashable)
Argument = TypeVar("Argument")
Result = TypeVar("Result")

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
        self.batching = Batching[tuple[Key, Argument], Result | None](self._serve_batch, most, gathering)

    def call(self, key: Key, ask: Argument) -> Result | None:
        """Return the call's outcome, or None without one. A batch never holds two calls with the same key.

        Raises: what `serve` raises. After a failure each call is served alone; an outage fails the whole batch.
        """
        return self.batching.call((key, ask), key)

    def _serve_batch(self, asks: Sequence[tuple[Key, Argument]]) -> Sequence[Result | BaseException | None]:
        try:
            outcomes = self._serve(dict(asks))
        except Exception as error:
            if len(asks) == 1 or is_outage(error):
                raise
            return apart(asks, lambda ask: self._serve(dict([ask])).get(ask[0]))
        return [outcomes.get(key) for key, _ in asks]


def is_outage(error: Exception) -> bool:
    """True if no call of the failed batch can succeed now. Alone, those whose rows are not locked can."""
    return isinstance(error, Unavailable) and not isinstance(error, StoreBusy)


def apart(asks: Iterable[Argument], serve: Callable[[Argument], Result]) -> list[Result | Exception]:
    """Serve each of these asks alone. Returns: each one's result, or the error that `serve` raised, in order."""
    outcomes, busy = list[Result | Exception](), list[StoreBusy]()
    for ask in asks:
        if len(busy) == MOST_BUSY:
            outcomes.append(busy[-1])
            continue
        try:
            outcomes.append(serve(ask))
        except Exception as error:
            outcomes.append(error)
            if isinstance(error, StoreBusy):
                busy.append(error)
    return outcomes
