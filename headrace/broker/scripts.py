"""How this package calls Redis: its Lua scripts, and one error for a Redis that does not answer."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files

from redis import Redis, RedisError
from redis.commands.core import Script

from headrace.errors import BrokerUnavailable


def script(redis: Redis, *names: str) -> Script:
    """The script of these files in `lua/`, one after the other."""
    folder = files("headrace.broker") / "lua"
    return redis.register_script("".join((folder / f"{name}.lua").read_text() for name in names))


@contextmanager
def answered() -> Iterator[None]:
    """Raise BrokerUnavailable if Redis does not answer inside the block."""
    try:
        yield
    except RedisError as error:
        raise BrokerUnavailable(f"Redis does not answer: {error}") from error
