"""Connections to Postgres, made the same way in every process; `redis.py` makes those to Redis.

Every wait is bounded by Postgres's own statement and lock time-outs, and by a client time-out if it does not answer at
all. Postgres ends the session of a process that stops in a transaction.
"""

import time
from collections.abc import Mapping
from typing import Any

from psycopg import Connection
from psycopg import Error as DriverError
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import Engine, create_engine, event, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, InvalidatePoolError
from sqlalchemy.pool import ConnectionPoolEntry, NullPool

from headrace.config import Settings
from headrace.connections import sessions
from headrace.connections.sessions import Sessions, connect_straight
from headrace.errors import ConfigError

#: Seconds to wait for a TCP connection.
CONNECT_TIMEOUT_S = 2
#: Seconds to wait for a free connection of the pool. Long enough to serve a burst of thousands of requests.
POOL_TIMEOUT_S = 10
#: A connection unused for this many seconds is tested before use: Postgres may have restarted meanwhile. A test before
#: every use would double the cost of a short statement.
IDLE_S = 1.0
#: The most Postgres connections of one worker. Its threads share statements, so that few run at once.
OF_A_WORKER = 5
#: Time-outs for one statement and for one lock: a locked table fails the request instead of blocking its thread.
STATEMENT_TIMEOUT_MS = 10_000
LOCK_TIMEOUT_MS = 4_000
#: How long a transaction may be idle between two statements: a process that is stopped in one, or whose host vanished,
#: must not keep its locks. Shorter than the time-out of a lock, so that those who wait for it get it.
IDLE_TIMEOUT_MS = 3_000
#: How long a migration waits for a lock. It then gives way to the statements queued behind it, and tries again.
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
        # The connection that was used last has its statements prepared and planned, and needs no test.
        pool_use_lifo=True,
        # An error's text would put the parameters into the logs: prompts, answers and digests of keys.
        hide_parameters=True,
        connect_args=_connect_args("DATABASE_URL", settings.database_url),
    )
    bounds = {"statement_timeout": STATEMENT_TIMEOUT_MS, "lock_timeout": LOCK_TIMEOUT_MS}
    _try_idle_ones(engine, Sessions(engine, {**bounds, "idle_in_transaction_session_timeout": IDLE_TIMEOUT_MS}))
    return engine


def release(settings: Settings) -> Engine:
    """An engine for migrations: a statement has no time-out, and waits for a lock only briefly.

    Raises: ConfigError; also at the first connection if it leads to a pooler, which would not keep these settings.
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
    """libpq's parameters for DATABASE_URL. Raises: ConfigError."""
    return _connect_args("DATABASE_URL", settings.database_url)


def shown(address: Mapping[str, Any]) -> str:
    """Host, port, database and user, without the password."""
    host, port = (address.get("host") or "the local socket"), (address.get("port") or 5432)
    return (
        f"{host}:{port} (database {address.get('dbname', 'of the user')}, user {address.get('user', 'of the system')})"
    )


def _connect_args(name: str, url: str) -> dict[str, Any]:
    """libpq's parameters for a URL. Args: name: of the variable that has the URL. Raises: ConfigError."""
    return {
        **_address(name, url),
        # Of several hosts, use the primary. A standby, or a node made read-only by a full disk, is an outage.
        "target_session_attrs": "read-write",
        "connect_timeout": CONNECT_TIMEOUT_S,
        "application_name": "headrace",
        "keepalives_idle": sessions.KEEPALIVES_IDLE_S,
        "keepalives_interval": sessions.KEEPALIVES_INTERVAL_S,
        "keepalives_count": sessions.KEEPALIVES_COUNT,
        "tcp_user_timeout": sessions.TCP_USER_TIMEOUT_MS,
    }


def _address(name: str, url: str) -> dict[str, Any]:
    """Parse a URL into libpq's parameters. Several hosts: libpq's form, or SQLAlchemy's (`?host=A:1&host=B:2`).

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
        # Without its cause and without the URL, which contains the password.
        message = (
            f"{name} must be like postgresql://USER:PASSWORD@HOST:PORT/NAME, or name several hosts of one cluster:"
            " postgresql://USER:PASSWORD@HOST1:PORT1,HOST2:PORT2/NAME. Write %40 for an @ in a password."
        )
        raise ConfigError(message, param=name) from None
    return address


def _check_ports(hosts: str, ports: str) -> None:
    """Raises: ValueError for ports that libpq would refuse only at the first connection."""
    numbers = [int(port) for port in ports.split(",") if port]
    if not all(0 < number <= MOST_PORT for number in numbers) or ports.count(",") not in (0, hosts.count(",")):
        raise ValueError


def _try_idle_ones(engine: Engine, sessions: Sessions) -> None:
    """Like `pool_pre_ping`, but only for connections that were idle for `IDLE_S`; lost ones are replaced."""

    @event.listens_for(engine, "checkin")
    def note_use(_connection: object, entry: ConnectionPoolEntry) -> None:
        entry.info["used_at"] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def try_it(connection: DBAPIConnection, entry: ConnectionPoolEntry, _proxy: object) -> None:
        used_at = entry.info.get("used_at")  # None: the connection is new
        if used_at is not None and used_at <= sessions.lost_at:
            raise InvalidatePoolError
        if used_at is None or time.monotonic() - used_at < IDLE_S:
            return
        try:
            engine.dialect.do_ping(connection)
        except DriverError as error:
            raise InvalidatePoolError from error
