"""A stand-in for a paid API, which keeps its own bill: an ASGI app that speaks chat completions.

It streams `PAID_API_TOKENS` tokens, or as many as it may, one every `PAID_API_TOKEN_MS` milliseconds, and counts a
token for every 4 bytes of the prompt. `GET /bill` says what it has counted, and `usd` what that costs at `PRICE`.
Beyond `PAID_API_PER_MINUTE` calls, a bucket that fills as the minute passes, it answers 429. With `PAID_API_TELLS=1`
each answer says how much of the minute is left, in the headers that OpenAI has for it.

Its first token is the prompt's fingerprint, the simulator's, so that an answer can be told from another's. After
`POST /fault/KIND/CALLS` that many calls fail: `429` and `500` are answered so and cost nothing; `hang` says nothing
after half of the answer, and `truncated` ends there; both cost what was sent.
"""

import asyncio
import hashlib
import json
import os
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from headrace.config import PROJECT_ROOT
from headrace.stack import readiness
from headrace.stack.child import Child, Command
from headrace.stack.machine import shell
from headrace.stack.ports import LOOPBACK, free_port
from peers import python_path

MODEL = "gpt-4o-mini"
#: USD per 1,000,000 tokens: prompt and output.
PRICE = Decimal("0.15"), Decimal("0.60")
START_TIMEOUT_S = 30.0
#: How long a call that hangs does so: longer than anybody waits for it.
HANG_S = 60.0

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

# Its whole interface: the process that starts it is its only caller.
TOKENS = int(os.environ.get("PAID_API_TOKENS", "64"))  # noqa: TID251
TOKEN_S = float(os.environ.get("PAID_API_TOKEN_MS", "5")) / 1000  # noqa: TID251

PER_MINUTE = int(os.environ.get("PAID_API_PER_MINUTE", "0"))  # noqa: TID251
TELLS = os.environ.get("PAID_API_TELLS") == "1"  # noqa: TID251

#: The faults that the next calls meet, in this order.
faults: deque[str] = deque()
#: `open` and `most_open`: calls under way, now and at most since it was last asked. `refused` are among the calls.
bill = {"calls": 0, "prompt_tokens": 0, "output_tokens": 0, "open": 0, "most_open": 0, "refused": 0}


@dataclass(slots=True)
class Minute:
    """What is left of it, in calls."""

    left: float = float(PER_MINUTE)
    at: float = field(default_factory=time.monotonic)

    def take(self) -> bool:
        """Whether one more call may come."""
        now = time.monotonic()
        self.left = min(PER_MINUTE, self.left + (now - self.at) * PER_MINUTE / 60)
        self.at = now
        if PER_MINUTE and self.left < 1:
            return False
        self.left -= 1
        return True

    def headers(self) -> list[tuple[bytes, bytes]]:
        """What OpenAI says of it."""
        if not TELLS:
            return []
        full_in_ms = (PER_MINUTE - self.left) / PER_MINUTE * 60_000
        said = {"limit": PER_MINUTE, "remaining": int(self.left), "reset": f"{full_in_ms:.0f}ms"}
        return [(f"x-ratelimit-{name}-requests".encode(), str(value).encode()) for name, value in said.items()]


minute = Minute()


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer one request."""
    if scope["type"] != "http":
        return
    if scope["path"] == "/bill":
        await _respond(send, bill)
        bill["most_open"] = bill["open"]
        return
    if scope["path"].startswith("/fault/"):
        kind, calls = scope["path"].split("/")[2:]
        faults.extend([kind] * int(calls))
        await _respond(send, {"faults": len(faults)})
        return
    body = json.loads(await _body(receive))
    fault = faults.popleft() if faults else ""
    if fault in ("429", "500"):
        await _respond(send, {"error": {"message": "A fault, as asked.", "type": "fault", "code": fault}}, int(fault))
        return
    prompt_tokens = max(1, sum(len(message["content"].encode()) for message in body["messages"]) // 4)
    limit = body.get("max_completion_tokens") or body.get("max_tokens") or TOKENS
    bill["calls"] += 1
    if not minute.take():
        bill["refused"] += 1
        await _respond(send, {"error": {"message": "no", "code": "rate_limit_exceeded"}}, 429)
        return
    bill["prompt_tokens"] += prompt_tokens
    bill["open"] += 1
    bill["most_open"] = max(bill["most_open"], bill["open"])
    try:
        first = f"{fingerprint(body['messages'])} "
        await _stream(send, first, prompt_tokens, min(limit, TOKENS), "length" if limit < TOKENS else "stop", fault)
    finally:
        bill["open"] -= 1


def fingerprint(messages: Sequence[Mapping[str, str]]) -> str:
    """The SHA-256 that the simulator's answer to these messages carries too, in hex."""
    return hashlib.sha256("\n".join(f"{each['role']}: {each['content']}" for each in messages).encode()).hexdigest()


async def _stream(send: Send, first: str, prompt_tokens: int, tokens: int, finish_reason: str, fault: str) -> None:
    headers = [(b"content-type", b"text/event-stream"), *minute.headers()]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for number in range(tokens // 2 if fault else tokens):
        await asyncio.sleep(TOKEN_S)
        bill["output_tokens"] += 1
        text = f"w{number} " if number else first
        await _event(send, [{"index": 0, "delta": {"content": text}, "finish_reason": None}])
    if fault:
        await asyncio.sleep(HANG_S if fault == "hang" else 0)
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        return
    await _event(send, [{"index": 0, "delta": {}, "finish_reason": finish_reason}])
    total = {"prompt_tokens": prompt_tokens, "completion_tokens": tokens, "total_tokens": prompt_tokens + tokens}
    await _event(send, [], total)
    await send({"type": "http.response.body", "body": b"data: [DONE]\n\n", "more_body": False})


async def _event(send: Send, choices: list[dict[str, Any]], usage: dict[str, int] | None = None) -> None:
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": MODEL, "choices": choices}
    body = f"data: {json.dumps({**chunk, 'usage': usage})}\n\n".encode()
    await send({"type": "http.response.body", "body": body, "more_body": True})


async def _respond(send: Send, value: Mapping[str, Any], status: int = 200) -> None:
    headers = [(b"content-type", b"application/json"), *minute.headers()]
    await send({"type": "http.response.start", "status": status, "headers": headers})
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
        settings: `tokens`, `token_ms`, `per_minute` and `tells`; see above.
    """
    port = free_port()
    named = {f"PAID_API_{name.upper()}": str(value) for name, value in settings.items()}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.defpath}"
    inherited = {**os.environ}  # noqa: TID251 - it is handed on whole.
    env = {**inherited, **named, "PATH": path, "PYTHONPATH": python_path(inherited)}
    line = (
        f"granian --interface asgi --http 1 --no-ws --host {LOOPBACK} --port {port} --no-access-log peers.paid_api:app"
    )
    child = Child(Command("paid_api", shell(line), env, PROJECT_ROOT), folder / "paid_api.log")
    try:
        child.wait_until(lambda: readiness.answers(port, "/bill"), START_TIMEOUT_S)
        yield f"http://{LOOPBACK}:{port}"
    finally:
        child.stop()
