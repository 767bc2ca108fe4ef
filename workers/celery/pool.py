"""Celery's thread pool, extended to use a thread only while a job's engine computes, and to wake the consumer.

To block a thread and to wake it costs a short job more than anything else that the worker does for it. So a task gets
a thread once its job is claimed, and leaves it before the job's end is on disk. Celery learns the outcome when it is.

With early acknowledgement and without prefetch, nothing but a freed slot wakes the consumer: the next message would
wait for the hub's one-second timer (measured: 1 task a second per slot instead of hundreds).
"""

from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, Protocol

from billiard.einfo import ExceptionInfo
from celery.concurrency.thread import TaskPool as ThreadPool

from headrace.broker.transport import Taker
from workers.celery.events import NotHere
from workers.running.recording.commits import Commit

#: Celery's own callback of a task: it is told (whether the task has failed, what it returned or raised, its seconds).
Callback = Callable[[tuple[int, Any, float]], object]


class Course(Protocol):
    """When tasks can begin, and when they have ended."""

    def when_claimed(self, delivery_tag: str, start: Callable[[], object]) -> None:
        """Call `start` once the task of this message can run without waiting for its claim."""
        ...

    def end_of_task(self) -> Commit | None:
        """The end of the task that this thread has just run; None if nothing is left to write."""
        ...


class TaskPool(ThreadPool):
    """Threads that wait for an engine; the engine's process does the work."""

    _taker: Taker
    _course: Course | None = None

    def on_start(self) -> None:
        """Find the taker, which waits for free slots."""
        super().on_start()
        self._taker = self.app.conf.broker_transport_options["taker"]

    def follow(self, course: Course) -> None:
        """From now on, begin and end tasks as `course` says."""
        self._course = course

    def on_apply(self, target: Any, args: Any = None, kwargs: Any = None, **options: Any) -> None:
        """Run one task in a thread."""
        start = partial(self._start, target, args, kwargs, **options)
        if self._course is None:
            start()
        else:
            # Celery's arguments of a traced task: its name, its id, its request.
            self._course.when_claimed(args[2]["properties"]["delivery_tag"], start)

    def _start(self, *called: Any, callback: Callback, **options: Any) -> None:
        result = super().on_apply(*called, callback=partial(self._show, callback), **options)
        result.f.add_done_callback(self._slot_freed)

    def _show(self, callback: Callback, outcome: tuple[int, Any, float]) -> None:
        """Report a task's outcome to Celery, once it is on disk."""
        end = self._course.end_of_task() if self._course is not None else None
        if end is None:
            callback(outcome)
        else:
            end.then(partial(self._show_end, callback, outcome))

    def _show_end(self, callback: Callback, outcome: tuple[int, Any, float], is_on_disk: bool) -> None:
        callback(outcome if is_on_disk else (1, _lost(), outcome[2]))
        self._taker.wake()

    def _slot_freed(self, _task: Future[Any]) -> None:
        # Not if all slots are not taken: the loop would find nothing to do.
        self._taker.wake()


def _lost() -> ExceptionInfo:
    """What Celery's tracer makes of a task whose claim is lost."""
    try:
        raise NotHere
    except NotHere:
        return ExceptionInfo(internal=True)
