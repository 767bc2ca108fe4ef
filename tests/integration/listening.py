"""What a test hears on Redis's channels."""

import time
from typing import Any

from redis.client import PubSub

HEAR_WITHIN_S = 20.0


def next_message(listener: PubSub) -> dict[str, Any]:
    """The next message; fails where none comes in `HEAR_WITHIN_S`.

    `get_message` alone answers None also where it has read no more than the reply to redis-py's own health check.
    """
    deadline = time.monotonic() + HEAR_WITHIN_S
    while (message := listener.get_message(timeout=1)) is None:
        assert time.monotonic() < deadline, "nothing is heard"
    return message
