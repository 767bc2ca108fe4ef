"""Connections to Redis, made the same way in every process. Every command has a time-out.

A server without writes is an outage: the connection is closed, and the client connects again. A former master that is
now a replica, or a server with a full disk, still answers. To callers this must look like a lost connection: redis-py
and kombu then connect again, and so find the new master. A command's error would end a Celery worker instead.
"""

from typing import TYPE_CHECKING, Any

from redis import Redis
from redis.backoff import NoBackoff
from redis.connection import Connection, SSLConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import MasterDownError, ReadOnlyError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, Sentinel, SentinelManagedConnection

from headrace.config import Settings
from headrace.config.redis_url import RedisUrl, Sentinels
from headrace.domain.queues import KEY_PREFIX

#: Seconds to wait for a TCP connection.
CONNECT_TIMEOUT_S = 2
#: Seconds to wait for Redis to answer one command. A command takes about a millisecond; a hung Redis blocks a thread
#: for this long.
REDIS_TIMEOUT_S = 2
#: The most connections of one process to Redis. It is above the number of a process's threads: redis-py makes no thread
#: wait for a connection, but fails its command. Its own default is 100.
MOST_CONNECTIONS = 4096
#: Seconds to wait for one Sentinel to connect, and to answer. A hung Sentinel delays new connections by this much until
#: another one has answered; that one is then asked first.
SENTINEL_TIMEOUT_S = 0.5
#: A key that is never set.
_NEVER = KEY_PREFIX + "never"
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


def redis_client(settings: Settings, *, retry: Retry | None = None, timeout_s: float = REDIS_TIMEOUT_S) -> Redis:
    """A client of the broker's Redis. One retry covers a connection that was closed while idle, and a failover.

    A time-out is not retried: a hung server would hang again, and the caller would wait twice.
    Raises: ConfigError.
    """
    where = RedisUrl.parse(settings.redis_url)
    options: dict[str, Any] = {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": min(timeout_s, CONNECT_TIMEOUT_S),
        "health_check_interval": 10,
        "retry": retry or Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
        "decode_responses": True,
        "max_connections": MOST_CONNECTIONS,
        # With them, redis-py gives out a pooled connection that has unread data: after a time-out, the reply to one
        # command is then read as that to another.
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }
    if where.sentinels is None:
        connection = DroppedConnection if where.tls is None else DroppedSslConnection
        return Redis.from_url(where.url, connection_class=connection, **options)
    options |= {"username": where.username, "password": where.password, "db": where.db, **(where.tls or {})}
    options["connection_class"] = DroppedSentinelConnection if where.tls is None else DroppedSentinelSslConnection
    client: Redis = sentinel(where.sentinels).master_for(  # type: ignore[no-untyped-call]
        where.sentinels.master_name, **options
    )
    return client


def check_writable(client: Redis) -> None:
    """Return if Redis takes writes; a replica or a full disk refuses them. Raises: RedisError.

    Sends a deletion, so that nothing is stored. Redis refuses it like any write, but accepts it with full memory.
    """
    client.delete(_NEVER)


class MasterLookup(Sentinel):
    """Asks one Sentinel after the other, and reports each one's error, unlike redis-py's own class."""

    def discover_master(self, service_name: str) -> tuple[str, int]:
        """The master's host and port, from the first Sentinel that knows them; it is asked first from then on.

        Raises: MasterNotFoundError, with each Sentinel's reason.
        """
        reasons = []
        for number, each in enumerate(self.sentinels):
            address = each.connection_pool.connection_kwargs
            name = f"{address['host']}:{address['port']}"
            try:
                masters: Any = each.sentinel_masters()
            except (RedisConnectionError, RedisTimeoutError) as error:
                reasons.append(f"{name}: {error}")
                continue
            finally:
                # It is seldom asked again. Connections of other threads that ask it now are left alone.
                each.connection_pool.disconnect(inuse_connections=False)
            state = masters.get(service_name)
            if state and self.check_master_state(state, service_name):  # type: ignore[no-untyped-call]
                self.sentinels[0], self.sentinels[number] = each, self.sentinels[0]
                return state["ip"], state["port"]
            reasons.append(f"{name}: it knows no such master that is up")
        raise MasterNotFoundError(f"No master found for {service_name!r}: {'; '.join(reasons)}")


def sentinel(sentinels: Sentinels) -> Sentinel:
    """A client of the Sentinels. Each is asked once and briefly, since another one knows the master too."""
    options: dict[str, Any] = {
        "socket_timeout": SENTINEL_TIMEOUT_S,
        "socket_connect_timeout": SENTINEL_TIMEOUT_S,
        "password": sentinels.password,
        "retry": Retry(NoBackoff(), 0),
    }
    if sentinels.tls is not None:
        options |= {"ssl": True, **sentinels.tls}
    return MasterLookup(sentinels.addresses, sentinel_kwargs=options)  # type: ignore[no-untyped-call]
