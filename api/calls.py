"""One call as its view sees it: the caller, the parts of the process, and replies that come later or in pieces."""

from collections.abc import Callable, Generator, Mapping
from typing import TYPE_CHECKING

from flask import Response, current_app, g, request

from api.turns import TURN, Step, Turn, Wake
from headrace.domain.apps import App
from headrace.domain.jobs import Job

if TYPE_CHECKING:
    from api.deps import WebDeps

#: Names the parts of the web process among the Flask app's extensions.
EXTENSION = "headrace"


def turn() -> Turn:
    """Returns the turn of the call that this thread serves."""
    found: Turn = request.environ[TURN]
    return found


def caller() -> App:
    """Returns the app whose key came with this call. For views that need a key."""
    found: App = g.caller
    return found


def parts() -> "WebDeps":
    """Returns the parts of the web process."""
    found: WebDeps = current_app.extensions[EXTENSION]
    return found


class Stream(Response):
    """A reply whose status is known and whose body comes in pieces.

    Attributes:
        steps: makes the pieces, for a client that is to be woken by its argument.
        is_download: the pieces come as fast as the client takes them, and break off if it is too slow.
    """

    automatically_set_content_length = False

    def __init__(
        self,
        steps: Callable[[Wake], Generator[Step, None, None]],
        headers: Mapping[str, str],
        *,
        is_download: bool = False,
    ) -> None:
        super().__init__(headers=dict(headers))
        self.steps, self.is_download = steps, is_download


class Later(Response):
    """A reply that is made once a job has ended, or the wait for it is over.

    Attributes:
        steps: returns the job as it stands then, or the error that ended the wait.
        end: makes the reply of it, inside the app, so that its errors are answered as any view's.
    """

    def __init__(
        self,
        steps: Callable[[Wake], Generator[Step, None, Job | Exception]],
        end: Callable[[Job | Exception], Response],
    ) -> None:
        super().__init__()
        self.steps, self.end = steps, end
