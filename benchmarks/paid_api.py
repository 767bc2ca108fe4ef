"""A stand-in for a paid API, which keeps its own bill: an ASGI app that speaks chat completions.

It streams `PAID_API_TOKENS` tokens, or as many as it may, one every `PAID_API_TOKEN_MS` milliseconds, and counts a
token for every 4 bytes of the prompt. `GET /bill` says what it has counted, and `usd` what that costs at `PRICE`.
"""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

from headrace.config import PROJECT_ROOT
from headrace.stack import readiness
from headrace.stack.child import Child, Command
from headrace.stack.ports import LOOPBACK, free_port
from headrace.stack.procfile import shell

MODEL = "gpt-4o-mini"
#: USD per 1,000,000 tokens: prompt and output.
PRICE = Decimal("0.15"), Decimal("0.60")
START_TIMEOUT_S = 30.0

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

# Its whole interface: whoever starts it is its own and only caller.
TOKENS = int(os.environ.get("PAID_API_TOKENS", "64"))  # noqa: TID251
TOKEN_S = float(os.environ.get("PAID_API_TOKEN_MS", "5")) / 1000  # noqa: TID251

#: `open` and `most_open`: calls under way, now and at most since it was last asked.
bill = {"calls": 0, "prompt_tokens": 0, "output_tokens": 0, "open": 0, "most_open": 0}


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer one request."""
    if scope["type"] != "http":
        return
    if scope["path"] == "/bill":
        await _respond(send, bill)
        bill["most_open"] = bill["open"]
        return
    body = json.loads(await _body(receive))
    prompt_tokens = max(1, sum(len(message["content"].encode()) for message in body["messages"]) // 4)
    limit = body.get("max_completion_tokens") or body.get("max_tokens") or TOKENS
    bill["calls"] += 1
    bill["prompt_tokens"] += prompt_tokens
    bill["open"] += 1
    bill["most_open"] = max(bill["most_open"], bill["open"])
    try:
        await _stream(send, prompt_tokens, min(limit, TOKENS), "length" if limit < TOKENS else "stop")
    finally:
        bill["open"] -= 1


async def _stream(send: Send, prompt_tokens: int, tokens: int, finish_reason: str) -> None:
    headers = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for number in range(tokens):
        await asyncio.sleep(TOKEN_S)
        bill["output_tokens"] += 1
        await _event(send, [{"index": 0, "delta": {"content": f"w{number} "}, "finish_reason": None}])
    await _event(send, [{"index": 0, "delta": {}, "finish_reason": finish_reason}])
    total = {"prompt_tokens": prompt_tokens, "completion_tokens": tokens, "total_tokens": prompt_tokens + tokens}
    await _event(send, [], total)
    await send({"type": "http.response.body", "body": b"data: [DONE]\n\n", "more_body": False})


async def _event(send: Send, choices: list[dict[str, Any]], usage: dict[str, int] | None = None) -> None:
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": MODEL, "choices": choices}
    body = f"data: {json.dumps({**chunk, 'usage': usage})}\n\n".encode()
    await send({"type": "http.response.body", "body": body, "more_body": True})


async def _respond(send: Send, value: Mapping[str, int]) -> None:
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(value).encode(), "more_body": False})


async def _body(receive: Receive) -> bytes:
    body, is_whole = b"", False
    while not is_whole:
        message = await receive()
        body += message.get("body", b"")
        is_whole = not message.get("more_body", False)
    return body


def usd(bill: Mapping[str, int]) -> Decimal:
    """What the provider would charge."""
    prompt, output = PRICE
    return (bill["prompt_tokens"] * prompt + bill["output_tokens"] * output) / 1_000_000


@contextmanager
def paid_api(folder: Path, **settings: object) -> Iterator[str]:
    """The provider, as a process of its own; its address.

    Args:
        settings: `tokens` and `token_ms`; see above.
    """
    port = free_port()
    named = {f"PAID_API_{name.upper()}": str(value) for name, value in settings.items()}
    env = {**os.environ, **named, "PYTHONPATH": str(Path(__file__).parent)}  # noqa: TID251 - it is handed on whole.
    line = f"granian --interface asgi --http 1 --no-ws --host {LOOPBACK} --port {port} --no-access-log paid_api:app"
    child = Child(Command("paid_api", shell(line), env, PROJECT_ROOT), folder / "paid_api.log")
    try:
        child.wait_until(lambda: readiness.answers(port, "/bill"), START_TIMEOUT_S)
        yield f"http://{LOOPBACK}:{port}"
    finally:
        child.stop()
