"""Notices a consumer that consumes no more, though its broker is well, and has its process end: somebody restarts it.

A connection can die so that nobody notices, and an event loop can hang in a library; the process then looks alive,
holds its lease, and takes nothing.
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

from headrace import connections
from headrace.broker.transport import Pulse
from headrace.config import Settings

log = logging.getLogger(__name__)

#: Longer than a consumer pauses between two tries to reach a broker that was away, and than it takes to notice that a
#: connection is half open.
PATIENCE_S = 75.0
LOOK_EVERY_S = 5.0
#: How long a process that was told to end may take to begin with it, before it is ended: a loop that hangs hears of
#: nothing.
END_WITHIN_S = 30.0


class Watchdog:
    """Looks at a consumer's pulse in a thread of its own, from `start` to `stop`. Knows neither Celery nor Redis."""

    def __init__(
        self,
        pulse: Pulse,
        is_broker_well: Callable[[], bool],
        give_up: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Plan it.

        Args:
            is_broker_well: asks it; returns within seconds.
            give_up: asks the process to end, with an error; False when it is about to end anyway.
        """
        self._pulse, self._is_broker_well, self._give_up, self._clock = pulse, is_broker_well, give_up, clock
        self._stopping = threading.Event()
        self._looked_at: float | None = None
        self._well_since: float | None = None

    def start(self) -> None:
        """Begin to look."""
        threading.Thread(target=self._look_until_stopped, name="watchdog", daemon=True).start()

    def stop(self) -> None:
        """Look no more: the consumer is about to stop by itself."""
        self._stopping.set()

    def is_stalled(self) -> bool:
        """Whether nothing was felt for `PATIENCE_S`, during all of which the broker was well, and this process ran."""
        is_well, now = self._is_broker_well(), self._clock()
        # A process that was stopped for a while finds every time long ago, also that of its consumer, which is about
        # to go on.
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


def give_up() -> bool:
    """End this worker's process, with an error: whoever supervises it knows what to do. False when it ends anyway."""
    if state.should_stop is not None or state.should_terminate is not None:
        return False
    state.should_stop = os.EX_SOFTWARE
    return True


def watch(celery: Celery, settings: Settings) -> None:
    """Have workers of this app end when they take nothing any more."""
    pulse = Pulse()
    celery.conf.broker_transport_options = {**celery.conf.broker_transport_options, "pulse": pulse}

    class WatchdogStep(bootsteps.StartStopStep):
        """Looks on from the worker's start until its end."""

        requires = ("celery.worker.components:Pool",)

        def create(self, worker: Any) -> Watchdog:
            redis = connections.redis(settings)
            return Watchdog(pulse, lambda: _is_well(redis), give_up)

        def close(self, worker: Any) -> None:
            """Before anything stops: a loop that has come here hangs no more, and what runs may take its time."""
            self.obj.stop()

    celery.steps["worker"].add(WatchdogStep)


def _is_well(redis: Redis) -> bool:
    try:
        connections.check_writable(redis)
    except RedisError:
        return False
    return True
