"""A webhook receiver on loopback for the demo: keeps every webhook, and verifies signatures."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

from standardwebhooks import Webhook, WebhookVerificationError

from headrace.stack.ports import LOOPBACK


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


class Receiver:
    """Receives webhooks for the length of a `with` block."""

    def __init__(self) -> None:
        self._received: list[Received] = []
        self._changed = threading.Condition()
        self._server = ThreadingHTTPServer((LOOPBACK, 0), _handler(self._keep))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        """The URL that it listens on."""
        return f"http://{LOOPBACK}:{self._server.server_port}/webhook"

    def wait_for(self, number: int, timeout_s: float) -> list[Received]:
        """The webhooks received, once they are at least `number` or the time is over."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._received) >= number, timeout_s)
            return list(self._received)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _keep(self, received: Received) -> None:
        with self._changed:
            self._received.append(received)
            self._changed.notify_all()


def _handler(keep: Callable[[Received], None]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0))).decode()
            keep(Received({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Log nothing: the demo shows the webhooks."""

    return Handler
