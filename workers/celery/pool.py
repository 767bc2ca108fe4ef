"""Celery's thread pool, with three differences. A message that was taken is run here, and its end reported to Celery.

Run: a task gets a thread once its job is claimed. Celery wakes a thread at once, which then waits for the claim. To
block a thread and to wake it costs a short job more than anything else that the worker does for it.

Ended: Celery learns a task's outcome when that is on disk. By itself Celery would report it when the thread ends, so
the thread would have to wait for the disk.

Freed: a freed slot wakes the consumer. With early acknowledgement and without prefetch, Celery wakes it by nothing: the
next message would wait for the hub's one-second timer (measured: 1 task a second per slot instead of hundreds).
"""

from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any

from celery.concurrency.thread import TaskPool as ThreadPool

from headrace.broker.transport import Taker
from headrace.domain.attempts import Outcome
from workers.celery.events import shown

#: Celery's own callback of a task: it is told (whether the task has failed, what it returned or raised, its seconds).
Callback = Callable[[tuple[int, Any, float]], object]
#: Calls its second argument once the task of the message with this delivery tag can run without waiting for its claim.
WhenClaimed = Callable[[str, Callable[[], object]], object]


class TaskPool(ThreadPool):
    """Threads that wait for an engine; the engine's process does the work."""

    _taker: Taker
    _when_claimed: WhenClaimed | None = None

    def on_start(self) -> None:
        """Find the taker, which waits for free slots."""
        super().on_start()
        self._taker = self.app.conf.broker_transport_options["taker"]

    def wait_for_claims(self, when_claimed: WhenClaimed) -> None:
        """From now on, begin tasks as `when_claimed` says."""
        self._when_claimed = when_claimed

    def on_apply(self, target: Any, args: Any = None, kwargs: Any = None, **options: Any) -> None:
        """Run one task in a thread."""
        # Celery's arguments of a traced task: its name, its id, its request.
        start = partial(self._start, target, args, kwargs, **options)
        if self._when_claimed is None:
            start()
        else:
            self._when_claimed(args[2]["properties"]["delivery_tag"], start)

    def _start(self, target: Any, args: Any, kwargs: Any, *, callback: Callback, **options: Any) -> None:
        # Celery makes the task's own `request` of this.
        outcomes = args[2]["outcomes"] = list[Future[Outcome]]()
        ran = partial(self._ran, callback, outcomes)
        result = super().on_apply(target, args, kwargs, callback=ran, **options)
        result.f.add_done_callback(self._slot_freed)

    def _ran(self, callback: Callback, outcomes: list[Future[Outcome]], returned: tuple[int, Any, float]) -> None:
        """Report a task to Celery: at once if it has failed or has no outcome, else once its outcome is on disk."""
        if returned[0] or not outcomes:
            callback(returned)
        else:
            outcomes[0].add_done_callback(partial(self._show, callback, returned))

    def _show(self, callback: Callback, returned: tuple[int, Any, float], outcome: Future[Outcome]) -> None:
        info = shown(outcome.result())
        callback(returned if info is None else (1, info, returned[2]))
        self._slot_freed()

    def _slot_freed(self, _task: object = None) -> None:
        # Not if all slots are not taken: the loop would find nothing to do.
        self._taker.wake()
