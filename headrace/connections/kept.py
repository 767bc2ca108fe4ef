"""A connection that an engine's single statements keep between them.

To give it back to the pool and to take one again, with autocommit set anew each time, costs half of what such a
statement costs the process.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, event
from sqlalchemy.pool import QueuePool

#: A connection unused for this many seconds is tested before use: Postgres may have restarted meanwhile. A test before
#: every use would double the cost of a short statement.
IDLE_S = 1.0
#: In a pooled connection's `info`: when it was last used, if that was long before it was given back.
KEPT_SINCE = "kept_since"


class KeptConnection:
    """Gives out connections in autocommit mode, and keeps one of them. Safe for many threads."""

    def __init__(self, engine: Engine, is_straight: Callable[[], bool]) -> None:
        """Connect on first use. Args: is_straight: False once connections lead to a pooler."""
        self._is_straight = is_straight
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._lock = threading.Lock()
        self._kept: Connection | None = None
        self._used_at = 0.0
        self._closings = 0
        event.listen(engine, "engine_disposed", self._close)

    @contextmanager
    def use(self) -> Iterator[Connection]:
        """A connection for one statement, which the driver runs: through SQLAlchemy it would begin a transaction."""
        closings = self._closings
        db = self._take()
        try:
            yield db
        finally:
            self._give_back(db, closings)

    def _take(self) -> Connection:
        with self._lock:
            db, self._kept = self._kept, None
        if db is not None and time.monotonic() - self._used_at >= IDLE_S:
            # The pool tests it, or gives out another one.
            db.info[KEPT_SINCE] = self._used_at
            db.close()
            db = None
        return db or self._engine.connect()

    def _give_back(self, db: Connection, closings: int) -> None:
        with self._lock:
            if not (self._kept or db.invalidated or closings != self._closings) and self._may_keep():
                self._kept, self._used_at = db, time.monotonic()
                return
        db.close()

    def _may_keep(self) -> bool:
        """Whether the pool has more than one connection, so that others do not wait for it."""
        pool = self._engine.pool
        return self._is_straight() and isinstance(pool, QueuePool) and pool.size() > 1

    def _close(self, _engine: Engine) -> None:
        with self._lock:
            self._closings += 1
            db, self._kept = self._kept, None
        if db is not None:
            db.invalidate()
            db.close()
