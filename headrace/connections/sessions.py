"""Postgres sessions, direct or through a pooler. PgBouncer may give each transaction another session.

So no transaction relies on its session. A direct session gets its time-outs when it starts, at no cost. Through a
pooler each transaction sets its own time-outs, and a single statement becomes a transaction. A pooler is detected
because it refuses or ignores the settings at the start of a session.
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
from psycopg.pq import TransactionStatus
from sqlalchemy import Connection as Db
from sqlalchemy import Engine, event
from sqlalchemy.engine.interfaces import ExceptionContext
from sqlalchemy.pool import ConnectionPoolEntry

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
