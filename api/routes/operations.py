"""What the reference says of a view, and what must be known of it before its call is admitted."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from flask import Flask
from pydantic import BaseModel

from api.turns import Body

#: The media type of most replies.
JSON = "application/json"
#: Statuses that may refuse any request with a body.
READ_BODY = (400, 404, 408, 413, 415)
#: The same where it makes a job, before that is made.
SUBMIT = (*READ_BODY, 409, 422)
#: For examples of bodies.
QUESTION = "Why is the sky blue?"
SCHEMA = {"type": "object", "properties": {"colour": {"type": "string"}}, "required": ["colour"]}

View = TypeVar("View", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path.

    Attributes:
        about: what it does beyond its summary; of the core's, `descriptions` has it.
        id: the meaning and the pattern of `{id}` in its path; of the core's, `openapi` has it.
        answer: the body of its reply; None if the reference leaves the operation out.
        form: the fields beside its file, where the view takes an upload.
        makes: what its body becomes. A call that makes a job uses a call of its app's rate only if it makes none.
        may_lack_body: a call may come without its body.
        examples: valid bodies, by name.
        events: an example of its event stream; None where it has none.
        refusals: the statuses of its own errors, without those of every call.
        prefers_wait: it honours `Prefer: wait=n`.
        is_open: it needs no API key.
        is_instant: its view asks no server, so the event loop itself calls it.
        media: of its reply. One other than JSON is bytes, which `answer` does not describe.
        method, path: as the reference spells them; `operations` fills them in.
    """

    tag: str = ""
    summary: str = ""
    answer: type[BaseModel] | None = None
    status: int = 200
    query: type[BaseModel] | None = None
    body: type[BaseModel] | None = None
    form: type[BaseModel] | None = None
    makes: str | None = None
    may_lack_body: bool = False
    examples: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    events: str | None = None
    refusals: tuple[int, ...] = ()
    prefers_wait: bool = False
    is_open: bool = False
    is_instant: bool = False
    media: str = JSON
    method: str = ""
    path: str = ""
    about: str = ""
    id: tuple[str, str] | None = None

    @property
    def takes(self) -> Body:
        """How its view takes the body of a call."""
        if self.form is not None:
            return "parts"
        return "none" if self.body is None else "whole"


def describes(*given: Any, **more: Any) -> Callable[[View], View]:
    """Describe a view: the arguments are those of `Operation`."""

    def describe(view: View) -> View:
        vars(view)["operation"] = Operation(*given, **more)
        return view

    return describe


def operation_of(app: Flask, endpoint: str) -> Operation:
    """Returns the operation of an endpoint."""
    found: Operation = vars(app.view_functions[endpoint])["operation"]
    return found


def described(app: Flask) -> list[Operation]:
    """Returns the operations that the reference describes, in the order in which their views were registered."""
    found = []
    for rule in app.url_map.iter_rules():
        operation = operation_of(app, rule.endpoint)
        if operation.answer is not None:
            [method] = (rule.methods or set()) - {"HEAD", "OPTIONS"}
            path = rule.rule.replace("<path:", "{").replace("<", "{").replace(">", "}")
            found.append(replace(operation, method=method.lower(), path=path))
    return found
