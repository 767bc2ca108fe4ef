"""Celery's thread pool, extended to wake the consumer when a slot frees.

With early acknowledgement and without prefetch, nothing else wakes it: the next message would wait for the hub's
one-second timer (measured: 1 task a second per slot instead of hundreds).
"""

from concurrent.futures import Future
from typing import Any

from celery.concurrency.thread import ApplyResult
from celery.concurrency.thread import TaskPool as ThreadPool

from headrace.broker.transport import Taker


class TaskPool(ThreadPool):
    """Threads that wait for an engine; the engine's process does the work."""

    _taker: Taker

    def on_start(self) -> None:
        """Find the taker, which waits for free slots."""
        super().on_start()
        self._taker = self.app.conf.broker_transport_options["taker"]

    def on_apply(self, *args: Any, **kwargs: Any) -> ApplyResult:
        """Run one task in a thread."""
        result = super().on_apply(*args, **kwargs)
        result.f.add_done_callback(self._slot_freed)
        return result

    def _slot_freed(self, _task: Future[Any]) -> None:
        # Not if all slots are not taken: the loop would find nothing to do.
        self._taker.wake()
