"""One HTTP exchange as a server's native interface has it."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any, Protocol

from api.call import Headers


class Exchange(Protocol):
    """One request, and the way to answer it. `respond` and `begin` may be called from any thread."""

    method: str
    #: As WSGI has it: the decoded bytes as latin-1.
    path: str
    query: str
    headers: Headers

    def first_piece(self) -> "asyncio.Future[Any]":
        """Read the first piece of a small body: `piece_of` takes the outcome. To cancel it ends the read."""

    def piece_of(self, outcome: Any) -> bytes:
        """The piece. Raises: ConnectionError: the body broke."""

    def body(self, size: int | None) -> AsyncIterator[bytes]:
        """The further pieces as they come. Args: size: bytes that lack; None if unknown. Raises: ConnectionError."""

    def respond(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Send the whole reply."""

    def begin(self, status: int, headers: Mapping[str, str]) -> None:
        """Send the head of a stream."""

    async def send(self, data: bytes) -> None:
        """Send a piece of the stream."""

    async def end(self) -> None:
        """End the stream."""

    async def left(self) -> None:
        """Return once the client has closed its connection."""
