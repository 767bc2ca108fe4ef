"""Bodies that come a byte at a time, on the server line that production runs."""

import json
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from http.client import HTTPResponse
from typing import Any

import httpx2
import pytest

from api.bodies.in_flight import SMALL_BYTES, SMALL_LIMIT
from headrace.stack.processes.child import Child
from tests.integration.api.bodies.limits import DEADLINE_S, GRACE_S, LIMIT


class Trickle:
    """A client that declares the largest body and sends it a byte at a time."""

    def __init__(self, url: str, key: str, length: str = f"Content-Length: {LIMIT}") -> None:
        host, port = url.removeprefix("http://").split(":")
        self._connection = socket.create_connection((host, int(port)), DEADLINE_S)
        lines = ["POST /v1/jobs HTTP/1.1", f"Host: {host}", f"Authorization: Bearer {key}", length, "", ""]
        self._is_chunked = "chunked" in length
        self._connection.sendall("\r\n".join(lines).encode())

    def drip(self) -> None:
        self._connection.sendall(b"1\r\n \r\n" if self._is_chunked else b" ")

    def answer(self) -> tuple[int, str | None, dict[str, Any]]:
        """Status, whether the connection closes, and error."""
        response = HTTPResponse(self._connection)
        response.begin()
        return response.status, response.headers["Connection"], json.loads(response.read())["error"]

    def is_closed(self) -> bool:
        """Whether the server closes the connection. Waits for that."""
        with suppress(ConnectionResetError):
            return self._connection.recv(1) == b""
        return True

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def trickle(web_server: tuple[Child, str]) -> Iterator[Callable[..., Trickle]]:
    """Makes clients of the web process."""
    with ExitStack() as exits:
        yield lambda *arguments: exits.enter_context(closing(Trickle(web_server[1], *arguments)))


@pytest.mark.parametrize("length", [f"Content-Length: {LIMIT}", "Transfer-Encoding: chunked"])
def test_two_apps_that_trickle_bodies_keep_a_third_out_no_longer_than_the_grace(
    web_server: tuple[Child, str], trickle: Callable[..., Trickle], make_key: Callable[[str], str], length: str
) -> None:
    child, url = web_server
    tricklers = [trickle(make_key(name), length) for name in ("first", "second")]
    third = {"Authorization": f"Bearer {make_key('third')}"}
    large = json.dumps({"prompt": "Hi"}).encode().ljust(2 * SMALL_BYTES)

    def submit() -> int:
        for trickler in tricklers:
            with suppress(OSError):  # It may have been given up.
                trickler.drip()
        return httpx2.post(f"{url}/v1/jobs", content=large, headers=third).status_code

    child.wait_until(lambda: submit() == 429, DEADLINE_S)
    child.wait_until(lambda: submit() == 202, 2 * GRACE_S)

    for trickler in tricklers:
        status, connection, error = trickler.answer()
        assert (status, error["code"], connection) == (408, "body_timeout", "close")
        assert "Send at least 64 KiB/s" in error["message"]
    assert submit() == 202, "connections that stay open hold up nothing else"


@pytest.mark.parametrize("length", [f"Content-Length: {LIMIT}", "Content-Length: 300", "Transfer-Encoding: chunked"])
def test_a_connection_whose_body_timed_out_is_closed_and_holds_nothing(
    web_server: tuple[Child, str], trickle: Callable[..., Trickle], make_key: Callable[[str], str], length: str
) -> None:
    _, url = web_server
    key = make_key("late")
    trickler = trickle(key, length)
    assert trickler.answer()[0] == 408
    assert trickler.is_closed()
    body = json.dumps({"prompt": "Hi"}).ljust(2 * SMALL_BYTES)
    assert httpx2.post(f"{url}/v1/jobs", content=body, headers={"Authorization": f"Bearer {key}"}).status_code == 202


SMALL = "Content-Length: 300"


@pytest.mark.parametrize("length", [SMALL, f"Content-Length: {SMALL_BYTES}"])
def test_a_small_body_that_comes_a_byte_at_a_time_is_given_up_after_the_grace(
    web_server: tuple[Child, str], trickle: Callable[..., Trickle], make_key: Callable[[str], str], length: str
) -> None:
    child, url = web_server
    silent, dripping = (trickle(make_key(name), length) for name in ("silent", "dripping"))
    other = {"Authorization": f"Bearer {make_key('other')}"}
    answers = []

    def both_answered() -> bool:
        with suppress(OSError):
            dripping.drip()
        assert httpx2.post(f"{url}/v1/jobs", json={"prompt": "Hi"}, headers=other).status_code == 202
        return len(answers) == 2

    with ThreadPoolExecutor(2) as threads:
        for trickler in (silent, dripping):
            threads.submit(trickler.answer).add_done_callback(lambda done: answers.append(done.result()))
        child.wait_until(both_answered, 3 * GRACE_S)

    for status, connection, error in answers:
        assert (status, error["code"], connection) == (408, "body_timeout", "close")


def test_small_bodies_that_do_not_come_are_refused_above_a_number_for_each_app(
    web_server: tuple[Child, str], trickle: Callable[..., Trickle], make_key: Callable[[str], str]
) -> None:
    child, url = web_server
    key = make_key("many")

    def submit(key: str) -> httpx2.Response:
        return httpx2.post(f"{url}/v1/jobs", json={"prompt": "Hi"}, headers={"Authorization": f"Bearer {key}"})

    def is_full() -> bool:
        # Anew each time: none waits longer than the grace.
        for _ in range(SMALL_LIMIT):
            trickle(key, SMALL)
        return submit(key).json().get("error", {}).get("reason") == "app_bodies"

    child.wait_until(is_full, DEADLINE_S)
    assert submit(make_key("other")).status_code == 202, "another app has its own number"
