"""A receiver of webhooks on loopback, and what such a server stands on: the demo and the tests run them."""

import threading
from abc import ABC, abstractmethod
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar, Self

from standardwebhooks import Webhook, WebhookVerificationError

from headrace.stack.ports import LOOPBACK


class LocalServer(ABC):
    """Answers POST requests on loopback, in threads, for the length of a `with` block. Attributes: path: of its URL."""

    path: ClassVar[str]

    def __init__(self) -> None:
        answer = self._answer

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                answer(self, self.rfile.read(int(self.headers.get("content-length", 0))))

            def log_message(self, format: str, *args: object) -> None:
                return

        self._server = ThreadingHTTPServer((LOOPBACK, 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self._server.server_port}{self.path}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @abstractmethod
    def _answer(self, request: BaseHTTPRequestHandler, body: bytes) -> None:
        """Answer one request."""


@dataclass(frozen=True, slots=True)
class Received:
    """One webhook as it arrived, with header names in lower case."""

    headers: dict[str, str]
    body: str

    def is_signed_with(self, secret: str) -> bool:
        """True if its signature is recent and was made with this secret over this body."""
        try:
            Webhook(secret).verify(self.body, self.headers)
        except WebhookVerificationError:
            return False
        return True


class Receiver(LocalServer):
    """Receives webhooks."""

    path = "/webhook"

    def __init__(self) -> None:
        super().__init__()
        self._received: list[Received] = []
        self._changed = threading.Condition()

    def wait_for(self, number: int, timeout_s: float) -> list[Received]:
        """The webhooks received, once they are at least `number` or the time is over."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._received) >= number, timeout_s)
            return list(self._received)

    def _answer(self, request: BaseHTTPRequestHandler, body: bytes) -> None:
        headers = {name.lower(): value for name, value in request.headers.items()}
        with self._changed:
            self._received.append(Received(headers, body.decode()))
            self._changed.notify_all()
        request.send_response(204)
        request.end_headers()
