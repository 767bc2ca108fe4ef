"""An app's request rate: what is left of it, and requests that take no place. `lua/reserve.lua` counts all others."""

from importlib.resources import files
from uuid import UUID

from redis import Redis, RedisError

from headrace.domain.apps import AppLimits
from headrace.domain.limits.rates import RateLeft, RatesLeft
from headrace.domain.places import Refusal
from headrace.domain.queues import KEY_PREFIX
from headrace.errors import BrokerUnavailable


class AppRates:
    """Reads and uses apps' request rates. Safe for many threads."""

    def __init__(self, redis: Redis) -> None:
        lua = files("headrace.broker") / "lua"
        books = (lua / "books.lua").read_text()
        self._look, self._use = (
            redis.register_script(books + (lua / f"{name}.lua").read_text()) for name in ("look", "use")
        )

    def free_in_ms(self, app_id: UUID, requests_per_minute: int) -> int:
        """Milliseconds until the app may make one more request; 0 if it may now. Raises: BrokerUnavailable."""
        try:
            return int(self._look([KEY_PREFIX], [app_id.hex, requests_per_minute]))
        except RedisError as error:
            raise BrokerUnavailable(f"Redis does not answer: {error}") from error

    def use_request(self, app_id: UUID, limits: AppLimits) -> RatesLeft | Refusal:
        """Count one request of an app whose requests are limited; no tokens. Raises: BrokerUnavailable."""
        requests_cap, tokens_cap = limits.requests_per_minute or 0, limits.tokens_per_minute
        retry_in_ms, requests, tokens = self._counted(app_id, limits, 1)
        left = RatesLeft(RateLeft(requests_cap, requests), RateLeft(tokens_cap, tokens) if tokens_cap else None)
        return Refusal("requests_per_minute", 0, 0, 0, left, retry_in_ms=retry_in_ms) if retry_in_ms else left

    def return_request(self, app_id: UUID, limits: AppLimits) -> None:
        """Give back a request that was counted and came to nothing. Raises: BrokerUnavailable."""
        self._counted(app_id, limits, -1)

    def _counted(self, app_id: UUID, limits: AppLimits, number: int) -> tuple[int, int, int]:
        requests_cap, tokens_cap = limits.requests_per_minute or 0, limits.tokens_per_minute
        given: list[str | int] = [app_id.hex, requests_cap, -1 if tokens_cap is None else tokens_cap, number]
        try:
            retry_in_ms, requests, tokens = map(int, self._use([KEY_PREFIX], given))
        except RedisError as error:
            raise BrokerUnavailable(f"Redis does not answer: {error}") from error
        return retry_in_ms, requests, tokens
