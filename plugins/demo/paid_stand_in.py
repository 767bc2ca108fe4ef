"""A stand-in for a paid API on loopback, which keeps its own bill."""

import json
import threading
from collections.abc import Iterator
from decimal import Decimal
from http.server import BaseHTTPRequestHandler
from typing import Any

from headrace.config import Price
from headrace.stack.loopback import LocalServer

ANSWER = "A paid API would answer here; this is its stand-in on this machine, which counts what one would charge."


class PaidStandIn(LocalServer):
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
