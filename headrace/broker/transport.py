"""kombu's Redis transport, with three differences.

A server that takes no writes is an outage (`outages.py`): the consumer connects again, where an error would end it.

A channel keeps one client object. kombu makes a new `redis.Redis` for each publish, and each of them fills a table of
its 169 commands' callbacks first (redis-py#3624). Kept, it serves all threads, as redis-py's clients do.

A worker that has a `Taker` asks it for each message, instead of leaving a BRPOP with the server. BRPOP removes a job
before anyone knows whether it fits, and a reply that nobody reads yet holds it back from workers that stand idle. What
is left with the server here is a wait for the bell, which carries no job and which every waiting worker hears.
"""

import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, cached_property
from queue import Empty
from typing import Any, Protocol

import kombu.transport
from kombu.transport import redis
from redis import Redis

from headrace import connections
from headrace.config.redis_url import Sentinels
from headrace.connections.outages import (
    DroppedConnection,
    DroppedSentinelConnection,
    DroppedSentinelSslConnection,
    DroppedSslConnection,
)

#: Which classes kombu uses for the scheme of a broker's URL. By a name of its own in `broker_transport`, Celery would
#: show a URL that Flower cannot read.
SCHEMES = {
    "redis": "headrace.broker.transport:Transport",
    "rediss": "headrace.broker.transport:Transport",
    "sentinel": "headrace.broker.transport:SentinelTransport",
}
#: Messages taken in one turn of a worker's event loop, which has other things to look after.
MOST_AT_ONCE = 16


class Pulse:
    """Felt whenever a worker's consumer goes to its queues, or cannot because all its slots are taken.

    The transport option `pulse` of a worker's app.

    Attributes:
        felt_at: the last time, in monotonic seconds; None before the first.
    """

    felt_at: float | None = None

    def feel(self) -> None:
        """Note that the consumer is alive."""
        self.felt_at = time.monotonic()

    def __json__(self) -> str:
        """What Celery's `inspect stats` and Flower show."""
        return "watched"


@cache
def _readable() -> int:
    """A file that can be read at any time. Made once, in a process that needs it."""
    reader, writer = os.pipe()
    os.write(writer, b"1")
    return reader


def _nothing() -> None:
    """That it is called is what wakes the loop."""


class Turns(Protocol):
    """In which order a worker looks into its queues, as kombu's orders of queues say it."""

    def consume(self, n: int) -> list[str]:
        """The queues in the order of this turn, `n` at most."""

    def rotate(self, last_used: str) -> None:
        """A message was taken: the next turn begins."""


class _Waking:
    """Brings about another turn of an event loop, from any thread. Made by the loop's own."""

    def __init__(self, loop: Any) -> None:
        self._loop, self._thread, self._readable = loop, threading.get_ident(), _readable()

    def __call__(self) -> None:
        if threading.get_ident() != self._thread:
            self._loop.call_soon(_nothing)
        else:
            # In its own thread `call_soon` wakes nobody: the loop has looked for such calls, and is about to wait.
            self._loop.add_reader(self._readable, self._loop.remove_reader, self._readable)


class Taker(ABC):
    """Chooses what a worker takes next. The transport option `taker` of a worker's app."""

    def __init__(self, bell: str) -> None:
        """Take nothing yet.

        Args:
            bell: the key of a Redis stream that gets an entry whenever there are new messages.
        """
        self.bell = bell
        self.is_due = True
        self._wake: Callable[[], None] = _nothing

    def __json__(self) -> str:
        """What Celery's `inspect stats` and Flower show."""
        return self.bell

    def free_slots(self) -> int:
        """How many messages the worker has free slots for, when it has any."""
        return 1

    @abstractmethod
    def take(self, turns: Turns, queues: int, most: int) -> Sequence[tuple[str, dict[str, Any]]]:
        """Take messages out of the queues.

        Args:
            turns: asked before each message, and told of it.
            queues: how many there are.
            most: messages.
        Returns: of each the queue and the message, decoded, in the order in which they were taken; empty when none can
            be had now.
        """

    def look(self) -> None:
        """Ask for messages again, soon: there is more room than there was. From any thread."""
        self.is_due = True
        self._wake()

    def wakes(self, wake: Callable[[], None]) -> None:
        """Let `wake` bring about a turn of the event loop that takes messages."""
        self._wake = wake
        self.look()


class Channel(redis.Channel):
    """A channel that keeps the client that it publishes with, and may have a taker."""

    connection_class: Any = DroppedConnection
    connection_class_ssl: Any = DroppedSslConnection
    from_transport_options: Any = (*redis.Channel.from_transport_options, "taker", "pulse")
    taker: Taker | None = None
    pulse: Pulse | None = None
    # kombu's own, which it does not declare as they are.
    _in_poll: Any = None
    _brpop_sent_at: Any = None
    #: The id of the last entry of the bell that was read.
    _last_ring = "0"

    @contextmanager
    def conn_or_acquire(self, client: Redis | None = None) -> Iterator[Redis]:
        """The given client, or the channel's own."""
        yield client or self._kept

    @cached_property
    def _kept(self) -> Redis:
        client: Redis = self._create_client()
        return client

    def _disconnect_pools(self) -> None:
        # The next one is made on the pool that comes after these, also by a thread that asks meanwhile.
        try:
            super()._disconnect_pools()
        finally:
            self.__dict__.pop("_kept", None)

    def take(self) -> None:
        """Have the taker's messages delivered, as long as there is cause to look and a slot is free."""
        if self.taker is None:
            return
        left = MOST_AT_ONCE
        while left > 0:
            if not (self.taker.is_due and self.active_queues and self.qos.can_consume()):
                return
            self.taker.is_due = False
            most = max(1, min(left, self.taker.free_slots()))
            taken = self.taker.take(self._queue_cycle, len(self.active_queues), most)
            if not taken:
                return
            # Where there was one there may be another.
            self.taker.is_due = True
            for queue, message in taken:
                self.connection._deliver(message, queue)
            left -= len(taken)
        self.taker.look()

    def _brpop_start(self, timeout: float | None = None) -> None:
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
        # Also when nobody rang: a ring can be lost with a Redis that was wiped.
        self.taker.is_due = True
        raise Empty


class _Poller(redis.MultiChannelPoller):
    """Asks the takers at each turn of the event loop."""

    def on_poll_start(self) -> None:
        for channel in list(self._channels):
            channel.take()
            if channel.pulse is not None and channel.active_queues and not channel.qos.can_consume():
                channel.pulse.feel()
        super().on_poll_start()


class Transport(redis.Transport):
    """Makes such channels."""

    Channel = Channel
    cycle: Any = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cycle = _Poller()

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """Begin to consume, in a worker's event loop."""
        super().register_with_event_loop(connection, loop)
        taker = connection.client.transport_options.get("taker")
        if taker is not None:
            taker.wakes(_Waking(loop))


class SentinelChannel(Channel, redis.SentinelChannel):
    """Such a channel to the master that Sentinels name."""

    connection_class: Any = DroppedSentinelConnection
    connection_class_ssl: Any = DroppedSentinelSslConnection
    from_transport_options: Any = (*redis.SentinelChannel.from_transport_options, "taker", "pulse", "sentinels")
    #: kombu would take them from several URLs, and try one after the other by classes of its own.
    sentinels: Sentinels | None = None

    def _sentinel_managed_pool(self, asynchronous: bool = False) -> Any:
        if self.sentinels is None:
            return super()._sentinel_managed_pool(asynchronous)
        options = {
            name: value for name, value in self._connparams(asynchronous).items() if name not in ("host", "port")
        }
        manager = connections.sentinel(self.sentinels)
        # Under these names kombu closes them, with the pool.
        setattr(self, "_async_sentinel_manager" if asynchronous else "_sentinel_manager", manager)
        return manager.master_for(self.sentinels.master_name, **options).connection_pool


class SentinelTransport(Transport):
    """Makes those."""

    Channel = SentinelChannel
    default_port: Any = redis.SentinelTransport.default_port


def use() -> None:
    """Have kombu use these classes for Redis, in all of this process."""
    for scheme, name in SCHEMES.items():
        if kombu.transport.TRANSPORT_ALIASES[scheme] != name:
            kombu.transport.TRANSPORT_ALIASES[scheme] = name
            kombu.transport._transport_cache.pop(scheme, None)
