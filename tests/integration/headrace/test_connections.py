"""Connections to servers that do not answer."""

import socket
import time

import pytest
from redis.exceptions import TimeoutError as RedisTimeout

from headrace import connections
from headrace.config import Settings


def test_redis_that_hangs_costs_a_caller_one_time_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = connections.redis(Settings.load(redis_url=f"redis://127.0.0.1:{server.getsockname()[1]}/0"))
        began = time.monotonic()

        with pytest.raises(RedisTimeout):
            client.ping()

        assert time.monotonic() - began < 1.5 * connections.REDIS_TIMEOUT_S
        client.close()
