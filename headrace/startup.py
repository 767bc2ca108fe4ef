"""The checks of a process before it starts: its settings, and its access to Postgres and Redis.

A failed check ends the process with one sentence that says what to do, and without a traceback.

A server that answers but is not ready yet (it loads its data, or takes no writes) passes: that ends by itself.
"""

import gc
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from celery import Celery
from celery.signals import import_modules
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, AuthorizationError, BusyLoadingError, NoPermissionError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from headrace import connections
from headrace.config import Settings
from headrace.config.redis_url import RedisUrl
from headrace.connections.redis import Outage, redis_client
from headrace.errors import BrokerUnavailable, ConfigError, StoreUnavailable, Unavailable
from headrace.logging import configure
from headrace.tables import revisions

log = logging.getLogger(__name__)

#: The exit status of a process that SIGKILL ended: 128 + 9.
KILLED = 137


@contextmanager
def explained() -> Iterator[None]:
    """End the process with status 1 and one log line, without a traceback, if a setting cannot be used."""
    try:
        yield
    except ConfigError as error:
        configure()
        log.critical("settings_not_usable", extra={"setting": error.param, "error": str(error)})
        sys.exit(1)


def load() -> Settings:
    """Load the settings. One that cannot be used ends the process, and so does a paid API that is Headrace itself."""
    with explained():
        settings = Settings.load()
        settings.check_paid_api()
    return settings


def log_as_json(loglevel: int, **_: object) -> None:
    """A receiver of Celery's signal `setup_logging`. Celery sets up no logging of its own while one is connected."""
    configure(logging.getLevelName(loglevel))


def failpoint(armed: str | None) -> Callable[[str], None]:
    """A function that ends the process at the armed point, without any clean-up. At other points it does nothing."""

    def fail_at(name: str) -> None:
        if name == armed:
            os._exit(KILLED)

    return fail_at


def check_redis(settings: Settings) -> None:
    """Check the access to Redis. Raises: ConfigError: it refuses. BrokerUnavailable: it does not answer. Bound: 2 s."""
    where = RedisUrl.parse(settings.redis_url).shown
    client = redis_client(settings, retry=Retry(NoBackoff(), 0), timeout_s=1)
    try:
        client.ping()
    except (Outage, BusyLoadingError) as error:
        log.warning("redis_not_ready", extra={"error": str(error)})
    except (AuthenticationError, AuthorizationError, NoPermissionError) as error:
        message = f"Redis at {where} does not let us in ({error}): set user and password in REDIS_URL."
        raise ConfigError(message, param="redis_url") from error
    except (RedisConnectionError, RedisTimeoutError) as error:
        message = f"No Redis answers at {where} ({error}): start it, or set REDIS_URL to where it is."
        raise BrokerUnavailable(message, param="redis_url") from error
    except RedisError as error:
        raise ConfigError(f"Redis at {where} refuses a PING: {error}", param="redis_url") from error
    finally:
        client.close()


#: Messages of Postgres and PgBouncer for a login that can never succeed. In libpq a failed login has no SQLSTATE.
_LOGIN_REFUSED = (
    "password authentication failed",
    "no password supplied",
    "SASL authentication failed",
    "no pg_hba.conf entry",
    "no such user",
    "permission denied for database",
)
#: The server answered but refused for now: it starts or stops, has no free connection, or takes no writes.
_NOT_READY = ("FATAL:", "session is read-only", "server is in hot standby mode")


def check_postgres(settings: Settings) -> None:
    """Check the access to Postgres, and its migrations.

    Raises: ConfigError: it refuses the login, or lacks migrations. StoreUnavailable: it does not answer.
    Bound: 2 s to connect to each host in DATABASE_URL, and 2 s for the answer.
    """
    address = connections.postgres_address(settings)
    where = connections.shown(address)
    try:
        with psycopg.connect(**address) as db:
            # LOCAL: a pooler gives the session to other clients afterwards.
            db.execute("SET LOCAL statement_timeout = 2000")
            _check_migrations(db, where)
    except psycopg.errors.QueryCanceled as error:
        log.warning("postgres_not_ready", extra={"error": str(error)})
    except psycopg.OperationalError as error:
        _explain(error, where)


def _explain(error: psycopg.OperationalError, where: str) -> None:
    """Raise the error that says what to do; return if Postgres is just not ready yet.

    Raises: ConfigError. StoreUnavailable.
    """
    # On one line: libpq appends hints on further lines.
    reason = " ".join(str(error).split())
    if any(text in reason for text in _LOGIN_REFUSED) or ('role "' in reason and "does not exist" in reason):
        message = f"Postgres at {where} refuses the login ({reason}): set user and password in DATABASE_URL."
        raise ConfigError(message, param="database_url") from error
    if "no such database" in reason or ('database "' in reason and "does not exist" in reason):
        message = (
            f"Postgres at {where} has no such database ({reason}): create it, or correct its name in DATABASE_URL."
        )
        raise ConfigError(message, param="database_url") from error
    if not any(text in reason for text in _NOT_READY):
        message = f"No Postgres answers at {where} ({reason}): start it, or set DATABASE_URL to where it is."
        raise StoreUnavailable(message, param="database_url") from error
    log.warning("postgres_not_ready", extra={"error": reason})


def _check_migrations(db: psycopg.Connection[Any], where: str) -> None:
    """Raises: ConfigError: the tables are older than this code."""
    try:
        row = db.execute("SELECT max(version_num) FROM alembic_version").fetchone()
    except psycopg.errors.UndefinedTable:
        row = None
    except psycopg.errors.InsufficientPrivilege:
        return  # Only the database user of the release step may read this table.
    if reason := revisions.lacking(row[0] if row else None):
        raise ConfigError(f"Postgres at {where} {reason}", param="database_url")


#: Run in this order.
CHECKS: tuple[Callable[[Settings], None], ...] = (check_redis, check_postgres)


def check(settings: Settings, *, goes_on: bool = False, uses_postgres: bool = True) -> None:
    """End the process with status 1 and a sentence if a server refuses it or does not answer.

    Args:
        goes_on: True to continue if a server does not answer: it may come back.
        uses_postgres: False for beat and Flower, which only need Redis.
    """
    for each in CHECKS:
        if each is check_postgres and not uses_postgres:
            continue
        try:
            each(settings)
        except (ConfigError, Unavailable) as error:
            configure()
            log.critical("server_not_usable", extra={"setting": error.param, "error": str(error)})
            if isinstance(error, ConfigError) or not goes_on:
                sys.exit(1)


def check_first(celery: Celery, settings: Settings, *, goes_on: bool = False, uses_postgres: bool = True) -> None:
    """Make the programs of this Celery app (worker, beat and Flower) run the checks before they start."""

    def begin(**_: Any) -> None:
        check(settings, goes_on=goes_on, uses_postgres=uses_postgres)

    # All three send this signal before anything else; a process that only sends messages does not send it.
    import_modules.connect(begin, sender=celery, weak=False)


def settle_heap(young_objects: int) -> None:
    """Hide all present objects from the collector: what is loaded stays. Call it once, when all is loaded.

    A collection that looks at all objects stops every thread: with vLLM's 700,000 for 0.4 s. The price: present objects
    that refer to each other in a circle are never freed, not even those of an engine that has died.

    Args:
        young_objects: new objects that trigger a collection. With Python's default of 700, a busy process collects
            seventy times a second.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(young_objects)
