"""Sends the events that Flower and `celery events` show, on a timer."""

from typing import Any

from celery import bootsteps
from celery.worker.consumer import Events

#: Celery's default sends events at each turn of the worker's loop: under load, once per few tasks. Fewer sends lose no
#: precision, because each event carries its own time.
SEND_EVERY_S = 0.2
#: The most events that wait for the timer; more are sent at once. A busy worker exceeds Celery's default of 24 again
#: while it sends them, and then each thread with an event waits its turn to send what is left.
MOST_BUFFERED = 2000


class SendEvents(bootsteps.StartStopStep):
    """Sends events on a timer, all in one message."""

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
