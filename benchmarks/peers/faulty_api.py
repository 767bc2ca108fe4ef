"""A stand-in for a paid API that misbehaves on order: the first word of a prompt says how, at the prompt's first call.

It keeps its own count of calls and of the tokens that it made, by prompt. Nothing in it knows Headrace.
"""

import asyncio
import json
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from headrace.stack.ports import LOOPBACK
from peers.paid_api import MODEL, PRICE

#: Of every answer, and of one that breaks off before its end.
TOKENS, TOKENS_BEFORE_A_FAULT = 24, 8
PROMPT_TOKENS = 20
_HEAD = "HTTP/1.1 {status} -\r\nContent-Type: {kind}\r\nConnection: close\r\n{more}\r\n"


@dataclass(slots=True)
class Bill:
    """What one prompt has come to: calls, and what was made for them, answered or not."""

    calls: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0

    @property
    def usd(self) -> Decimal:
        """What the provider charges for it."""
        prompt, output = PRICE
        return (self.prompt_tokens * prompt + self.output_tokens * output) / 1_000_000


@dataclass(slots=True)
class _Call:
    bill: Bill
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def head(self, status: int, kind: str, more: Mapping[str, str] | None = None) -> None:
        lines = "".join(f"{name}: {value}\r\n" for name, value in (more or {}).items())
        self.writer.write(_HEAD.format(status=status, kind=kind, more=lines).encode())
        await self.writer.drain()

    async def error(self, status: int, code: str, more: Mapping[str, str] | None = None) -> None:
        await self.head(status, "application/json", more)
        self.writer.write(json.dumps({"error": {"message": "no", "type": code, "code": code, "param": None}}).encode())

    async def begin(self, tokens: int) -> None:
        """The head of a stream and this number of its tokens, which are paid for."""
        self.bill.prompt_tokens += PROMPT_TOKENS
        await self.head(200, "text/event-stream")
        for number in range(tokens):
            self.bill.output_tokens += 1
            self.event([{"index": 0, "delta": {"content": f"w{number} "}, "finish_reason": None}])
        await self.writer.drain()

    def event(self, choices: list[dict[str, Any]], usage: dict[str, int] | None = None) -> None:
        chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": MODEL, "choices": choices}
        self.writer.write(f"data: {json.dumps({**chunk, 'usage': usage})}\n\n".encode())

    def finish(self, *, with_usage: bool = True) -> None:
        self.event([{"index": 0, "delta": {}, "finish_reason": "stop"}])
        counts = {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": TOKENS, "total_tokens": PROMPT_TOKENS + TOKENS}
        if with_usage:
            self.event([], counts)
        self.writer.write(b"data: [DONE]\n\n")

    def reset(self) -> None:
        """Close with RST: what was sent and not read is lost."""
        plug: socket.socket = self.writer.get_extra_info("socket")
        plug.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


async def _hang(call: _Call) -> None:
    # Until the caller hangs up.
    await call.reader.read()


async def _reset(call: _Call) -> None:
    call.reset()


async def _reset_in_the_answer(call: _Call) -> None:
    await call.begin(TOKENS_BEFORE_A_FAULT)
    call.reset()


async def _truncated(call: _Call) -> None:
    await call.begin(TOKENS_BEFORE_A_FAULT)


async def _malformed_chunk(call: _Call) -> None:
    await call.begin(TOKENS_BEFORE_A_FAULT)
    call.writer.write(b'data: {"choices": [{"delta"\n\n')


async def _wrong_json(call: _Call) -> None:
    call.bill.prompt_tokens += PROMPT_TOKENS
    await call.head(200, "text/event-stream")
    call.writer.write(b'data: {"hello": "world"}\n\ndata: [DONE]\n\n')


async def _no_usage(call: _Call) -> None:
    await call.begin(TOKENS)
    call.finish(with_usage=False)


def _status(status: int, code: str, **more: str) -> Callable[[_Call], Coroutine[Any, Any, None]]:
    async def answer(call: _Call) -> None:
        await call.error(status, code, {name.replace("_", "-"): value for name, value in more.items()})

    return answer


FAULTS: Mapping[str, Callable[[_Call], Coroutine[Any, Any, None]]] = {
    "429": _status(429, "rate_limit_exceeded"),
    "429_retry_after": _status(429, "rate_limit_exceeded", Retry_After="2"),
    "500": _status(500, "server_error"),
    "503": _status(503, "server_is_overloaded"),
    "hang": _hang,
    "reset": _reset,
    "reset_in_answer": _reset_in_the_answer,
    "truncated": _truncated,
    "malformed_chunk": _malformed_chunk,
    "wrong_json": _wrong_json,
    "no_usage": _no_usage,
    "400": _status(400, "invalid_prompt"),
}
#: These lock the whole account out, so that they are not one prompt's.
LOCKS = {"insufficient_quota": (429, "insufficient_quota"), "invalid_key": (401, "invalid_api_key")}


@dataclass(slots=True)
class FaultyApi:
    """The provider.

    Attributes:
        lock: of `LOCKS`, what every call meets; None for none.
        bills: by the prompt's first word.
        locked_calls: calls that met a lock.
    """

    url: str = ""
    lock: str | None = None
    locked_calls: int = 0
    bills: dict[str, Bill] = field(default_factory=dict)
    _seen: Counter[str] = field(default_factory=Counter)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request, and close."""
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = int(head.partition("content-length:")[2].split("\r\n")[0])
            body = json.loads(await reader.readexactly(length))
            await self._answer(body["messages"][-1]["content"], reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # The caller has hung up.
        finally:
            writer.close()

    async def _answer(self, prompt: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        fault = prompt.split()[0]
        bill = self.bills.setdefault(fault, Bill())
        bill.calls += 1
        call = _Call(bill, reader, writer)
        if self.lock is not None:
            self.locked_calls += 1
            await call.error(*LOCKS[self.lock])
            return
        self._seen[prompt] += 1
        if fault in FAULTS and self._seen[prompt] == 1:
            await FAULTS[fault](call)
            return
        await call.begin(TOKENS)
        call.finish()
        await writer.drain()


@contextmanager
def faulty_api() -> Iterator[FaultyApi]:
    """The provider, in a thread of this process."""
    api, started = FaultyApi(), Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]]()

    async def run() -> None:
        stopping = asyncio.Event()
        async with await asyncio.start_server(api.serve, LOOPBACK, 0, backlog=256) as server:
            api.url = f"http://{LOOPBACK}:{server.sockets[0].getsockname()[1]}"
            started.set_result((asyncio.get_running_loop(), stopping))
            await stopping.wait()

    thread = threading.Thread(target=asyncio.run, args=(run(),), daemon=True)
    thread.start()
    loop, stopping = started.result()
    try:
        yield api
    finally:
        loop.call_soon_threadsafe(stopping.set)
        thread.join()
