"""What a process asks before it starts: whether its servers let it in. One sentence with the remedy, and no traceback.

A server that answers and is not ready yet (it loads its data, or takes no writes) passes: that ends by itself.
"""

import logging
import sys
from collections.abc import Callable
from typing import Any

from celery import Celery
from celery.signals import import_modules
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, AuthorizationError, BusyLoadingError, NoPermissionError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from headrace import connections
from headrace.config import Settings
from headrace.errors import BrokerUnavailable, ConfigError, Unavailable
from headrace.logging import configure
from headrace.outages import Outage
from headrace.redis_url import RedisUrl

logger = logging.getLogger(__name__)


def check_redis(settings: Settings) -> None:
    """Raises: ConfigError: Redis does not let us in. BrokerUnavailable: it is not there. Bound: 2 s."""
    where = RedisUrl.parse(settings.redis_url).shown
    client = connections.redis(settings, retry=Retry(NoBackoff(), 0), timeout_s=1)
    try:
        client.ping()
    except (Outage, BusyLoadingError) as error:
        logger.warning("redis_not_ready", extra={"error": str(error)})
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


#: Asked in this order.
CHECKS: tuple[Callable[[Settings], None], ...] = (check_redis,)


def check(settings: Settings, *, goes_on: bool = False) -> None:
    """End the process with status 1 and a sentence where a server does not let it in.

    Args:
        goes_on: do not end it for a server that is away, which may come back.
    """
    try:
        for each in CHECKS:
            each(settings)
    except (ConfigError, Unavailable) as error:
        configure()
        logger.critical("server_not_usable", extra={"setting": error.param, "error": str(error)})
        if isinstance(error, ConfigError) or not goes_on:
            sys.exit(1)


def check_first(celery: Celery, settings: Settings, *, goes_on: bool = False) -> None:
    """Have each program of this app, worker, beat and Flower, check before it begins."""

    def begin(**_: Any) -> None:
        check(settings, goes_on=goes_on)

    # Sent by all three before they do anything, and by nothing that only sends messages.
    import_modules.connect(begin, sender=celery, weak=False)
