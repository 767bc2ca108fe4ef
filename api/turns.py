"""The turn of one call, and what is thrown, told and taken while it is held open. Pure."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol
from uuid import UUID

from headrace.domain.apps import App
from headrace.domain.ids import new_id, show_id
from headrace.errors import InvalidRequest
from headrace.http import RequestKind

#: Names a call's turn in its WSGI environ.
TURN = "headrace.turn"

#: How a view takes the body of its call: not at all, whole and unpacked, or by parts as they come.
Body = Literal["none", "whole", "parts"]


@dataclass(slots=True)
class Turn:
    """How one call is served, from its head to the last byte of its reply.

    Attributes:
        caller: the app whose key came with the call; None where none is needed, and before it is known.
        body: how the view takes it.
        is_instant: its view asks no server, so the event loop itself calls it.
        error: what was met before the view, which is not called then. Nothing raises it again: its frames hold the
            call's connection, and would be held by it.
        later: stands in for the view of a call that was held open: makes its reply.
        body_in_flight: bytes that the body counts as among those in flight.
        calls_due: what the call uses of its app's rate of calls at its end. An accepted job cancels them.
        kind: how the call is answered, for the metrics.
        line: the app in whose turn threads serve the call; one whose key was good before, too.
        closing: called once the last byte is sent, or can be sent no more.
        id: names the call in the log and for its caller.
        began: on the monotonic clock.
    """

    caller: App | None = None
    body: Body = "none"
    is_instant: bool = False
    error: Exception | None = None
    later: Callable[[], Any] | None = None
    body_in_flight: int = 0
    calls_due: int = 0
    kind: RequestKind = "plain"
    closing: list[Callable[[], object]] = field(default_factory=list)
    id: str = field(default_factory=lambda: show_id(new_id(), "req_"))
    began: float = field(default_factory=time.monotonic)

    line: UUID | None = None

    def refuse(self, error: Exception) -> None:
        """Have the app answer with this error, in place of the view. It asks no server for that."""
        self.error, self.is_instant = error, True


#: Wakes a waiter that has news. It may be called from any thread, and returns at once.
Wake = Callable[[], object]


class Step(NamedTuple):
    """A held call has come so far, and holds no thread until it goes on.

    Attributes:
        data: bytes for its client now; may be empty.
        until: when it goes on if there is no news before, on the monotonic clock.
    """

    data: bytes
    until: float


class ClientGone(Exception):
    """The client has closed its connection: no reply reaches it. Thrown into the steps of its call."""


class Headers(Protocol):
    """A request's headers, by their names in any case."""

    def get(self, name: str, /) -> str | None:
        """The value; None without this header."""


KEY_CHARS_LIMIT = 255


def idempotency_key(headers: Headers) -> str | None:
    """The Idempotency-Key as sent, without quotation marks. Raises: InvalidRequest."""
    header = headers.get("Idempotency-Key")
    if header is None:
        return None
    key = header.strip().removeprefix('"').removesuffix('"')
    if not 1 <= len(key) <= KEY_CHARS_LIMIT or not (key.isascii() and key.isprintable()):
        raise InvalidRequest(
            f"The Idempotency-Key must have 1 to {KEY_CHARS_LIMIT} printable ASCII characters.",
            param="Idempotency-Key",
        )
    return key
