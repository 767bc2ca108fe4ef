"""`/ops/deliveries`: webhooks, their tries and the last answers; send them again."""

from flask import Blueprint, flash, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from headrace.domain.operators.accounts import Right
from headrace.errors import InvalidRequest
from headrace.store import actions
from headrace.store.clients import apps
from headrace.store.webhooks import deliveries as store
from ops.deps import deps
from ops.forms import DeliveryFilter, checked
from ops.gate import acting, needs

blueprint = Blueprint("deliveries", __name__)

PAGE_ROWS = 100


@blueprint.get("/deliveries")
def list_newest() -> str:
    """The newest deliveries that fit the filter."""
    form = checked(DeliveryFilter(request.args))
    with deps().store.read() as db:
        app_id = apps.find_app(db, form.app.data).id if form.app.data else None
        found = store.newest(db, is_failed=form.failed.data, app_id=app_id, limit=PAGE_ROWS)
    about = {"is_cut": len(found) == PAGE_ROWS, "look_rows": store.LOOK_ROWS}
    return render_template("deliveries.html", form=form, deliveries=found, **about)


@blueprint.post("/deliveries/retry")
def retry() -> Response:
    """Send the chosen deliveries again: all of them or, with an error, none."""
    needs(Right.ACT)
    chosen = request.form.getlist("id")
    if not 0 < len(chosen) <= PAGE_ROWS:
        raise InvalidRequest(f"Choose 1 to {PAGE_ROWS} deliveries.", param="id")
    with acting() as audit:
        retried = actions.retry_deliveries(audit, chosen)
    flash(f"{len(retried)} {'is' if len(retried) == 1 else 'are'} tried again.")
    return redirect(url_for("deliveries.list_newest"), 303)
