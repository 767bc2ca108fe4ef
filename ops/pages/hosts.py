"""`/ops/hosts`: the hosts, why they came and went, and the decisions of the autoscaler; drain and call back."""

from flask import Blueprint, flash, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from headrace.domain.hosts import HostCounts
from headrace.domain.operators.accounts import Right
from headrace.errors import NotFound
from headrace.store import actions, clock
from headrace.store.fleet import decisions, host_list, presence
from headrace.store.fleet.removed_pools import notice, removed_pools
from ops.deps import deps
from ops.gate import acting, needs

blueprint = Blueprint("hosts", __name__)

#: Ended hosts, and decisions of each pool, on the page.
ENDED_ROWS, DECISION_ROWS = 20, 15


@blueprint.get("/hosts")
def list_all() -> str:
    """The hosts and the decisions."""
    pools, mode = deps().settings.own_pools, deps().settings.scaling.mode
    with deps().store.read() as db:
        removed, counted = removed_pools(db, pools), presence.count_hosts(db)
        found = {
            "now": clock.now(db),
            "live": host_list.live(db),
            "ended": host_list.ended(db, None, ENDED_ROWS),
            # Also of a pool whose hosts have all gone, and not of the paid API, whose workers are no hosts.
            "counts": {pool: counted.get(pool, HostCounts()) for pool in (*pools, *removed)},
            "runs": {pool: decisions.runs(db, pool, DECISION_ROWS) for pool in pools},
            "failing": {pool: decisions.failing(db, pool) for pool in pools},
            "mode": mode,
            "notices": [notice(pool, mode) for pool in removed],
        }
    return render_template("hosts.html", **found)


@blueprint.post("/hosts/drain")
def drain() -> Response:
    """Let a host finish its jobs and end."""
    needs(Right.ACT)
    with acting() as audit:
        host_id = actions.drain_host(audit, _name()).lease.id
    flash(f"{host_id} finishes its jobs, then it ends.")
    return redirect(url_for("hosts.list_all"), 303)


@blueprint.post("/hosts/resume")
def resume() -> Response:
    """Call a draining host back."""
    needs(Right.ACT)
    with acting() as audit:
        host_id = actions.resume_host(audit, _name()).lease.id
    flash(f"{host_id} takes jobs again.")
    return redirect(url_for("hosts.list_all"), 303)


def _name() -> str:
    """The host that the form names. Raises: NotFound."""
    name = request.form.get("host", "")
    if not name or not name.isprintable():
        raise NotFound("There is no host of this name.")
    return name
