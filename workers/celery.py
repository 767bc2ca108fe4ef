"""Celery as the workers use it: each override of Celery or kombu, in the order of a message's way.

1. Published, in `headrace/broker/messages.py`. `apply_async` makes each envelope anew, which takes 40 times as long.
2. Fetched, in `headrace/broker/transport.py`. kombu waits with BRPOP, which removes a message that no worker has seen.
3. Taken, in `headrace/broker/transport.py`. kombu takes the oldest message; a `Taker` takes what fits its engine.
4. Acknowledged at once, by settings alone (`messages.py`). A job's claim in Postgres is what counts.
5. Ended, by `TaskPool`. Celery wakes no consumer.
6. Shown, by `TaskRequest` and `SendEvents`. Celery shows no cancelled job, and sends events at each turn of the
   worker's event loop.

The control worker shares two more. `headrace/broker/remote_control.py`: Celery's `revoke` drops a message, which is
then published again. `headrace/broker/watchdog.py`: a worker whose event loop hangs would look alive for good.
"""

from typing import Any

from billiard.einfo import ExceptionWithTraceback
from celery import bootsteps
from celery.concurrency.thread import TaskPool as ThreadPool
from celery.exceptions import Ignore, Retry
from celery.worker.consumer import Events
from celery.worker.request import Request

from headrace.broker.transport import Taker
from headrace.domain.attempts import Outcome
from headrace.domain.states import JobState

# What Celery's events, and so Flower, show of a job. Postgres holds the job's real state.
#
# Celery reads a failure, a retry or a revocation from the exception that a task raises. These exceptions carry only an
# error code, because an error message may quote a prompt.

#: Seconds between two sends. Each event carries its own time, so that fewer sends lose no precision.
SEND_EVERY_S = 0.2
#: The most events that wait for the timer; more are sent at once.
MOST_BUFFERED = 2000


class JobFailed(Exception):
    """The job has failed. Shown as FAILURE."""


class HandedBack(Exception):
    """The job waits for another attempt. Shown as RETRY."""


class JobRevoked(Ignore):
    """The job was cancelled. Shown as REVOKED."""


class NotHere(Ignore):
    """Another process holds the job and shows its outcome."""


def show(outcome: Outcome) -> None:
    """Report an attempt's outcome to Celery by raising its exception. A success raises nothing."""
    match outcome.state:
        case JobState.SUCCEEDED:
            return
        case JobState.RUNNING:
            raise NotHere
        case JobState.FAILED:
            raise JobFailed(outcome.error_code or "failed")
        case JobState.CANCELLED | JobState.EXPIRED:
            raise JobRevoked(str(outcome.state))
        case _:
            raise Retry(exc=HandedBack(outcome.error_code or "handed_back"))


class TaskRequest(Request):
    """Overrides Celery's request: sends the `task-revoked` event of a cancelled job.

    Celery sends no event for a task that raises Ignore, so Flower would show the job as running for good.
    """

    def on_failure(self, exc_info: Any, *args: Any, **kwargs: Any) -> Any:
        """Celery calls this when the task has raised an exception."""
        shown = super().on_failure(exc_info, *args, **kwargs)
        raised = exc_info.exception
        if isinstance(raised, ExceptionWithTraceback):
            raised = raised.exc
        if isinstance(raised, JobRevoked):
            self.send_event("task-revoked", terminated=True, signum=None, expired=False)
        return shown


class SendEvents(bootsteps.StartStopStep):
    """Overrides when Celery sends events: on a timer, all in one message.

    Celery sends them at each turn of the worker's loop, which under load is once for a few tasks, and at once when 24
    wait. A busy worker exceeds 24 again while it sends, and then each thread with an event waits its turn to send.
    Celery has no setting for either.
    """

    requires = (Events,)
    _timer: Any = None

    def start(self, consumer: Any) -> None:
        """Start the timer for a new connection's dispatcher."""
        dispatcher = consumer.event_dispatcher
        dispatcher.on_send_buffered = None
        dispatcher.buffer_limit = MOST_BUFFERED
        self._timer = consumer.timer.call_repeatedly(SEND_EVERY_S, dispatcher.flush)

    def stop(self, consumer: Any) -> None:
        """Stop the timer. Celery also calls this when no connection was made."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            consumer.event_dispatcher.flush(errors=False)

    def shutdown(self, consumer: Any) -> None:
        """Send the events of tasks that ended after the connection was closed."""
        if consumer.event_dispatcher is not None:
            consumer.event_dispatcher.flush(errors=False)


class TaskPool(ThreadPool):
    """Overrides Celery's thread pool: a freed slot wakes the consumer.

    With early acknowledgement and without prefetch, Celery does not wake it: the next message would wait for the hub's
    one-second timer (measured: 1 task a second per slot, not hundreds).
    """

    _taker: Taker

    def on_start(self) -> None:
        """Find the taker, which waits for free slots."""
        super().on_start()
        self._taker = self.app.conf.broker_transport_options["taker"]

    def on_apply(self, *arguments: Any, **options: Any) -> Any:
        """Celery calls this with a task to run in a thread."""
        result = super().on_apply(*arguments, **options)
        result.f.add_done_callback(self._slot_freed)
        return result

    def _slot_freed(self, _task: object) -> None:
        # Wakes the loop only if a look is due, which waited for a slot.
        self._taker.wake()
