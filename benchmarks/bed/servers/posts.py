"""Batching of calls whose callers are coroutines: no thread waits for an outcome."""

from collections.abc import Callable
from typing import Any

from bed.servers.loop import Threads
from headrace.batching import Batching

#: What takes an outcome, in a thread: the result, or the error.
Then = Callable[[Any], None]


class Posts:
    """Posts calls to a batching. A thread leads each batch, and finishes its calls while the next batch is served."""

    def __init__(self, batching: Batching[Any, Any], threads: Threads) -> None:
        self._batching, self._threads = batching, threads

    def post(self, ask: Any, then: Then) -> None:
        """Make one call."""
        self._batching.post(ask, then, self._threads.start)
