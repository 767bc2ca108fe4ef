"""One HTTP exchange in plain values: a call comes in; a reply, or a wait for one, goes out. Pure.

An operation names the handler (`api.handlers`) that turns a call into a reply, and describes both. Mounts
(`api.mounts`) make calls of HTTP requests, and send replies.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol
from uuid import UUID

from pydantic import BaseModel

from api.slots import Slot
from headrace.batching import Batching
from headrace.domain.apps import App
from headrace.domain.ids import new_id, show_id
from headrace.domain.jobs import Job
from headrace.http import RequestKind


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
        body_in_flight: bytes that its body counts as among those in flight.
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
    body_in_flight: int = 0
    calls_due: int = 0
    kind: RequestKind = "plain"
    id: str = field(default_factory=lambda: show_id(new_id(), "req_"))
    began: float = field(default_factory=time.monotonic)

    @property
    def length(self) -> int | None:
        """The bytes of its body, as its client gave them; None: the body is sent in chunks."""
        if self.headers.get("Transfer-Encoding") is not None:
            return None
        text = self.headers.get("Content-Length") or ""
        return int(text) if text.isascii() and text.isdigit() else 0

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
        is_download: its stream comes as fast as its client takes it, and breaks off where that is too slow.
        on_close: called once the last byte is sent, or can be sent no more.
    """

    status: int
    body: bytes | Stream
    headers: dict[str, str]
    refusal: str | None = None
    is_download: bool = False
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


class Upload(ABC):
    """Takes a body by parts. Its calls block, and come one after the other; the last is `finish` or `abandon`."""

    @abstractmethod
    def take(self, data: bytes) -> None:
        """Take a part of the body."""

    @abstractmethod
    def finish(self) -> Reply:
        """The reply, once the whole body was taken."""

    @abstractmethod
    def abandon(self) -> None:
        """Drop what was taken: no more comes, or one of the calls has failed."""


#: Takes the parts of the process, the call, and the path's parameters in their order.
Handler = Callable[..., Reply | Wait | Upload]
#: The same, on the event loop, so it asks no server itself. None: the handler answers this call.
Soon = Callable[..., Reply | Asked | None]

#: The media type of most replies.
JSON = "application/json"
#: Statuses that may refuse any request with a body.
READ_BODY = (400, 404, 408, 413, 415)
#: The same where it makes a job, before that is made.
SUBMIT = (*READ_BODY, 409, 422)


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path: who handles it, and what the reference says of it.

    Attributes:
        path: with its parameters in braces.
        handle: its handler.
        soon: answers most of the calls without a thread for each; None where the handler answers all.
        answer: the body of its reply; None if the reference leaves the operation out.
        form: the fields beside its file, where the handler makes an upload.
        may_lack_body: whether a call may come without its body.
        examples: valid bodies, by name.
        events: an example of its event stream; None where it has none.
        refusals: the statuses of its own errors, without those of every call.
        prefers_wait: whether it honours `Prefer: wait=n`.
        may_wait: whether a call without a body may be held open.
        is_open: True when it needs no API key.
        is_instant: True when its handler asks no server, so that the event loop itself calls it.
        takes_slashes: whether the path's parameter may contain slashes.
        media: of its reply. One other than JSON is bytes, which `answer` does not describe.
        is_refusal: True for a call that is only refused, with what to do instead.
    """

    method: str
    path: str
    handle: Handler
    tag: str = ""
    summary: str = ""
    answer: type[BaseModel] | None = None
    status: int = 200
    query: type[BaseModel] | None = None
    body: type[BaseModel] | None = None
    form: type[BaseModel] | None = None
    examples: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    events: str | None = None
    refusals: tuple[int, ...] = ()
    prefers_wait: bool = False
    may_wait: bool = False
    soon: Soon | None = None
    is_open: bool = False
    is_instant: bool = False
    takes_slashes: bool = False
    media: str = JSON
    is_refusal: bool = False
    may_lack_body: bool = False

    @property
    def makes_batch(self) -> bool:
        """True if its body becomes a batch."""
        return self.body is not None and self.path.startswith("/v1/batches")

    @property
    def makes_job(self) -> bool:
        """True if its body becomes a job."""
        return self.body is not None and self.path.startswith("/v1/") and not self.makes_batch


#: For examples of bodies.
QUESTION = "Why is the sky blue?"
SCHEMA = {"type": "object", "properties": {"colour": {"type": "string"}}, "required": ["colour"]}
