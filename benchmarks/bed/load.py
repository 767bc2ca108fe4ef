"""A load client that costs little: what it takes of the processor, the servers under test lack.

One thread, one epoll, connections that stay open, requests made beforehand. It reads HTTP/1.1 as far as an answer with
a Content-Length goes; what is asked, and what the answers mean, it does not know.
"""

import math
import select
import socket
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import urlsplit

#: Nothing under test may keep a caller waiting for longer.
SILENCE_LIMIT_S = 60.0
#: The status of a call whose connection broke.
BROKEN = 0
_RECEIVE_BYTES = 65_536


class LoadError(Exception):
    """A server does not speak as it must, or not at all."""


class Answer(NamedTuple):
    """One call's outcome; the latency is from the last byte sent to the last byte received."""

    status: int
    latency_s: float
    body: bytes


@dataclass(frozen=True, slots=True)
class Outcome:
    """Every answer of one run, in the order they came, and how long the whole took."""

    answers: Sequence[Answer]
    seconds: float

    @property
    def statuses(self) -> Counter[int]:
        """How many answers had which status."""
        return Counter(answer.status for answer in self.answers)

    def count(self, status: int) -> int:
        """Answers with this status."""
        return self.statuses[status]

    def per_s(self, status: int) -> float:
        """Answers with this status per second of the run."""
        return self.count(status) / self.seconds

    def latency_ms(self, status: int, percent: float) -> float:
        """The latency that this percentage of the answers with this status stays within; NaN without any."""
        return 1000 * percentile([answer.latency_s for answer in self.answers if answer.status == status], percent)


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest of the values that this percentage of them does not exceed; NaN for none."""
    if not values:
        return math.nan
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def request(method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes = b"") -> bytes:
    """The bytes of one request."""
    lines = [
        f"{method} {path} HTTP/1.1",
        "Host: benchmark",
        *(f"{name}: {text}" for name, text in (headers or {}).items()),
    ]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


def drive(urls: Sequence[str], requests: Iterator[bytes], connections: int, seconds: float = math.inf) -> Outcome:
    """Send requests, one at a time on each connection, until they or the seconds have run out; wait for every answer.

    With as many connections as requests, all are sent before the first answer is read.

    Args:
        urls: the servers; connections are dealt out to them in turn.
    Raises: LoadError.
    """
    sockets = [_connect(url) for url, _ in zip(_in_turn(urls), range(connections), strict=False)]
    drivers = _Drive(sockets, requests)
    try:
        return drivers.run(seconds)
    finally:
        drivers.close()


def _in_turn(urls: Sequence[str]) -> Iterator[str]:
    while True:
        yield from urls


def _connect(url: str) -> socket.socket:
    address = urlsplit(url)
    assert address.hostname is not None
    connection = socket.create_connection((address.hostname, address.port or 80), timeout=SILENCE_LIMIT_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # From here on it blocks: it is read only once epoll has seen something, and what is sent fits its buffer.
    connection.settimeout(None)
    return connection


class _Call:
    """What one connection is at: a request that was sent, and as much of its answer as has come."""

    __slots__ = ("connection", "received", "sent_at")

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.received = b""
        self.sent_at = 0.0


class _Drive:
    """One run over open connections."""

    def __init__(self, connections: Sequence[socket.socket], requests: Iterator[bytes]) -> None:
        self._calls = {connection.fileno(): _Call(connection) for connection in connections}
        self._requests = requests
        self._answers: list[Answer] = []
        self._pending = 0
        self._poll = select.epoll()
        for number in self._calls:
            self._poll.register(number, select.EPOLLIN)

    def run(self, seconds: float) -> Outcome:
        """Send and receive until all is answered. Raises: LoadError."""
        began = time.perf_counter()
        until = began + seconds
        for call in list(self._calls.values()):
            self._send(call)
        while self._pending:
            events = self._poll.poll(SILENCE_LIMIT_S)
            if not events:
                raise LoadError(f"{self._pending} calls have had no answer for {SILENCE_LIMIT_S:.0f} s.")
            for number, _ in events:
                call = self._calls[number]
                if self._receive(call):
                    self._pending -= 1
                    if time.perf_counter() < until:
                        self._send(call)
        return Outcome(self._answers, time.perf_counter() - began)

    def close(self) -> None:
        """Close every connection."""
        self._poll.close()
        for call in self._calls.values():
            call.connection.close()

    def _send(self, call: _Call) -> None:
        data = next(self._requests, None)
        if data is not None:
            call.connection.sendall(data)
            call.sent_at = time.perf_counter()
            self._pending += 1

    def _receive(self, call: _Call) -> bool:
        """Read what is there; True when that ends the call."""
        try:
            data = call.connection.recv(_RECEIVE_BYTES)
        except ConnectionError:
            data = b""
        if not data:
            self._replace(call)
            return True
        received = call.received + data if call.received else data
        parsed = _parse(received)
        if parsed is None:
            call.received = received
            return False
        status, body = parsed
        self._answers.append(Answer(status, time.perf_counter() - call.sent_at, body))
        call.received = b""
        return True

    def _replace(self, call: _Call) -> None:
        """The server has closed the connection: count the call as broken, and go on over a new one."""
        self._answers.append(Answer(BROKEN, time.perf_counter() - call.sent_at, b""))
        address = call.connection.getpeername()
        self._poll.unregister(call.connection.fileno())
        del self._calls[call.connection.fileno()]
        call.connection.close()
        call.connection = _connect(f"http://{address[0]}:{address[1]}")
        call.received = b""
        self._calls[call.connection.fileno()] = call
        self._poll.register(call.connection.fileno(), select.EPOLLIN)


def _parse(received: bytes) -> tuple[int, bytes] | None:
    """Status and body of an answer; None while it is not whole. Raises: LoadError."""
    head_end = received.find(b"\r\n\r\n")
    if head_end < 0:
        return None
    head = received[:head_end].lower()
    at = head.find(b"\r\ncontent-length:")
    if at < 0 or not head.startswith(b"http/1.1 "):
        raise LoadError(f"Not an answer with a Content-Length: {received[:200]!r}")
    length_end = head.find(b"\r\n", at + 2)
    length = int(head[at + 17 : length_end if length_end > 0 else None])
    body = received[head_end + 4 :]
    return (int(head[9:12]), body) if len(body) >= length else None
