"""Sends the events that Flower and `celery events` show, on a timer."""

from typing import Any

from celery import bootsteps
from celery.worker.consumer import Events

#: Celery's default sends events at each turn of the worker's loop: under load, once per few tasks. Fewer sends lose no
#: precision, because each event carries its own time.
SEND_EVERY_S = 0.2


class SendEvents(bootsteps.StartStopStep):
    """Sends events on a timer, and as soon as two dozen are buffered."""

    requires = (Events,)
    _timer: Any = None

    def start(self, consumer: Any) -> None:
        """Start the timer for a new connection's dispatcher."""
        dispatcher = consumer.event_dispatcher
        dispatcher.on_send_buffered = None
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
