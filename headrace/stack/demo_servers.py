"""What the demo has on loopback: a receiver of webhooks, and a stand-in for a paid API."""

import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar, Self

from standardwebhooks import Webhook, WebhookVerificationError

from headrace.config import Price
from headrace.stack.ports import LOOPBACK


class _LocalServer(ABC):
    """Answers POST requests on loopback, in threads, for the length of a `with` block. Attributes: path: of its URL."""

    path: ClassVar[str]

    def __init__(self) -> None:
        answer = self._answer

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                answer(self, self.rfile.read(int(self.headers.get("content-length", 0))))

            def log_message(self, format: str, *args: object) -> None:
                """Log nothing: the demo shows what came."""

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


class Receiver(_LocalServer):
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


ANSWER = "A paid API would answer here; this is its stand-in on this machine, which counts what one would charge."


class PaidStandIn(_LocalServer):
    """Streams chat completions, each with the same text, and keeps its own bill. 4 bytes of a prompt are a token.

    Its `url` is the value of `OPENAI_BASE_URL`.
    """

    path = "/v1"

    def __init__(self, price: Price) -> None:
        super().__init__()
        self._price = price
        self._prompt_tokens = self._output_tokens = 0
        self._counting = threading.Lock()

    @property
    def bill_usd(self) -> Decimal:
        """What it has counted, at its price."""
        with self._counting:
            prompt = self._prompt_tokens * self._price.input_usd_per_mtok
            return (prompt + self._output_tokens * self._price.output_usd_per_mtok) / 1_000_000

    def _answer(self, request: BaseHTTPRequestHandler, body: bytes) -> None:
        asked = json.loads(body)
        request.send_response(200)
        request.send_header("content-type", "text/event-stream")
        request.end_headers()
        for chunk in self._chunks(asked):
            whole = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": asked["model"], **chunk}
            request.wfile.write(f"data: {json.dumps(whole)}\n\n".encode())
        request.wfile.write(b"data: [DONE]\n\n")

    def _chunks(self, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The chunks of all answers (`n`), one after the other: a word is a token."""
        prompt_tokens = max(1, sum(len(str(message["content"]).encode()) for message in body["messages"]) // 4)
        limit = body.get("max_completion_tokens") or body.get("max_tokens") or len(ANSWER)
        words, n = ANSWER.split(), body.get("n") or 1
        with self._counting:
            self._prompt_tokens += prompt_tokens
        for index in range(n):
            for number, word in enumerate(words[:limit]):
                with self._counting:
                    self._output_tokens += 1
                yield {"choices": [_choice(index, {"content": word if number == 0 else f" {word}"})]}
            yield {"choices": [_choice(index, {}, "length" if limit < len(words) else "stop")]}
        output_tokens = n * min(limit, len(words))
        total = {"prompt_tokens": prompt_tokens, "completion_tokens": output_tokens}
        yield {"choices": [], "usage": {**total, "total_tokens": prompt_tokens + output_tokens}}


def _choice(index: int, delta: dict[str, str], finish_reason: str | None = None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "finish_reason": finish_reason}
