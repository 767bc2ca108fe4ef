"""What is left of an app's request rate. `lua/reserve.lua` uses it up."""

from importlib.resources import files
from uuid import UUID

from redis import Redis, RedisError

from headrace.domain.queues import KEY_PREFIX
from headrace.errors import BrokerUnavailable


class AppRates:
    """Reads apps' request rates. Safe for many threads."""

    def __init__(self, redis: Redis) -> None:
        lua = files("headrace.broker") / "lua"
        self._look = redis.register_script("".join((lua / f"{name}.lua").read_text() for name in ("books", "look")))

    def free_in_ms(self, app_id: UUID, requests_per_minute: int) -> int:
        """Milliseconds until the app may make one more request; 0 if it may now. Raises: BrokerUnavailable."""
        try:
            return int(self._look([KEY_PREFIX], [app_id.hex, requests_per_minute]))
        except RedisError as error:
            raise BrokerUnavailable(f"Redis does not answer: {error}") from error
