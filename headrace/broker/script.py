"""Calls of a Lua script without redis-py's retries and counts, which cost as much as the call.

A call that fails for want of a connection, or of the script, goes redis-py's way.
"""

from collections.abc import Sequence
from typing import Any

from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError


class Script:
    """One script. Safe for many threads."""

    def __init__(self, redis: Redis, text: str) -> None:
        """Send nothing yet."""
        self._pool, self._registered = redis.connection_pool, redis.register_script(text)

    def __call__(self, keys: Sequence[str], arguments: Sequence[str | int | float]) -> Any:
        """The script's reply. Raises: RedisError."""
        connection: Any = self._pool.get_connection()
        try:
            command = connection.pack_command("EVALSHA", self._registered.sha, len(keys), *keys, *arguments)
            connection.send_packed_command(command)
            return connection.read_response()
        except (RedisConnectionError, NoScriptError):
            # The connection was closed while idle, or Redis is another one, or empty: redis-py mends either.
            pass
        finally:
            self._pool.release(connection)
        return self._registered(keys, arguments)
