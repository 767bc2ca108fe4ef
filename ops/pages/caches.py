"""`/ops/caches`: what the caches of each app and pool have served and saved, and how sure the semantic one is."""

from datetime import timedelta

from flask import Blueprint, render_template, request

from headrace.store import clock
from headrace.store.reuse import entries, figures
from ops.deps import deps
from ops.forms import Periods, checked

blueprint = Blueprint("caches", __name__)


@blueprint.get("/caches")
def show() -> str:
    """The pools' settings, and the figures of some hours."""
    form: Periods = checked(Periods(request.args))
    pools = {name: pool for name, pool in deps().settings.pools.items() if not pool.is_embedding}
    with deps().store.read() as db:
        since = clock.now(db) - timedelta(hours=int(form.hours.data))
        found = {
            "form": form,
            "pools": pools,
            "saved": figures.saved(db, since),
            "learned": figures.learned(db, since),
            "most_entries": entries.MOST_ENTRIES,
            "has_vectors": entries.has_vectors(db),
        }
    return render_template("caches.html", **found)
