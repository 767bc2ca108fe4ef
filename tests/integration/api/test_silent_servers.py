"""A server that is silent holds the calls that need it, and no others, on the server that production runs."""

import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import httpx2
import pytest
from redis import Redis

from api.mounts.mount import THREADS
from headrace.connections.redis import REDIS_TIMEOUT_S
from tests.waiting import until
from tests.web import Web

#: More than there are threads.
STREAMS = THREADS + 88
#: Far less than a time-out of Redis.
AT_ONCE_S = 1.0


@contextmanager
def stopped(redis: Redis) -> Iterator[None]:
    """Valkey, stopped: its connections stay open, and it says nothing."""
    number = redis.info("server")["process_id"]
    os.kill(number, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(number, signal.SIGCONT)


@pytest.fixture
def web(build_web: Callable[..., Web]) -> Web:
    """An API whose streams ask Redis twice in a time-out of it."""
    return build_web(keep_alive_s=REDIS_TIMEOUT_S / 2)


def test_open_streams_keep_no_call_from_its_answer_while_redis_is_silent(
    web: Web, base_url: str, redis: Redis, key: str, make_key: Callable[[str], str]
) -> None:
    held, port = web.deps.waits.slots()["stream"], int(base_url.rpartition(":")[2])
    headers, other = {"Authorization": f"Bearer {key}"}, {"Authorization": f"Bearer {make_key('other')}"}
    with httpx2.Client(base_url=base_url, timeout=30) as client, ExitStack() as streams:
        job = {"input": "Why?", "stream": True, "background": True}
        with client.stream("POST", "/v1/responses", json=job, headers=headers) as first:
            found = re.search(r'"id":"(resp_\w+)"', next(first.iter_text()))
            assert found is not None
        request = f"GET /v1/responses/{found[1]}?stream=true HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n\r\n"
        for _ in range(STREAMS):
            streams.enter_context(socket.create_connection(("127.0.0.1", port))).sendall(request.encode())
        until(lambda: held.held == STREAMS)
        took_s = list[float]()
        with stopped(redis):
            until_s = time.monotonic() + 3 * REDIS_TIMEOUT_S
            while time.monotonic() < until_s:
                for path, status in (("/healthz", 200), ("/v1/models", 200), (f"/v1/jobs/{found[1]}", 404)):
                    began = time.monotonic()
                    assert client.get(path, headers=other).status_code == status
                    took_s.append(time.monotonic() - began)
        assert max(took_s) < AT_ONCE_S
    until(lambda: held.held == 0)
