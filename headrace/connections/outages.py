"""Connections to Redis that take a server without writes for an outage: they are dropped, and made anew.

A server that was a master and is a replica now, or whose disk is full, still answers. To callers it must be as if it
did not: redis-py and kombu then connect again, and so find the new master, where an error of a command would end a
Celery worker.
"""

from typing import TYPE_CHECKING, Any

from redis.connection import Connection, SSLConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import MasterDownError, ReadOnlyError, ResponseError
from redis.sentinel import SentinelManagedConnection

#: First words of replies that say so, beside those for which redis-py has classes: the disk is full or a snapshot
#: failed, too few replicas follow, and what a client waited for on a master that has become a replica.
_WORDS = ("MISCONF", "NOREPLICAS", "UNBLOCKED")


class Outage(RedisConnectionError):
    """Redis answers, but takes no writes."""


def is_outage(error: ResponseError) -> bool:
    """Whether this reply says that the server takes no writes, whoever asks."""
    return isinstance(error, ReadOnlyError | MasterDownError) or str(error).partition(" ")[0] in _WORDS


if TYPE_CHECKING:
    _Base = Connection
else:
    _Base = object


class _Dropped(_Base):
    """Reads replies; put before one of redis-py's classes of connections."""

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        """The reply. Raises: Outage."""
        try:
            return super().read_response(*args, **kwargs)
        except ResponseError as error:
            if not is_outage(error):
                raise
            self.disconnect()  # type: ignore[no-untyped-call]
            raise Outage(f"Redis takes no writes: {error}") from error


class DroppedConnection(_Dropped, Connection):
    """One without TLS."""


class DroppedSslConnection(_Dropped, SSLConnection):
    """One with TLS."""


class DroppedSentinelConnection(_Dropped, SentinelManagedConnection):
    """One to the master that Sentinels name."""

    def connect(self) -> None:
        """Ask for the master and connect: once, since those who send a command try it twice themselves."""
        self._connect_retry()  # type: ignore[no-untyped-call]


class DroppedSentinelSslConnection(DroppedSentinelConnection, SSLConnection):
    """One with TLS to the master that Sentinels name. The certificate must have the name by which they name it."""
