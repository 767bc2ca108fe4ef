"""Connections to the two servers, made one way everywhere.

Waits on a server are bounded: Redis by a time-out per command, Postgres by its own statement and lock time-outs, and
by ours where it says nothing at all.
"""

import time
from typing import Any, TypeVar

from psycopg import Connection
from psycopg import Error as DriverError
from psycopg.abc import PQGen
from psycopg.pq import TransactionStatus
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.pool import ConnectionPoolEntry

from headrace.config import Settings
from headrace.errors import ConfigError

#: Seconds to wait for a TCP connection, to either server.
CONNECT_TIMEOUT_S = 2
#: Seconds to wait for a free connection of the pool: a burst of thousands of requests is served, not turned away.
POOL_TIMEOUT_S = 10
#: Seconds since its last use after which a pooled connection is tried before it is used again: Postgres may have been
#: restarted meanwhile. To try it each time would cost a short statement as much again.
IDLE_S = 1.0
#: Seconds to wait for Redis to answer one command, which takes it a millisecond. A hung one holds a thread this long.
REDIS_TIMEOUT_S = 2
#: Bounds for one statement and for one lock, so that a locked table fails a request instead of holding its thread.
STATEMENT_TIMEOUT_MS = 10_000
LOCK_TIMEOUT_MS = 4_000
#: Seconds to wait for Postgres to answer one statement: longer than it may take itself. One that hangs, or to which the
#: network swallows what is sent, would hold a thread for ever.
ANSWER_TIMEOUT_S = 12.0

T = TypeVar("T")


class _Patient(Connection[Any]):
    """A connection that is given up when its server has said nothing for `ANSWER_TIMEOUT_S`."""

    def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
        try:
            return super().wait(gen, interval, ANSWER_TIMEOUT_S if timeout is None else timeout)
        except DriverError:
            if self.info.transaction_status is TransactionStatus.ACTIVE:
                # The answer may still come, and would be taken for another statement's.
                self.close()
            raise


def postgres(settings: Settings, *, pool_size: int = 8) -> Engine:
    """An engine with a pool of at most `pool_size` connections; connects on first use. Raises: ConfigError."""
    url = settings.database_url.replace("postgresql://", "postgresql+psycopg://", 1)
    if not url.startswith("postgresql+psycopg://"):
        # The URL itself is not shown: it has a password in it.
        raise ConfigError("DATABASE_URL must be like postgresql://USER:PASSWORD@HOST:PORT/NAME.", param="database_url")
    engine = create_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=POOL_TIMEOUT_S,
        # An error's text would quote them into the logs: they are prompts, answers and keys' digests.
        hide_parameters=True,
        connect_args={
            "connect_timeout": CONNECT_TIMEOUT_S,
            "application_name": "headrace",
            # A server whose host has vanished is given up after about half a minute.
            "keepalives_idle": 15,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 30_000,
            "options": f"-c timezone=UTC -c statement_timeout={STATEMENT_TIMEOUT_MS} -c lock_timeout={LOCK_TIMEOUT_MS}",
        },
    )
    event.listen(engine, "do_connect", lambda dialect, record, args, params: _Patient.connect(*args, **params))
    _try_idle_ones(engine)
    return engine


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


def redis(settings: Settings) -> Redis:
    """A client of the broker's Redis; one retry covers a connection that was closed while idle.

    A time-out is not retried: whoever hangs now will hang the second time, and the caller waits twice.
    Raises: ConfigError.
    """
    if not settings.redis_url.startswith(("redis://", "rediss://")):
        raise ConfigError(
            "REDIS_URL must be like redis://:PASSWORD@HOST:PORT/0, or rediss:// for TLS.", param="redis_url"
        )
    return Redis.from_url(
        settings.redis_url,
        socket_timeout=REDIS_TIMEOUT_S,
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        health_check_interval=10,
        retry=Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
        decode_responses=True,
    )
