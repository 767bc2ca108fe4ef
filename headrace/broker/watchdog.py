"""Ends a worker process whose consumer has stalled although its broker is up, so that its supervisor restarts it.

kombu drops a connection that died unnoticed, after `health_check_interval`. Neither kombu nor Celery notices an event
loop that hangs in a library: the process looks alive and holds its lease, but takes no messages.
"""

import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Any

from celery import Celery, bootsteps
from celery.worker import state
from redis import Redis, RedisError

from headrace.config import Settings
from headrace.connections.redis import check_writable, redis_client

log = logging.getLogger(__name__)

#: Seconds without a pulse after which a consumer has stalled. Longer than a consumer's pause between two tries to reach
#: a lost broker, and longer than it takes to detect a half-open connection.
PATIENCE_S = 75.0
LOOK_EVERY_S = 5.0
#: Seconds that a process may take to begin its shutdown. After them it is killed: a hung loop does not react.
END_WITHIN_S = 30.0


class Pulse:
    """Records when a worker's consumer last polled its queues, or could not because all slots were taken.

    The transport option `pulse` of a worker's app.

    Attributes:
        felt_at: the last time, in monotonic seconds; None before the first.
    """

    felt_at: float | None = None

    def feel(self) -> None:
        """Record that the consumer is alive."""
        self.felt_at = time.monotonic()

    def __json__(self) -> str:
        """What Celery's `inspect stats` and Flower show."""
        return "watched"


class Watchdog:
    """Watches a consumer's pulse in its own thread, from `start` to `stop`. Knows neither Celery nor Redis."""

    def __init__(
        self,
        pulse: Pulse,
        is_broker_well: Callable[[], bool],
        give_up: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create it; `start` starts it.

        Args:
            is_broker_well: asks the broker; returns within seconds.
            give_up: asks the process to end with an error; returns False if it is about to end anyway.
        """
        self._pulse, self._is_broker_well, self._give_up, self._clock = pulse, is_broker_well, give_up, clock
        self._stopping = threading.Event()
        self._looked_at: float | None = None
        self._well_since: float | None = None

    def start(self) -> None:
        threading.Thread(target=self._look_until_stopped, name="watchdog", daemon=True).start()

    def stop(self) -> None:
        """Stop watching: the consumer is about to stop by itself."""
        self._stopping.set()

    def is_stalled(self) -> bool:
        """Whether there was no pulse for `PATIENCE_S` while the broker was up and this process ran all the time."""
        is_well, now = self._is_broker_well(), self._clock()
        # After a pause of the whole process every recorded time is old, but its consumer is about to continue.
        slept = self._looked_at is not None and now - self._looked_at > PATIENCE_S / 2
        self._looked_at = now
        if not is_well or slept:
            self._well_since = None
            return False
        if self._well_since is None:
            self._well_since = now
        felt_at = self._pulse.felt_at
        return felt_at is not None and now - max(felt_at, self._well_since) >= PATIENCE_S

    def _look_until_stopped(self) -> None:
        while not self._stopping.wait(LOOK_EVERY_S):
            if self.is_stalled() and self._give_up():
                log.critical("consumer_stalled", extra={"patience_s": PATIENCE_S})
                if not self._stopping.wait(END_WITHIN_S):
                    os._exit(os.EX_SOFTWARE)
                return


def give_up(status: int = os.EX_SOFTWARE) -> bool:
    """End this worker's process; with an error, so that its supervisor restarts it. False if it ends anyway."""
    if state.should_stop is not None or state.should_terminate is not None:
        return False
    state.should_stop = status
    return True


def watch(celery: Celery, settings: Settings) -> None:
    """Let workers of this app end when their consumer stalls."""
    pulse = Pulse()
    celery.conf.broker_transport_options = {**celery.conf.broker_transport_options, "pulse": pulse}

    class WatchdogStep(bootsteps.StartStopStep):
        """Runs the watchdog from the worker's start to its end."""

        requires = ("celery.worker.components:Pool",)

        def create(self, worker: Any) -> Watchdog:
            redis = redis_client(settings)
            return Watchdog(pulse, lambda: _is_well(redis), give_up)

        def close(self, worker: Any) -> None:
            """Stop watching before anything else stops: a loop that gets here does not hang, and jobs may take long."""
            self.obj.stop()

    celery.steps["worker"].add(WatchdogStep)


def _is_well(redis: Redis) -> bool:
    try:
        check_writable(redis)
    except RedisError:
        return False
    return True
