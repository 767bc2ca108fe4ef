"""Connections to Postgres, made the same way in every process; `redis.py` makes those to Redis.

Every wait is bounded by Postgres's own statement and lock time-outs, and by a client time-out if it does not answer at
all. Postgres ends the session of a process that stops in a transaction.

A connection is direct or through a pooler. PgBouncer may give each transaction another session, so no transaction
relies on its session. A direct session gets its time-outs when it starts, at no cost. Through a pooler each transaction
sets its own time-outs, and a single statement becomes a transaction. A pooler is detected because it refuses or ignores
the settings at the start of a session.
"""

import logging
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar, cast

from psycopg import Connection, OperationalError
from psycopg import Error as DriverError
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus
from sqlalchemy import Connection as Db
from sqlalchemy import Engine, create_engine, event, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection, ExceptionContext
from sqlalchemy.exc import ArgumentError, InvalidatePoolError
from sqlalchemy.pool import ConnectionPoolEntry, NullPool

from headrace.config import Settings
from headrace.errors import ConfigError

log = logging.getLogger(__name__)

#: Seconds to wait for Postgres to answer one statement; longer than Postgres's own statement time-out. Without it a
#: server that hangs, or a network that drops packets, would block a thread for ever.
ANSWER_TIMEOUT_S = 12.0
#: SQLSTATEs after which a connection is unusable: the node is read-only (25006), the session was ended because its
#: transaction was idle or slow (25P03, 25P04), the connection failed (08), the server stops or starts (57P).
LOST = ("25006", "25P03", "25P04", "08", "57P")
#: SQLSTATEs of a pooler that does not track prepared statements: the statement is missing in this session, or its name
#: is taken.
NOT_PREPARED = ("26000", "42P05")
#: TCP's checks of a silent peer, in seconds; and how long sent data may stay unacknowledged. With them either side
#: learns within half a minute that the other one has vanished, instead of after two hours.
KEEPALIVES_IDLE_S, KEEPALIVES_INTERVAL_S, KEEPALIVES_COUNT = 15, 5, 3
TCP_USER_TIMEOUT_MS = 30_000
#: The server's side of it. Through a pooler, the pooler's own settings count.
_SERVER_TCP = (
    f"-c tcp_keepalives_idle={KEEPALIVES_IDLE_S} -c tcp_keepalives_interval={KEEPALIVES_INTERVAL_S}"
    f" -c tcp_keepalives_count={KEEPALIVES_COUNT} -c tcp_user_timeout={TCP_USER_TIMEOUT_MS}"
)
#: PgBouncer's error for settings at the start of a session.
_REFUSED = "unsupported startup parameter"
_OPTION = "headrace_sessions"

T = TypeVar("T")
Bounds = Mapping[str, int]
AnyConnection = TypeVar("AnyConnection", bound=Connection[Any])


class Patient(Connection[Any]):
    """A connection that fails when its server has not answered for `ANSWER_TIMEOUT_S`."""

    def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
        try:
            return super().wait(gen, interval, ANSWER_TIMEOUT_S if timeout is None else timeout)
        except DriverError:
            if self.info.transaction_status is TransactionStatus.ACTIVE:
                # The answer may still come, and would be read as the answer to another statement.
                self.close()
            raise


def connect_straight(kind: type[AnyConnection], params: Mapping[str, Any], bounds: Bounds) -> AnyConnection | None:
    """Connect with these time-outs, in milliseconds; None if this is a pooler. Raises: OperationalError."""
    # After the options of the URL: of two settings with one name the last one applies.
    words = (
        params.get("options", ""),
        "-c TimeZone=UTC",
        _SERVER_TCP,
        *(f"-c {name}={value}" for name, value in bounds.items()),
    )
    try:
        connection = kind.connect(**{**params, "options": " ".join(words)})
    except OperationalError as error:
        if _REFUSED in str(error):
            return None
        raise
    try:
        held = " AND ".join(f"current_setting('{name}')::interval = '{value} ms'" for name, value in bounds.items())
        connection.autocommit = True
        row = connection.execute(f"SELECT {held}".encode()).fetchone()
        connection.autocommit = False
    except BaseException:
        connection.close()
        raise
    if row == (True,):
        return connection
    connection.close()
    return None


def close(engine: Engine) -> None:
    """Close the engine's connections. One that is in use is closed once its thread gives it back.

    `dispose` alone would leave that one open in a pool that nothing uses any more.
    """
    event.listen(engine, "checkin", _close_now)
    engine.dispose()


def _close_now(_connection: object, record: ConnectionPoolEntry) -> None:
    if record.dbapi_connection is not None:
        record.invalidate()


def _forget_read_only(connection: Connection[Any] | None, _record: object) -> None:
    """After `read_only=True` SQLAlchemy sets False, by which each transaction would write to a read-only node, too."""
    if connection is not None and connection.read_only is not None:
        connection.read_only = None


class Sessions:
    """Opens an engine's sessions, and closes unusable ones.

    Attributes:
        is_pooled: True once a pooler was detected. Before that, one single statement may run without time-outs.
        lost_at: when `session` last lost one, in monotonic seconds: those used before have the same server.
    """

    def __init__(self, engine: Engine, bounds: Bounds) -> None:
        """Install the listeners on this engine."""
        self.is_pooled = False
        self._bounds = bounds
        self._prepares = True
        settings = (*(f"{name} = {value}" for name, value in bounds.items()), "TimeZone = 'UTC'")
        self._engine = engine
        self.lost_at = -math.inf
        self._begin_with = "; ".join(f"SET LOCAL {setting}" for setting in settings)
        engine.update_execution_options(**{_OPTION: self})
        event.listen(engine, "do_connect", self._connect)
        event.listen(engine, "begin", self._begin)
        event.listen(engine, "handle_error", self._heed)
        event.listen(engine, "checkin", _forget_read_only)

    @staticmethod
    def of(engine: Engine) -> "Sessions | None":
        """The `Sessions` of an engine; None if it has none."""
        found: Sessions | None = engine.get_execution_options().get(_OPTION)
        return found

    @contextmanager
    def session(self) -> Iterator[Connection[Any]]:
        """A session of the pool for one statement, which is a transaction by itself. Raises: psycopg's errors."""
        pooled = self._engine.raw_connection()
        session = cast("Connection[Any]", pooled.driver_connection)
        try:
            session.autocommit = True
            yield session
        except DriverError as error:
            if session.closed or (error.sqlstate or "").startswith(LOST):
                self.lost_at = time.monotonic()
                pooled.invalidate(error)
            raise
        finally:
            if not session.closed:
                session.autocommit = False
            pooled.close()

    def _connect(self, _dialect: object, _record: object, _args: object, params: dict[str, Any]) -> Patient:
        if not self.is_pooled:
            if straight := connect_straight(Patient, params, self._bounds):
                return straight
            log.info("postgres_is_pooled")
            self.is_pooled = True
        connection = Patient.connect(**params)
        if not self._prepares:
            connection.prepare_threshold = None
        return connection

    def _begin(self, db: Db) -> None:
        if self.is_pooled and db.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
            db.exec_driver_sql(self._begin_with)

    def _heed(self, context: ExceptionContext) -> None:
        """On such an error, close the connection and every pooled one: all have the same server."""
        error = context.original_exception
        state = error.sqlstate or "" if isinstance(error, DriverError) else ""
        if self.is_pooled and state in NOT_PREPARED:
            log.warning("pooler_keeps_no_prepared_statements", extra={"remedy": "max_prepared_statements = 200"})
            self._prepares = False
            context.is_disconnect = True
        elif state.startswith(LOST):
            context.is_disconnect = True


#: Seconds to wait for a TCP connection.
CONNECT_TIMEOUT_S = 2
#: Seconds to wait for a free connection of the pool. Long enough to serve a burst of thousands of requests.
POOL_TIMEOUT_S = 10
#: A connection unused for this many seconds is tested before use: Postgres may have restarted meanwhile. A test before
#: every use would double the cost of a short statement.
IDLE_S = 1.0
#: The most Postgres connections of one worker. Its threads wait for one when many jobs end at once.
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
        # Use the primary of several hosts. A standby, or a node made read-only by a full disk, is an outage.
        "target_session_attrs": "read-write",
        "connect_timeout": CONNECT_TIMEOUT_S,
        "application_name": "headrace",
        "keepalives_idle": KEEPALIVES_IDLE_S,
        "keepalives_interval": KEEPALIVES_INTERVAL_S,
        "keepalives_count": KEEPALIVES_COUNT,
        "tcp_user_timeout": TCP_USER_TIMEOUT_MS,
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
