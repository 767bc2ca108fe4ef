"""What a handler is: a plain function from a call to its reply, beside the description of its operation. Pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from api.call import Asked, Reply, Wait

#: Takes the parts of the process, the call, and the path's parameters in their order.
Handler = Callable[..., Reply | Wait]
#: The same, on the event loop, so it asks no server itself. None: the handler answers this call.
Soon = Callable[..., Reply | Asked | None]

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
        examples: valid bodies, by name.
        events: an example of its event stream; None where it has none.
        refusals: the statuses of its own errors, without those of every call.
        prefers_wait: whether it honours `Prefer: wait=n`.
        may_wait: whether a call without a body may be held open.
        is_open: True when it needs no API key.
        is_instant: True when its handler asks no server, so that the event loop itself calls it.
        takes_slashes: whether the path's parameter may contain slashes.
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
    examples: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    events: str | None = None
    refusals: tuple[int, ...] = ()
    prefers_wait: bool = False
    may_wait: bool = False
    soon: Soon | None = None
    is_open: bool = False
    is_instant: bool = False
    takes_slashes: bool = False
    is_refusal: bool = False

    @property
    def makes_job(self) -> bool:
        """True if its body becomes a job."""
        return self.body is not None and self.path.startswith("/v1/")


#: For examples of bodies.
QUESTION = "Why is the sky blue?"
SCHEMA = {"type": "object", "properties": {"colour": {"type": "string"}}, "required": ["colour"]}
