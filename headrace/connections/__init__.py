"""Connections to the two servers, made one way everywhere.

Waits on a server are bounded: Redis by a time-out per command, Postgres by its own statement and lock time-outs, and
by ours where it says nothing at all.
"""

import time
from collections.abc import Mapping
from typing import Any

from psycopg import Connection
from psycopg import Error as DriverError
from psycopg.conninfo import conninfo_to_dict
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, Sentinel
from sqlalchemy import Engine, create_engine, event, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, InvalidatePoolError
from sqlalchemy.pool import ConnectionPoolEntry, NullPool

from headrace.config import Settings
from headrace.config.redis_url import RedisUrl, Sentinels
from headrace.connections.outages import (
    DroppedConnection,
    DroppedSentinelConnection,
    DroppedSentinelSslConnection,
    DroppedSslConnection,
)
from headrace.connections.sessions import Sessions, connect_straight
from headrace.domain.queues import KEY_PREFIX
from headrace.errors import ConfigError

#: Seconds to wait for a TCP connection, to either server.
CONNECT_TIMEOUT_S = 2
#: Seconds to wait for a free connection of the pool: a burst of thousands of requests is served, not turned away.
POOL_TIMEOUT_S = 10
#: Most connections of one worker to Postgres. Its threads share statements, so that few are under way at once.
OF_A_WORKER = 5
#: Seconds since its last use after which a pooled connection is tried before it is used again: Postgres may have been
#: restarted meanwhile. To try it each time would cost a short statement as much again.
IDLE_S = 1.0
#: Seconds to wait for Redis to answer one command, which takes it a millisecond. A hung one holds a thread this long.
REDIS_TIMEOUT_S = 2
#: Seconds to wait for one Sentinel, to connect and to answer. One that hangs costs each new connection this much, until
#: another has answered, which is then asked first.
SENTINEL_TIMEOUT_S = 0.5
#: A key that nobody sets.
_NEVER = KEY_PREFIX + "never"
#: Bounds for one statement and for one lock, so that a locked table fails a request instead of holding its thread.
STATEMENT_TIMEOUT_MS = 10_000
LOCK_TIMEOUT_MS = 4_000
#: How long a migration waits for a lock before it lets by those that queue behind it, and tries again.
RELEASE_LOCK_TIMEOUT_MS = 2_000
#: The largest TCP port.
MOST_PORT = 65_535


def postgres(settings: Settings, *, pool_size: int = 8) -> Engine:
    """An engine with a pool of at most `pool_size` connections; connects on first use. Raises: ConfigError."""
    engine = create_engine(
        "postgresql+psycopg://",
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=POOL_TIMEOUT_S,
        # An error's text would quote them into the logs: they are prompts, answers and keys' digests.
        hide_parameters=True,
        connect_args=_connect_args("DATABASE_URL", settings.database_url),
    )
    Sessions(engine, {"statement_timeout": STATEMENT_TIMEOUT_MS, "lock_timeout": LOCK_TIMEOUT_MS})
    _try_idle_ones(engine)
    return engine


def release(settings: Settings) -> Engine:
    """An engine for migrations: a statement may take as long as it needs, and waits for a lock only briefly.

    Raises: ConfigError; at the first connection, where a pooler is in the way: it would forget this.
    """
    is_own = settings.release_database_url is not None
    name = "HEADRACE_RELEASE_DATABASE_URL" if is_own else "DATABASE_URL"
    bounds = {"statement_timeout": 0, "idle_in_transaction_session_timeout": 0, "lock_timeout": RELEASE_LOCK_TIMEOUT_MS}

    def connect(_dialect: object, _record: object, _args: object, params: dict[str, Any]) -> Connection[Any]:
        if connection := connect_straight(Connection, params, bounds):
            return connection
        message = f"{name} leads to a pooler. Set HEADRACE_RELEASE_DATABASE_URL to Postgres itself, for migrations."
        raise ConfigError(message, param="release_database_url")

    url = settings.release_database_url or settings.database_url
    engine = create_engine("postgresql+psycopg://", poolclass=NullPool, connect_args=_connect_args(name, url))
    event.listen(engine, "do_connect", connect)
    return engine


def postgres_address(settings: Settings) -> dict[str, Any]:
    """What libpq is told to connect to DATABASE_URL. Raises: ConfigError."""
    return _connect_args("DATABASE_URL", settings.database_url)


def shown(address: Mapping[str, Any]) -> str:
    """Host, port, database and user, without the password."""
    host, port = (address.get("host") or "the local socket"), (address.get("port") or 5432)
    return (
        f"{host}:{port} (database {address.get('dbname', 'of the user')}, user {address.get('user', 'of the system')})"
    )


def _connect_args(name: str, url: str) -> dict[str, Any]:
    """What libpq is told. Args: name: of the variable that has the URL. Raises: ConfigError."""
    return {
        **_address(name, url),
        # Of several hosts, the primary. A standby, or a node that a full disk made read-only, is an outage.
        "target_session_attrs": "read-write",
        "connect_timeout": CONNECT_TIMEOUT_S,
        "application_name": "headrace",
        # A server whose host has vanished is given up after about half a minute.
        "keepalives_idle": 15,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 30_000,
    }


def _address(name: str, url: str) -> dict[str, Any]:
    """The URL in libpq's words. Several hosts are named as libpq does, or as SQLAlchemy does (`?host=A:1&host=B:2`).

    Raises: ConfigError.
    """
    plain = url.replace("postgresql+psycopg://", "postgresql://", 1)
    try:
        if not plain.startswith("postgresql://"):
            raise ValueError
        if "host=" in plain.partition("?")[2]:
            parsed = make_url(plain.replace("postgresql://", "postgresql+psycopg://", 1))
            address = dict(parsed.get_dialect()().create_connect_args(parsed)[1])
        else:
            address = dict(conninfo_to_dict(plain))
        _check_ports(str(address.get("host", "")), str(address.get("port", "")))
    except (ValueError, ArgumentError, DriverError):
        # Without its cause, and the URL is not shown: there is a password in it.
        message = (
            f"{name} must be like postgresql://USER:PASSWORD@HOST:PORT/NAME, or name several hosts of one cluster:"
            " postgresql://USER:PASSWORD@HOST1:PORT1,HOST2:PORT2/NAME. Write %40 for an @ in a password."
        )
        raise ConfigError(message, param=name) from None
    return address


def _check_ports(hosts: str, ports: str) -> None:
    """Raises: ValueError: libpq would take none of these, at the first connection."""
    numbers = [int(port) for port in ports.split(",") if port]
    if not all(0 < number <= MOST_PORT for number in numbers) or ports.count(",") not in (0, hosts.count(",")):
        raise ValueError


def _try_idle_ones(engine: Engine) -> None:
    """What `pool_pre_ping` does, for the connections that have not been used for a while alone."""

    @event.listens_for(engine, "checkin")
    def note_use(_connection: object, entry: ConnectionPoolEntry) -> None:
        entry.info["used_at"] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def try_it(connection: DBAPIConnection, entry: ConnectionPoolEntry, _proxy: object) -> None:
        used_at = entry.info.get("used_at")  # None: it is new
        if used_at is None or time.monotonic() - used_at < IDLE_S:
            return
        try:
            engine.dialect.do_ping(connection)
        except DriverError as error:
            raise InvalidatePoolError from error


def redis(settings: Settings, *, retry: Retry | None = None, timeout_s: float = REDIS_TIMEOUT_S) -> Redis:
    """A client of the broker's Redis; one retry covers a connection that was closed while idle, and a failover.

    A time-out is not retried: whoever hangs now will hang the second time, and the caller waits twice.
    Raises: ConfigError.
    """
    where = RedisUrl.parse(settings.redis_url)
    options: dict[str, Any] = {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": min(timeout_s, CONNECT_TIMEOUT_S),
        "health_check_interval": 10,
        "retry": retry or Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
        "decode_responses": True,
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
    """Return when Redis takes writes: a replica and one whose disk is full answer, and take none. Raises: RedisError.

    Nothing is stored: a deletion is refused like any write, and also taken where the memory is full.
    """
    client.delete(_NEVER)


class MasterLookup(Sentinel):
    """Asks one Sentinel after the other. redis-py's own error names no reason, such as a wrong certificate."""

    def discover_master(self, service_name: str) -> tuple[str, int]:
        """Host and port by the first Sentinel that knows them, which is asked first from then on.

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
            state = masters.get(service_name)
            if state and self.check_master_state(state, service_name):  # type: ignore[no-untyped-call]
                self.sentinels[0], self.sentinels[number] = each, self.sentinels[0]
                return state["ip"], state["port"]
            reasons.append(f"{name}: it knows no such master that is up")
        raise MasterNotFoundError(f"No master found for {service_name!r}: {'; '.join(reasons)}")


def sentinel(sentinels: Sentinels) -> Sentinel:
    """The Sentinels, each asked once and for a short time: another one knows as well."""
    options: dict[str, Any] = {
        "socket_timeout": SENTINEL_TIMEOUT_S,
        "socket_connect_timeout": SENTINEL_TIMEOUT_S,
        "password": sentinels.password,
        "retry": Retry(NoBackoff(), 0),
    }
    if sentinels.tls is not None:
        options |= {"ssl": True, **sentinels.tls}
    return MasterLookup(sentinels.addresses, sentinel_kwargs=options)  # type: ignore[no-untyped-call]
