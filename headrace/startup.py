"""What a process checks before it starts: its settings, and that its servers let it in.

What is wrong ends it with one sentence that has the remedy, and no traceback.

A server that answers and is not ready yet (it loads its data, or takes no writes) passes: that ends by itself.
"""

import logging
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
from headrace.config import PROJECT_ROOT, Settings
from headrace.config.redis_url import RedisUrl
from headrace.connections.outages import Outage
from headrace.errors import BrokerUnavailable, ConfigError, StoreUnavailable, Unavailable
from headrace.logging import configure

log = logging.getLogger(__name__)


@contextmanager
def explained() -> Iterator[None]:
    """End the process with status 1 and one log line, not a traceback, where a setting cannot be used."""
    try:
        yield
    except ConfigError as error:
        configure()
        log.critical("settings_not_usable", extra={"setting": error.param, "error": str(error)})
        sys.exit(1)


def load() -> Settings:
    """The settings of a process that starts. A setting that cannot be used ends the process."""
    with explained():
        return Settings.load()


def check_redis(settings: Settings) -> None:
    """Raises: ConfigError: Redis does not let us in. BrokerUnavailable: it is not there. Bound: 2 s."""
    where = RedisUrl.parse(settings.redis_url).shown
    client = connections.redis(settings, retry=Retry(NoBackoff(), 0), timeout_s=1)
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


#: What Postgres and PgBouncer say to a login that cannot succeed later either. A failed login has no SQLSTATE in libpq.
_LOGIN_REFUSED = (
    "password authentication failed",
    "no password supplied",
    "SASL authentication failed",
    "no pg_hba.conf entry",
    "no such user",
    "permission denied for database",
)
#: The server answered, and refused for another reason: it starts, stops, has no free connection, or takes no writes.
_NOT_READY = ("FATAL:", "session is read-only", "server is in hot standby mode")
_MIGRATE = "run the Procfile's 'release' ('alembic upgrade head')"


def check_postgres(settings: Settings) -> None:
    """Raises: ConfigError: Postgres refuses the login, or lacks migrations. StoreUnavailable: it is not there.

    Bound: 2 s to connect to each host that DATABASE_URL names, and 2 s for the answer.
    """
    address = connections.postgres_address(settings)
    where = connections.shown(address)
    try:
        with psycopg.connect(**address) as db:
            # LOCAL: behind a pooler the session goes to other clients next.
            db.execute("SET LOCAL statement_timeout = 2000")
            _check_migrations(db, where)
    except psycopg.errors.QueryCanceled as error:
        log.warning("postgres_not_ready", extra={"error": str(error)})
    except psycopg.OperationalError as error:
        _explain(error, where)


def _explain(error: psycopg.OperationalError, where: str) -> None:
    """Raises: ConfigError. StoreUnavailable. Returns where Postgres is not ready yet."""
    # One line: libpq adds hints below it.
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
    """Raises: ConfigError: the tables are older than this code. Newer ones are those of a release under way."""
    head = max(file.name[:4] for file in (PROJECT_ROOT / "migrations" / "versions").glob("[0-9]*.py"))
    try:
        row = db.execute("SELECT max(version_num) FROM alembic_version").fetchone()
    except psycopg.errors.UndefinedTable:
        row = None
    except psycopg.errors.InsufficientPrivilege:
        return  # Only the release's own user may read it.
    if row is None or row[0] is None:
        message = f"Postgres at {where} has no tables of Headrace: {_MIGRATE}."
    elif row[0] < head:
        message = f"Postgres at {where} is at migration {row[0]} and this code needs {head}: {_MIGRATE}."
    else:
        return
    raise ConfigError(message, param="database_url")


#: Asked in this order.
CHECKS: tuple[Callable[[Settings], None], ...] = (check_redis, check_postgres)


def check(settings: Settings, *, goes_on: bool = False, uses_postgres: bool = True) -> None:
    """End the process with status 1 and a sentence where a server does not let it in.

    Args:
        goes_on: do not end it for a server that is away, which may come back.
        uses_postgres: False for beat and Flower, which need Redis alone.
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
    """Have each program of this app, worker, beat and Flower, check before it begins."""

    def begin(**_: Any) -> None:
        check(settings, goes_on=goes_on, uses_postgres=uses_postgres)

    # Sent by all three before they do anything, and by nothing that only sends messages.
    import_modules.connect(begin, sender=celery, weak=False)
