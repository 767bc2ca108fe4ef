"""A stand-in for a paid API on loopback, for the demo: it answers each call alike, and keeps its own bill."""

import json
import threading
from collections.abc import Callable, Iterator
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from headrace.config import Price
from headrace.stack.ports import LOOPBACK

ANSWER = "A paid API would answer here; this is its stand-in on this machine, which charges like one."


class PaidStandIn:
    """Streams chat completions for the length of a `with` block. A prompt has a token for every 4 bytes."""

    def __init__(self, price: Price) -> None:
        self._price = price
        self._prompt_tokens = self._output_tokens = 0
        self._counting = threading.Lock()
        self._server = ThreadingHTTPServer((LOOPBACK, 0), _handler(self._answer))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        """The value of `OPENAI_BASE_URL`."""
        return f"http://{LOOPBACK}:{self._server.server_port}/v1"

    @property
    def bill_usd(self) -> Decimal:
        """What it has counted, at its price."""
        with self._counting:
            prompt = self._prompt_tokens * self._price.input_usd_per_mtok
            return (prompt + self._output_tokens * self._price.output_usd_per_mtok) / 1_000_000

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
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


def _handler(answer: Callable[[dict[str, Any]], Iterator[dict[str, Any]]]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))))
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.end_headers()
            for chunk in answer(body):
                whole = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": body["model"], **chunk}
                self.wfile.write(f"data: {json.dumps(whole)}\n\n".encode())
            self.wfile.write(b"data: [DONE]\n\n")

        def log_message(self, format: str, *args: object) -> None:
            """Log nothing: the demo shows its bill."""

    return Handler
