"""A call as its view meets it, without a server."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from flask import g

from api.app import make_flask_app
from api.turns import TURN, Turn
from headrace.domain.apps import App
from headrace.domain.ids import new_id

APP = App(new_id(), "test", "whsec_test")


@contextmanager
def in_call(
    path: str = "/v1/jobs",
    *,
    web: Any = None,
    method: str = "POST",
    headers: Mapping[str, str] | None = None,
    body: bytes = b"{}",
) -> Iterator[Turn]:
    """Stand in the view of a call of APP. Args: web: the parts of the process that the view asks."""
    flask, turn = make_flask_app(web or SimpleNamespace(plugins=())), Turn(caller=APP)
    given = {"method": method, "headers": dict(headers or {}), "data": body}
    with flask.test_request_context(path, environ_base={TURN: turn}, **given):
        g.caller = APP
        yield turn
