"""Redis connections that treat a server without writes as an outage: they disconnect, and the client connects again.

A former master that is now a replica, or a server with a full disk, still answers. To callers this must look like a
lost connection: redis-py and kombu then connect again, and so find the new master. A command's error would end a Celery
worker instead.
"""

from typing import TYPE_CHECKING, Any

from redis.connection import Connection, SSLConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import MasterDownError, ReadOnlyError, ResponseError
from redis.sentinel import SentinelManagedConnection

#: First words of such replies, beside those for which redis-py has classes. MISCONF: the disk is full or a snapshot
#: failed. NOREPLICAS: too few replicas follow. UNBLOCKED: the master became a replica during a blocking command.
_WORDS = ("MISCONF", "NOREPLICAS", "UNBLOCKED")


class Outage(RedisConnectionError):
    """Redis answers, but takes no writes."""


def is_outage(error: ResponseError) -> bool:
    """Whether this reply means that the server takes no writes from any client."""
    return isinstance(error, ReadOnlyError | MasterDownError) or str(error).partition(" ")[0] in _WORDS


if TYPE_CHECKING:
    _Base = Connection
else:
    _Base = object


class _Dropped(_Base):
    """Turns such replies into `Outage`; a mixin for redis-py's connection classes."""

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        """Read a reply. Raises: Outage."""
        try:
            return super().read_response(*args, **kwargs)
        except ResponseError as error:
            if not is_outage(error):
                raise
            self.disconnect()  # type: ignore[no-untyped-call]
            raise Outage(f"Redis takes no writes: {error}") from error


class DroppedConnection(_Dropped, Connection):
    """A connection without TLS."""


class DroppedSslConnection(_Dropped, SSLConnection):
    """A connection with TLS."""


class DroppedSentinelConnection(_Dropped, SentinelManagedConnection):
    """A connection to the master that Sentinels name."""

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        """Read a reply. Raises: Outage.

        After a time-out redis-py would keep this class's connection, and read the late reply as the next command's.
        """
        return super().read_response(*args, **{"disconnect_on_error": True, **kwargs})

    def connect(self) -> None:
        """Ask for the master and connect, once: the client that sends a command already tries twice."""
        if not self.is_connected:
            self.connect_to(self.connection_pool.get_master_address())  # type: ignore[no-untyped-call]


class DroppedSentinelSslConnection(DroppedSentinelConnection, SSLConnection):
    """A TLS connection to the master that Sentinels name. Its certificate must have the name that the Sentinels use."""
