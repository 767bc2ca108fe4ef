"""`/ops/apps`: the apps, their limits, keys and activity; change limits, make and revoke keys."""

from datetime import timedelta
from typing import cast

from flask import Blueprint, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from werkzeug.wrappers import Response

from headrace.domain.apps import App, Changes, Scope
from headrace.domain.operators import Right
from headrace.domain.queues import Lane
from headrace.errors import NotFound
from headrace.store import actions, keys
from headrace.store import apps as store
from ops.deps import deps
from ops.forms import KeyForm, LimitsForm, checked
from ops.gate import acting, needs

blueprint = Blueprint("apps", __name__)

#: The time whose activity is shown.
PERIOD = timedelta(hours=24)
_WHOLE = ("queued_jobs", "requests_per_minute", "tokens_per_minute", "calls_per_minute")
_USD = ("day_usd", "month_usd")


@blueprint.get("/apps")
def list_all() -> str:
    """Every app with its limits."""
    with deps().store.read() as db:
        found = store.list_apps(db)
    return render_template("apps.html", apps=found)


@blueprint.get("/app")
def show() -> str:
    return _page(_name())


def _page(name: str, new_key: str | None = None) -> str:
    with deps().store.read() as db:
        app = store.find_app(db, name)
        recent = store.activity(db, app.id, PERIOD)
        found = keys.list_keys(db, app.id)
    forms = {"limits": _limits(app), "key_form": KeyForm(formdata=None)}
    return render_template("app.html", app=app, recent=recent, keys=found, new_key=new_key, **forms)


def _limits(app: App) -> LimitsForm:
    counts = {name: getattr(app.limits, name) for name in _WHOLE}
    counts["cache_s"] = app.cache_s
    limits = {name: None if count is None else str(count) for name, count in counts.items()}
    amounts = {name: getattr(app.limits, name) for name in _USD}
    shown = {name: None if usd is None else f"{usd.normalize():f}" for name, usd in amounts.items()}
    return LimitsForm(formdata=None, data={**limits, **shown, "lanes": list(app.lanes or Lane)})


@blueprint.post("/app/limits")
def limit() -> Response:
    """Replace the app's limits."""
    needs(Right.MANAGE)
    name, form = _name(), checked(LimitsForm())
    lanes = [Lane(lane) for lane in form.lanes.data]
    values = {
        **{limit: form.whole(limit) for limit in (*_WHOLE, "cache_s")},
        **{limit: form.usd(limit) for limit in _USD},
        # All or none chosen: no limit.
        "lanes": None if len(lanes) in (0, len(Lane)) else lanes,
    }
    with acting() as audit:
        actions.limit_app(audit, name, cast(Changes, values))
    flash("The limits hold everywhere within 3 seconds.")
    return redirect(url_for("apps.show", name=name), 303)


@blueprint.post("/app/keys")
def make_key() -> ResponseReturnValue:
    """Make a key, and show it, only this once."""
    needs(Right.MANAGE)
    name, form = _name(), checked(KeyForm())
    scopes = [Scope(scope) for scope in form.scopes.data] or list(Scope)
    lifetime = timedelta(days=int(form.days.data)) if form.days.data else None
    pepper = deps().settings.pepper.get_secret_value()
    with acting() as audit:
        key, _ = actions.create_key(audit, name, pepper, scopes, lifetime)
    return _page(name, new_key=key)


@blueprint.post("/app/keys/revoke")
def revoke_key() -> Response:
    """Revoke a key for good."""
    needs(Right.MANAGE)
    name = _name()
    with acting() as audit:
        key = actions.revoke_key(audit, request.form.get("key", ""))
    flash(f"The key {key.hint}… is revoked.")
    return redirect(url_for("apps.show", name=name), 303)


def _name() -> str:
    """The app that the query or the form names. Raises: NotFound."""
    name = request.values.get("name", "")
    if not name or not name.isprintable():
        raise NotFound("There is no app of this name.")
    return name
