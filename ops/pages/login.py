"""`/ops/login`: the only page without a login."""

from flask import Blueprint, flash, g, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from headrace.store.operators import PERIOD
from ops import sessions
from ops.deps import deps
from ops.forms import LoginForm
from ops.gate import operator
from ops.logins import LoginsFull, TooManyLogins

blueprint = Blueprint("login", __name__)


@blueprint.get("/login")
def form() -> str:
    """The form."""
    return render_template("login.html", form=LoginForm(), problem=None)


@blueprint.post("/login")
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
    sessions.begin(found)
    return redirect(_back(), 303)


@blueprint.post("/logout")
def leave() -> ResponseReturnValue:
    """End the session."""
    operator()
    sessions.end()
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
        return url_for("jobs.list_newest")
    # A link that was copied from the browser's address bar has the prefix already.
    return path if path == root or path.startswith((f"{root}/", f"{root}?")) else root + path
