"""Statements that threads share: each call has its own outcome by its key, and one that spoils a batch fails alone.

Knows nothing of the work.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Generic, TypeVar

from headrace.batching import Batching, Call, Gathering
from headrace.errors import Unavailable

Key = TypeVar("Key", bound=Hashable)
Argument = TypeVar("Argument")
Result = TypeVar("Result")

#: Rows of one statement: more would only make everyone wait for the longest.
MOST = 64


class Sharing(Generic[Key, Argument, Result]):
    """Serves calls in batches, one batch at a time. Safe for many threads."""

    def __init__(
        self,
        serve: Callable[[Mapping[Key, Argument]], Mapping[Key, Result]],
        most: int,
        gathering: Gathering | None = None,
    ) -> None:
        """Plan it.

        Args:
            serve: does the work of a batch; its outcomes by key, without those for which there is none.
            most: calls in one batch.
            gathering: as for `Batching`.
        """
        self._serve = serve
        self.batching = Batching[tuple[Key, Argument], Result | None](self._settle, most, gathering)

    def call(self, key: Key, ask: Argument) -> Result | None:
        """The outcome of one, or None when there is none for it. Two of one key are never in the same batch.

        Raises: what `serve` raises. A call that makes a batch fail fails alone, unless a server does not answer.
        """
        return self.batching.call((key, ask), key)

    def _settle(self, calls: Sequence[Call[tuple[Key, Argument], Result | None]]) -> None:
        try:
            outcomes = self._serve(dict(call.ask for call in calls))
        except Unavailable:
            raise
        except Exception:
            if len(calls) == 1:
                raise
            for call in calls:
                self._settle_alone(call)
            return
        for call in calls:
            call.settle(outcomes.get(call.ask[0]))

    def _settle_alone(self, call: Call[tuple[Key, Argument], Result | None]) -> None:
        try:
            call.settle(self._serve(dict([call.ask])).get(call.ask[0]))
        except Exception as error:
            call.fail(error)
