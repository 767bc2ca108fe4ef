"""When a worker sends the events that Flower and `celery events` show."""

from typing import Any

from celery import bootsteps
from celery.worker.consumer import Events

#: Celery sends what it has at each turn of the worker's loop, which under load is for every few tasks. Nobody looks so
#: closely; each event carries its own time.
SEND_EVERY_S = 0.2


class SendEvents(bootsteps.StartStopStep):
    """Sends events by a timer, and when two dozen have gathered."""

    requires = (Events,)
    _timer: Any = None

    def start(self, consumer: Any) -> None:
        """Begin with a connection's dispatcher."""
        dispatcher = consumer.event_dispatcher
        dispatcher.on_send_buffered = None
        self._timer = consumer.timer.call_repeatedly(SEND_EVERY_S, dispatcher.flush)

    def stop(self, consumer: Any) -> None:
        """End with it. Also called when the connection never came about."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            consumer.event_dispatcher.flush(errors=False)

    def shutdown(self, consumer: Any) -> None:
        """The worker leaves: tasks have ended since the connection was given up."""
        if consumer.event_dispatcher is not None:
            consumer.event_dispatcher.flush(errors=False)
