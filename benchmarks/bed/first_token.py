"""Asks for a chat completion as a stream, and says when its first token was there: one client for every server.

It knows OpenAI's chunks and HTTP/1.1, and not who answers. A connection stays open from one request to the next.
"""

import json
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from bed.load import LoadError, request

#: Seconds for which a server may be silent.
SILENCE_LIMIT_S = 120.0
PATH = "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class Heard:
    """One answer, as its reader had it.

    Attributes:
        first_s: from before the request was sent until the first text that is not empty had been read.
        total_s: the same until the end of the stream.
        pieces: deltas with text.
        began_s: when the request was sent, in monotonic seconds.
        job_id: as the answer's head has it; empty where a server has no jobs.
    """

    first_s: float
    total_s: float
    pieces: int
    text: str
    began_s: float = 0.0
    job_id: str = ""


class Listener:
    """One connection to a server of chat completions."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        address = urlsplit(url)
        assert address.hostname is not None
        self._headers = headers
        self._socket = socket.create_connection((address.hostname, address.port or 80), timeout=SILENCE_LIMIT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._socket.close()

    def ask(self, body: Mapping[str, Any]) -> Heard:
        """Ask, and listen to the end. Raises: LoadError: refused, or not answered whole."""
        data = request("POST", PATH, self._headers, json.dumps({**body, "stream": True}).encode())
        began = time.monotonic()
        self._socket.sendall(data)
        with HTTPResponse(self._socket, method="POST") as response:
            try:
                return self._listen(response, began)
            except (OSError, HTTPException) as error:
                raise LoadError(f"The stream broke: {error!r}") from error

    def _listen(self, response: HTTPResponse, began: float) -> Heard:
        response.begin()
        if response.status != 200:
            raise LoadError(f"{response.status}: {response.read()!r}")
        first_s, pieces = 0.0, []
        for line in response:
            if not line.startswith(b"data: ") or line.startswith(b"data: [DONE]"):
                continue
            if piece := _text_of(json.loads(line[6:])):
                first_s = first_s or time.monotonic() - began
                pieces.append(piece)
        if not pieces:
            raise LoadError("The stream had no text.")
        job_id = response.headers.get("x-job-id", "")
        return Heard(first_s, time.monotonic() - began, len(pieces), "".join(pieces), began, job_id)


def _text_of(chunk: Mapping[str, Any]) -> str:
    """The text that a chunk adds. Raises: LoadError: the chunk is an error."""
    if "error" in chunk:
        raise LoadError(f"The stream ended with an error: {chunk['error']}")
    return "".join(choice["delta"].get("content") or "" for choice in chunk["choices"])
