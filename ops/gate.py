"""Who may pass: every page needs a login, and some need a right. What an operator does, the audit log has."""

from contextlib import AbstractContextManager
from typing import cast

from flask import Flask, g, redirect, request, url_for
from werkzeug.wrappers import Response

from headrace.domain.operators.accounts import Operator, Right
from headrace.domain.operators.actions import Actor, Source
from headrace.errors import PermissionDenied
from headrace.store import audit
from headrace.store.audit import Audit
from ops import sessions
from ops.deps import deps

#: What a browser gets without a login: the form, and the style sheet of the form.
OPEN = frozenset({"login.form", "login.enter", "static"})


def register(app: Flask) -> None:
    """Let no request pass without a login."""
    app.before_request(_check)
    app.context_processor(lambda: {"operator": g.get("operator"), "Right": Right})


def operator() -> Operator:
    """The operator of this request."""
    return cast(Operator, g.operator)


def needs(right: Right) -> Operator:
    """The operator of this request, who has this right. Raises: PermissionDenied."""
    if not operator().may(right):
        raise PermissionDenied(f"Your role, {operator().role}, does not have the right '{right}'.")
    return operator()


def may(right: Right) -> bool:
    """Whether the operator of this request has this right."""
    return operator().may(right)


def acting() -> AbstractContextManager[Audit]:
    """One transaction in which the operator of this request acts. Raises: StoreUnavailable."""
    return audit.acting(deps().store, Actor(operator().name, Source.PAGES))


def _check() -> Response | None:
    if request.endpoint in OPEN:
        return None
    found = sessions.current(deps().store)
    if found is None:
        back = request.full_path.rstrip("?") if request.method == "GET" else None
        return redirect(url_for("login.form", back=back))
    g.operator = found
    return None
