"""One HTTP exchange in plain values: a call comes in; a reply, or a wait for one, goes out. Pure.

Handlers (`api.handlers`) turn a call into a reply. Mounts (`api.mounts`) make calls of HTTP requests, and send replies.
"""

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol
from uuid import UUID

from api.slots import Slot
from headrace.batching import Batching
from headrace.domain.apps import App
from headrace.domain.ids import new_id, show_id
from headrace.domain.jobs import Job
from headrace.http.request_metrics import RequestKind


class Headers(Protocol):
    """A request's headers, by their names in any case."""

    def get(self, name: str, /) -> str | None:
        """The value; None without this header."""


@dataclass(slots=True)
class Call:
    """One request, as a handler sees it.

    Attributes:
        query: the query string as sent.
        caller: the app whose key came with it; None for operations that need no key.
        body: whole and unpacked; empty for operations that take none.
        calls_due: what the request uses of its app's rate of calls at its end. A job that it makes cancels them.
        kind: how it is answered, for the metrics.
        id: for the log, and for the caller.
        began: on the monotonic clock.
    """

    method: str
    path: str
    query: str
    headers: Headers
    caller: App | None = None
    body: bytes = b""
    calls_due: int = 0
    kind: RequestKind = "plain"
    id: str = field(default_factory=lambda: show_id(new_id(), "req_"))
    began: float = field(default_factory=time.monotonic)

    @property
    def app(self) -> App:
        """The caller, for operations that need a key."""
        assert self.caller is not None
        return self.caller


#: Wakes a waiter that has news. It may be called from any thread, and returns at once.
Wake = Callable[[], object]


class Step(NamedTuple):
    """A request that is held open has come so far, and holds no thread until it goes on.

    Attributes:
        data: what its client gets now; may be empty.
        until: when it goes on if there is no news before, on the monotonic clock.
    """

    data: bytes
    until: float


class ClientGone(Exception):
    """The client has closed its connection: no answer reaches it. Thrown into the steps of its request."""


#: A reply's body that comes in pieces: its steps, for a client that is to be woken by this.
Stream = Callable[[Wake], Generator[Step, None, None]]


@dataclass(slots=True)
class Reply:
    """The answer to a call.

    Attributes:
        body: the whole of it, or a stream.
        refusal: the bound that was met, if the call was refused.
        on_close: called once the last byte is sent, or can be sent no more.
    """

    status: int
    body: bytes | Stream
    headers: dict[str, str]
    refusal: str | None = None
    on_close: list[Callable[[], None]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Wait:
    """A reply that comes once a job has ended, or the wait is over. It holds a slot until then.

    Attributes:
        read: reads the job as it stands. Raises: NotFound. StoreUnavailable.
        reply: makes the reply from the job, or from what ended the wait before it: ClientGone, StoreUnavailable.
    """

    job_id: UUID
    for_s: float
    slot: Slot
    read: Callable[[], Job]
    reply: Callable[[Job | Exception], Reply]


@dataclass(frozen=True, slots=True)
class Asked:
    """A reply that comes once a batch of such calls was served. No thread waits for it.

    Attributes:
        reply: makes the reply of the batch's outcome for this call, or of its error. None: the handler makes it.
    """

    batching: Batching[Any, Any]
    ask: object
    reply: Callable[[Any], Reply | None]
