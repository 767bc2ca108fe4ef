"""Who may pass: every page but the login needs a session, and some need a right.

A session is a signed cookie. Each request reads the operator anew, so that changes act at once. What an operator does,
the audit log has.
"""

import hashlib
import ipaddress
import time
from contextlib import AbstractContextManager
from typing import cast
from uuid import UUID

from flask import Blueprint, Flask, flash, g, redirect, render_template, request, session, url_for
from flask.sessions import SecureCookieSessionInterface
from flask.typing import ResponseReturnValue
from werkzeug.wrappers import Response

from headrace.domain.operators import Actor, Operator, Right, Source
from headrace.errors import PermissionDenied
from headrace.store import audit, operators
from headrace.store.audit import Audit
from headrace.store.operators import PERIOD
from ops.deps import deps
from ops.forms import LoginForm
from ops.logins import LoginsFull, TooManyLogins

#: Where the pages are, and the cookie is sent.
PATH = "/ops"
COOKIE = "headrace_ops"
#: A session ends this long after its login, whatever it did.
SESSION_S = 12 * 3600


class LoopbackSessions(SecureCookieSessionInterface):
    """Sends cookies over TLS only, unless the browser is on this machine."""

    def get_cookie_secure(self, app: Flask) -> bool:
        """Whether the cookie is for TLS only."""
        return not _is_loopback(request.host)


def _is_loopback(host: str) -> bool:
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


def _begin_session(operator: Operator) -> None:
    """Begin the operator's session. Nothing of the session before the login is kept."""
    session.clear()
    session.update(operator=operator.id.hex, stamp=_stamp(operator), began=int(time.time()))


def _current_operator() -> Operator | None:
    """The operator of this request; None without a session, or when it has ended. Raises: StoreUnavailable."""
    if not session.get("operator") or not 0 <= time.time() - session.get("began", 0) < SESSION_S:
        return None
    with deps().store.autocommit() as db:
        operator = operators.find(db, UUID(hex=session["operator"]))
    return operator if operator is not None and _stamp(operator) == session.get("stamp") else None


def _stamp(operator: Operator) -> str:
    """Changes with the password, so that a new password ends the sessions of the old one."""
    return hashlib.sha256(operator.password_hash.encode()).hexdigest()[:16]


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
    found = _current_operator()
    if found is None:
        back = request.full_path.rstrip("?") if request.method == "GET" else None
        return redirect(url_for("login.form", back=back))
    g.operator = found
    return None


login = Blueprint("login", __name__)


@login.get("/login")
def form() -> str:
    return render_template("login.html", form=LoginForm(), problem=None)


@login.post("/login")
def enter() -> ResponseReturnValue:
    """Begin a session and go on to the page that was asked for; or the form again."""
    form = LoginForm()
    if not form.validate():
        return _again(form, "Give a name and a password.", 400)
    try:
        found = deps().logins.check(form.name.data, form.password.data, request.remote_addr)
    except TooManyLogins:
        response = _again(form, f"Too many logins failed. Try again in {PERIOD.total_seconds() / 60:.0f} minutes.", 429)
        return *response, {"Retry-After": str(int(PERIOD.total_seconds()))}
    except LoginsFull as full:
        g.refusal = full.reason
        return *_again(form, str(full), 429), {"Retry-After": str(full.retry_after_s)}
    if found is None:
        return _again(form, "The name or the password is wrong.", 401)
    _begin_session(found)
    return redirect(_back(), 303)


@login.post("/logout")
def leave() -> ResponseReturnValue:
    """End the session."""
    operator()
    session.clear()
    flash("You are logged out.")
    return redirect(url_for("login.form"), 303)


def _again(form: LoginForm, problem: str, status: int) -> tuple[str, int]:
    return render_template("login.html", form=form, problem=problem), status


def _back() -> str:
    """The page of these pages that the browser asked for before the login; else the first."""
    path, root = request.args.get("back", ""), request.script_root
    # One slash: two would name another host. Browsers read a backslash as a slash.
    is_ours = path.startswith("/") and not path.startswith("//") and "\\" not in path and path.isprintable()
    if not is_ours:
        return url_for("overview.show")
    # A link that was copied from the browser's address bar has the prefix already.
    return path if path == root or path.startswith((f"{root}/", f"{root}?")) else root + path
