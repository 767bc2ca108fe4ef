"""Postgres: transactions, with one error for every way in which it does not answer. Every SQL statement is below here,
one module per noun.

Callers open a transaction with `Store.begin` and pass it down. Postgres is the source of truth. All times are from the
database's clock, since the hosts' clocks may differ.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from psycopg import Error as DriverError
from psycopg import InterfaceError, OperationalError
from psycopg.rows import namedtuple_row
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from headrace import connections
from headrace.connections import LOST, Sessions
from headrace.errors import StoreBusy, StoreUnavailable

#: SQLSTATE class of exceeded limits, such as an index's row size. The driver raises it like an outage.
_TOO_LARGE = "54"
#: SQLSTATE of a lock that did not come free in time.
LOCK_NOT_AVAILABLE = "55P03"
#: Also those of a statement that took too long, and of a deadlock.
_BUSY = (LOCK_NOT_AVAILABLE, "57014", "40P01")
#: How long a page that shows the system waits for each locked table, and in all, in seconds, before it leaves out what
#: it has not read.
_GLANCE_LOCK_MS, _GLANCE_S = 300, 5.0
#: The smallest write: a message in Postgres's write-ahead log that has no reader. The log is written in order, so its
#: commit puts all that was committed before on disk, also by statements that did not wait for it, and on a standby.
SMALLEST_WRITE = "SELECT pg_logical_emit_message(true, 'headrace', '')"

T = TypeVar("T")


class Store:
    """Opens transactions in Postgres."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._read_only = engine.execution_options(postgresql_readonly=True)
        self._sessions = Sessions.of(engine)

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """One transaction: commits at the end, rolls back on any error.

        Raises: StoreUnavailable if Postgres does not answer in time, or takes no writes.
        """
        with _one_error(), self._engine.begin() as db:
            yield db

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One transaction in which Postgres refuses every change. Raises: StoreUnavailable."""
        with _one_error(), self._read_only.begin() as db:
            yield db

    @contextmanager
    def autocommit(self) -> Iterator[Connection]:
        """A connection on which each statement is a transaction, which saves the round trips of BEGIN and COMMIT.

        Through a pooler the whole block is one transaction: a single statement would run without time-outs.
        Raises: StoreUnavailable.
        """
        if self._sessions is not None and self._sessions.is_pooled:
            with self.begin() as db:
                yield db
            return
        with _one_error(), self._autocommit.connect() as db:
            yield db

    def run(self, sql: str, parameters: Mapping[str, Any]) -> Sequence[Any]:
        """The rows of a statement in psycopg's notation, with its columns as attributes. It is a transaction by itself.

        psycopg alone runs it: to describe the rows' columns to SQLAlchemy costs a poll a seventh
        (`benchmarks/steps.py`). Raises: StoreUnavailable. DBAPIError.
        """
        if self._sessions is None or self._sessions.is_pooled:
            with self.begin() as db:
                return db.exec_driver_sql(sql, dict(parameters)).all()
        try:
            with _one_error(), self._sessions.session() as session:
                return session.cursor(row_factory=namedtuple_row).execute(sql.encode(), parameters).fetchall()
        except DriverError as error:
            is_lost = (error.sqlstate or "").startswith(LOST)
            raise _outage(error, is_lost=is_lost) or DBAPIError(sql, None, error, hide_parameters=True) from error

    def close(self) -> None:
        """Close every connection: one that is in use once it is given back."""
        connections.close(self._engine)


class Glance:
    """Reads one thing after another in one transaction. What meets a locked table, or takes too long, is left out.

    Attributes:
        unread: why, by the name of each thing that is left out.
    """

    def __init__(self, db: Connection) -> None:
        """Shorten this transaction's time-out of a lock."""
        self._db, self._until = db, time.monotonic() + _GLANCE_S
        self.unread: dict[str, str] = {}
        db.exec_driver_sql(f"SET LOCAL lock_timeout = {_GLANCE_LOCK_MS}")

    def read(self, name: str, query: Callable[[Connection], T], otherwise: T) -> T:
        """Returns the query's result, or `otherwise`. Raises: StoreUnavailable if Postgres does not answer."""
        if time.monotonic() > self._until:
            self.unread[name] = "Postgres is too slow"
            return otherwise
        try:
            with _one_error(), self._db.begin_nested():
                return query(self._db)
        except StoreBusy as error:
            is_locked = isinstance(error.__cause__, DBAPIError) and sqlstate(error.__cause__) == LOCK_NOT_AVAILABLE
            self.unread[name] = "a table is locked" if is_locked else "Postgres took too long"
            return otherwise


@contextmanager
def _one_error() -> Iterator[None]:
    """Raise StoreUnavailable for every way in which Postgres does not answer."""
    try:
        yield
    except PoolTimeout as error:
        raise StoreUnavailable(f"Postgres does not answer: {_first_line(error)}") from error
    except DBAPIError as error:
        if outage := _outage(error.orig, is_lost=error.connection_invalidated):
            raise outage from error
        raise


def _outage(error: BaseException | None, *, is_lost: bool) -> StoreUnavailable | None:
    """How Postgres does not answer, by the driver's error; None if it has answered."""
    state = getattr(error, "sqlstate", None) or ""
    if isinstance(error, OperationalError | InterfaceError):
        if state.startswith(_TOO_LARGE):
            return None
        if state in _BUSY:
            return StoreBusy(f"Postgres does not get to it: {_first_line(error)}")
        what = "takes no writes" if "session is read-only" in str(error) else "does not answer"
        return StoreUnavailable(f"Postgres {what}: {_first_line(error)}")
    if is_lost:
        return StoreUnavailable(f"Postgres takes no writes, or closed the connection: {_first_line(error)}")
    return None


def sqlstate(error: DBAPIError) -> str:
    """Postgres's code for the error; empty where the driver itself raised it."""
    return getattr(error.orig, "sqlstate", None) or ""


def _first_line(error: BaseException | None) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
