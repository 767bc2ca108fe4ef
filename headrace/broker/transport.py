"""kombu's Redis transport, with three differences. Each override says what kombu does by itself.

A server that takes no writes is an outage (`connections/redis.py`): the consumer connects again. An error would end it.

A worker with a `Taker` asks it for each message, instead of blocking in a BRPOP. BRPOP removes a job before the worker
knows whether the job fits its engine, and an unread reply keeps the job from idle workers. Instead the worker blocks on
the bell, which carries no job and wakes every waiting worker.

Each turn of a consumer is a pulse, which the watchdog feels (`watchdog.py`).

The file follows a message: its lane's turn comes, a `Taker` chooses it, a `Channel` delivers it. Celery connects the
`Transport` at the end.
"""

import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import cycle
from queue import Empty
from typing import Any

import kombu.transport
from kombu.transport import redis

from headrace.broker.watchdog import Pulse
from headrace.config import Settings
from headrace.config.redis_url import Sentinels
from headrace.connections.redis import (
    DroppedConnection,
    DroppedSentinelConnection,
    DroppedSentinelSslConnection,
    DroppedSslConnection,
    sentinel,
)
from headrace.domain.queues import Lane
from headrace.policies.lanes import preference, schedule

#: The class that kombu uses for each scheme of a broker's URL. Celery's setting `broker_transport` could name the class
#: too, but Celery and Flower would then show its name in place of the scheme, in a URL that nothing can read.
SCHEMES = {
    "redis": "headrace.broker.transport:Transport",
    "rediss": "headrace.broker.transport:Transport",
    "sentinel": "headrace.broker.transport:SentinelTransport",
}
#: The most messages taken in one turn of a worker's event loop, which has other work too.
MOST_AT_ONCE = 32


class LaneCycle:
    """The order in which kombu reads a worker's queues, by the shares of their lanes.

    kombu's own orders are strict, which starves the low lanes, or round robin, which gives each lane as much as `high`.
    kombu asks for the order before it waits for a message, and reports when it has one.
    """

    def __init__(self, takes: Mapping[Lane, int]) -> None:
        self._turns = cycle(schedule(takes))
        self._turn = next(self._turns)
        self._orders: dict[Lane, list[str]] = {turn: [] for turn in Lane}

    def update(self, queues: Sequence[str]) -> None:
        """Set the queues that are consumed from now on. Queues without a lane come last."""
        lanes = {str(lane): lane for lane in Lane}
        named = [(queue, lanes.get(queue.rpartition(".")[2])) for queue in queues]
        by_lane = {lane: queue for queue, lane in named if lane is not None}
        others = [queue for queue, lane in named if lane is None]
        self._orders = {turn: [*(by_lane[lane] for lane in preference(turn, list(by_lane))), *others] for turn in Lane}

    def consume(self, n: int) -> list[str]:
        """The queues in the order of this turn, at most `n`."""
        return self._orders[self._turn][:n]

    def rotate(self, last_used: str) -> None:
        """End the turn: a message was taken, from any queue."""
        self._turn = next(self._turns)


@dataclass(frozen=True, slots=True)
class LaneCycles:
    """Makes a `LaneCycle` for each connection. Like all settings of a worker, it can be shown to operators."""

    takes: Mapping[Lane, int]

    def __call__(self) -> LaneCycle:
        """Make one; kombu calls this."""
        return LaneCycle(self.takes)

    def __json__(self) -> dict[str, int]:
        """What Celery's `inspect stats` and Flower show."""
        return {str(lane): takes for lane, takes in self.takes.items()}


def lane_cycles(settings: Settings, pool: str | None = None) -> LaneCycles:
    """The lanes' shares. Args: pool: by the pool's own lanes, if it has any."""
    return LaneCycles({lane: settings.lane(lane, pool).takes for lane in Lane})


class Taker(ABC):
    """Chooses what a worker takes next. The transport option `taker` of a worker's app."""

    def __init__(self, bell: str) -> None:
        """Create it; it takes nothing yet.

        Args:
            bell: the key of a Redis stream that gets an entry whenever new messages arrive.
        """
        self.bell = bell
        self.is_due = True
        self._wake: Callable[[], None] = lambda: None

    def __json__(self) -> str:
        """What Celery's `inspect stats` and Flower show."""
        return self.bell

    def gather(self) -> None:  # noqa: B027 - most takers do not wait.
        """Wait a moment before a take while many slots are being freed, so that fewer takes take more."""

    def free_slots(self) -> int:
        """How many messages the worker has free slots for; asked only while it has a free slot."""
        return 1

    @abstractmethod
    def take(self, turns: LaneCycle, queues: int, most: int) -> Sequence[tuple[str, dict[str, Any]]]:
        """Take messages out of the queues.

        Args:
            turns: gives the order of queues before each message, and is rotated after it.
            queues: number of queues.
            most: maximum number of messages.
        Returns: (queue, decoded message) pairs in the order in which they were taken; empty if none can be taken now.
        """

    def look(self) -> None:
        """Ask for messages again soon, because more room is free. Safe from any thread."""
        # Where a look is due already, the loop is on its way to it, or waits for a free slot: `wake` then wakes it.
        if not self.is_due:
            self.is_due = True
            self._wake()

    def wake(self) -> None:
        """Let the event loop make the look that is due, if one is. Safe from any thread."""
        if self.is_due:
            self._wake()

    def wakes(self, wake: Callable[[], None]) -> None:
        """Set `wake`, which wakes the event loop that takes messages."""
        self._wake = wake
        self.is_due = True
        self._wake()


class Channel(redis.Channel):
    """A channel that may have a taker. Without one, kombu's own methods fetch the messages."""

    # With kombu's own classes, a former master that is now a replica would end the consumer, or keep its connection.
    # `broker_channel_error_retry` reconnects the consumer, but no publisher.
    connection_class: Any = DroppedConnection
    connection_class_ssl: Any = DroppedSslConnection
    from_transport_options: Any = (*redis.Channel.from_transport_options, "taker", "pulse")
    taker: Taker | None = None
    pulse: Pulse | None = None
    # kombu's own attributes, declared here because its type hints are wrong.
    _in_poll: Any = None
    _brpop_sent_at: Any = None
    #: The id of the last bell entry that was read.
    _last_ring = "0"

    def take(self) -> None:
        """Deliver the taker's messages while a look is due and a slot is free."""
        if self.taker is None:
            return
        left = MOST_AT_ONCE
        while left > 0:
            if not (self.taker.is_due and self.active_queues and self.qos.can_consume()):
                return
            if left == MOST_AT_ONCE:
                self.taker.gather()
            self.taker.is_due = False
            most = max(1, min(left, self.taker.free_slots()))
            taken = self.taker.take(self._queue_cycle, len(self.active_queues), most)
            if not taken:
                return
            # More messages may be there.
            self.taker.is_due = True
            for queue, message in taken:
                self.connection._deliver(message, queue)
            left -= len(taken)
        self.taker.wake()

    def _brpop_start(self, timeout: float | None = None) -> None:
        """Begin to wait. kombu sends a BRPOP for all queues, which removes a message; this waits for the bell."""
        if self.pulse is not None:
            self.pulse.feel()
        if self.taker is None:
            super()._brpop_start(timeout)
            return
        self._in_poll = self.client.connection
        self._brpop_sent_at = time.monotonic()
        patience_ms = int(1000 * (timeout or self.brpop_timeout))
        command = ("XREAD", "COUNT", 1, "BLOCK", patience_ms, "STREAMS", self.taker.bell, self._last_ring)
        self._in_poll.send_command(*command)

    def _brpop_read(self, **options: Any) -> bool:
        """Read the reply. kombu's is a message, which it delivers; the bell's says that a look is due.

        Raises: Empty: no message was delivered.
        """
        if self.taker is None:
            return bool(super()._brpop_read(**options))
        try:
            rings = self.client.parse_response(self.client.connection, "XREAD", **options)
        except self.connection_errors:
            self.client.connection.disconnect()
            raise
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()
        for _, entries in rings or ():
            self._last_ring = entries[-1][0]
        # Also without a new entry: a wiped Redis may have lost it.
        self.taker.is_due = True
        raise Empty


class _Poller(redis.MultiChannelPoller):
    """Asks the takers at each turn of the event loop. kombu's poller fetches only what a reply brings."""

    def on_poll_start(self) -> None:
        for channel in list(self._channels):
            channel.take()
            if channel.pulse is not None and channel.active_queues and not channel.qos.can_consume():
                channel.pulse.feel()
        super().on_poll_start()


@cache
def _readable() -> int:
    """A file descriptor that is always readable. Created once, in a process that needs it."""
    reader, writer = os.pipe()
    os.write(writer, b"1")
    return reader


class _Waking:
    """Wakes an event loop for another turn, from any thread. Must be created in the loop's own thread."""

    def __init__(self, loop: Any) -> None:
        self._loop, self._thread, self._readable = loop, threading.get_ident(), _readable()

    def __call__(self) -> None:
        if threading.get_ident() != self._thread:
            self._loop.call_soon(lambda: None)  # To schedule something is what wakes the loop.
        else:
            # In the loop's own thread `call_soon` does not wake it: the loop has already checked for such calls.
            self._loop.add_reader(self._readable, self._loop.remove_reader, self._readable)


class Transport(redis.Transport):
    """A transport with `Channel`, and with a poller that asks the takers."""

    Channel = Channel
    cycle: Any = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cycle = _Poller()

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """Start consuming in a worker's event loop, and let the taker wake it. kombu's timer wakes it each second."""
        super().register_with_event_loop(connection, loop)
        taker = connection.client.transport_options.get("taker")
        if taker is not None:
            taker.wakes(_Waking(loop))


class SentinelChannel(Channel, redis.SentinelChannel):
    """A `Channel` to the master that Sentinels name."""

    connection_class: Any = DroppedSentinelConnection
    connection_class_ssl: Any = DroppedSentinelSslConnection
    from_transport_options: Any = (*redis.SentinelChannel.from_transport_options, "taker", "pulse", "sentinels")
    sentinels: Sentinels | None = None

    def _sentinel_managed_pool(self, asynchronous: bool = False) -> Any:
        """The pool of connections to the master. kombu's lookup waits 5 s for a hung Sentinel, and hides its error."""
        if self.sentinels is None:
            return super()._sentinel_managed_pool(asynchronous)
        options = {
            name: value for name, value in self._connparams(asynchronous).items() if name not in ("host", "port")
        }
        manager = sentinel(self.sentinels)
        # kombu closes the manager under these names, together with the pool.
        setattr(self, "_async_sentinel_manager" if asynchronous else "_sentinel_manager", manager)
        return manager.master_for(self.sentinels.master_name, **options).connection_pool


class SentinelTransport(Transport):
    """A transport with `SentinelChannel`."""

    Channel = SentinelChannel
    default_port: Any = redis.SentinelTransport.default_port


def use() -> None:
    """Make kombu use these classes for Redis in this process, from its first connection on."""
    kombu.transport.TRANSPORT_ALIASES.update(SCHEMES)
