"""Calls of a batch whose callers are coroutines: no thread waits for an outcome."""

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from bed.servers.loop import Threads
from headrace.batching import Batching, _Call, _Turn

#: What takes an outcome, in a thread: the result, or the error.
Then = Callable[[Any], None]


class Posts:
    """Posts calls to a batching. A thread leads each batch, and finishes its calls while the next batch is served."""

    def __init__(self, batching: Batching[Any, Any], threads: Threads) -> None:
        self._batching, self._threads = batching, threads
        self._local = threading.local()

    def post(self, ask: Any, then: Then) -> None:
        """Make one call."""
        batching = self._batching
        call: _Call[Any, Any] = _Call(ask, None)
        call.inbox = _Inbox(self, then)  # type: ignore[assignment]
        if batching._gathering is not None:
            batching._gathering.came()
        with batching._lock:
            batching._waiting.append(call)
            leads, batching._is_led = not batching._is_led, True
        if leads:
            self.start_leader()

    def start_leader(self) -> None:
        """Serve the next batch in a thread."""
        self._threads.start(self._lead)

    def take(self, then: Then, outcome: Any) -> None:
        """Finish a call: after its batch where this thread leads it, else in another thread."""
        mine = getattr(self._local, "mine", None)
        if mine is None:
            self._threads.start(partial(then, outcome))
        else:
            mine.append(partial(then, outcome))

    def _lead(self) -> None:
        mine = self._local.mine = []
        try:
            self._batching._lead()
        finally:
            self._local.mine = None
        for finish in mine:
            finish()


class _Inbox:
    """Stands in for the queue of a thread that waits."""

    __slots__ = ("_posts", "_then")

    def __init__(self, posts: Posts, then: Then) -> None:
        self._posts, self._then = posts, then

    def put(self, outcome: Any) -> None:
        """Lead, or take the outcome."""
        if outcome is _Turn.LEAD:
            self._posts.start_leader()
        else:
            self._posts.take(self._then, outcome)
