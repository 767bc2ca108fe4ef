"""How the neighbour sends: its orders, a request and its answer, and connections that stay open."""

import http.client
import json
import socket
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

TIMEOUT_S = 75.0


@dataclass(frozen=True, slots=True)
class Orders:
    """Whom to attack.

    Attributes:
        login_host, login_port: the server of the operators' pages.
        answer_tokens: the length of an answer that nothing cuts short.
        at_once: how many requests of a kind come at once, at the beginning.
    """

    host: str
    port: int
    login_host: str
    login_port: int
    key: str
    is_hostile: bool
    drip_url: str
    good_url: str
    answer_tokens: int
    long_chars: int
    at_once: Mapping[str, int]
    rates: Mapping[str, float]


class Sender:
    """Sends requests of one app."""

    def __init__(self, orders: Orders) -> None:
        """Send nothing yet."""
        self._orders = orders

    def kinds(self) -> dict[str, Callable[[], int]]:
        """The attacks, by name. Each sends one request and returns the answer's status."""
        raise NotImplementedError

    def _post(self, path: str, body: bytes) -> int:
        return self._send("POST", path, body, self._orders.key)

    def _send(self, method: str, path: str, body: bytes, key: str, *, is_login: bool = False, cookie: str = "") -> int:
        kind = "x-www-form-urlencoded" if is_login else "json"
        headers = {"Content-Type": f"application/{kind}"} | ({"Cookie": cookie} if cookie else {})
        return self._ask(method, path, body, key, headers, is_login=is_login)[0]

    def _ask(
        self, method: str, path: str, body: bytes, key: str, headers: Mapping[str, str], *, is_login: bool = False
    ) -> tuple[int, bytes]:
        """The answer's status and body; -1 without an answer."""
        orders = self._orders
        host, port = (orders.login_host, orders.login_port) if is_login else (orders.host, orders.port)
        connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
        shown = {"Authorization": f"Bearer {key}"} if key else {}
        try:
            # It may be refused before all of it was sent.
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.request(method, path, body or None, {**headers, **shown})
            with connection.getresponse() as answer:
                return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            return -1, b""
        finally:
            connection.close()


class Held:
    """Connections that stay open. Safe for many threads."""

    def __init__(self, count: int, *, until_closed: bool = False) -> None:
        """Open none yet.

        Args: until_closed: at `count` connections, wait until the server has closed one; else the oldest is closed.
        """
        self._count, self._until_closed = count, until_closed
        self._open: deque[socket.socket] = deque()

    def open(self, host: str, port: int, head: bytes, receive_bytes: int | None = None) -> None:
        """Open one more, and send a request's beginning. Args: receive_bytes: the kernel's room for its answer."""
        if len(self._open) >= self._count:
            oldest = self._open.popleft()
            if self._until_closed and _is_open(oldest):
                self._open.append(oldest)
                return
            oldest.close()
        connection = socket.socket()
        if receive_bytes is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        connection.settimeout(TIMEOUT_S)
        with suppress(OSError):
            connection.connect((host, port))
            connection.sendall(head)
        self._open.append(connection)

    def trickle(self, size: int) -> None:
        """Read a few bytes of each."""
        for connection in list(self._open):
            with suppress(OSError):
                connection.recv(size, socket.MSG_DONTWAIT)


def _is_open(connection: socket.socket) -> bool:
    """Returns True until the server has closed it or answered."""
    try:
        return bool(connection.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK))
    except BlockingIOError:
        return True
    except OSError:
        return False


def job(prompt: str, max_tokens: int, **more: Any) -> bytes:
    """The body of a job."""
    return json.dumps({"prompt": prompt, "max_tokens": max_tokens, "lane": "normal", **more}).encode()


def chat(max_tokens: int, tier: str) -> bytes:
    """The body of a chat completion."""
    body = {"messages": [{"role": "user", "content": "Hi"}], "max_completion_tokens": max_tokens, "service_tier": tier}
    return json.dumps(body).encode()
