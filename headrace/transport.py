"""kombu's Redis transport with one client object for each channel, as Headrace's Celery apps use it.

kombu makes a new `redis.Redis` for each publish, and each of them fills a table of its 169 commands' callbacks first
(redis-py#3624). Kept, it serves all threads, as redis-py's clients do.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property

from kombu.transport import redis
from redis import Redis

#: What Celery's `broker_transport` names.
TRANSPORT = "headrace.transport:Transport"


class Channel(redis.Channel):
    """A channel that keeps the client that it publishes with."""

    @contextmanager
    def conn_or_acquire(self, client: Redis | None = None) -> Iterator[Redis]:
        """The given client, or the channel's own."""
        yield client or self._kept

    @cached_property
    def _kept(self) -> Redis:
        client: Redis = self._create_client()
        return client

    def _disconnect_pools(self) -> None:
        # The next one is made on the pool that comes after these.
        self.__dict__.pop("_kept", None)
        super()._disconnect_pools()


class Transport(redis.Transport):
    """Makes such channels."""

    Channel = Channel
