"""Connections to the two servers, made one way everywhere.

Every wait on a server is bounded, so that a hung one cannot hang a process.
"""

from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from sqlalchemy import Engine, create_engine

from headrace.config import Settings

#: Seconds to wait for a TCP connection, to either server.
CONNECT_TIMEOUT_S = 2
#: Seconds to wait for Redis to answer one command.
REDIS_TIMEOUT_S = 5
#: Bounds for one statement and for one lock, so that a locked table fails a request instead of holding its thread.
STATEMENT_TIMEOUT_MS = 10_000
LOCK_TIMEOUT_MS = 4_000


def postgres(settings: Settings, *, pool_size: int = 8) -> Engine:
    """An engine with a pool of at most `pool_size` connections; connects on first use."""
    url = settings.database_url.replace("postgresql://", "postgresql+psycopg://", 1)
    return create_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=CONNECT_TIMEOUT_S,
        pool_pre_ping=True,
        connect_args={
            "connect_timeout": CONNECT_TIMEOUT_S,
            "application_name": "headrace",
            "options": f"-c timezone=UTC -c statement_timeout={STATEMENT_TIMEOUT_MS} -c lock_timeout={LOCK_TIMEOUT_MS}",
        },
    )


def redis(settings: Settings) -> Redis:
    """A client of the broker's Redis; one retry covers a connection that was closed while idle."""
    return Redis.from_url(
        settings.redis_url,
        socket_timeout=REDIS_TIMEOUT_S,
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        health_check_interval=10,
        retry=Retry(NoBackoff(), 1),
        decode_responses=True,
    )
