"""`/ops/queues` and `/ops/hosts`: every queue, the hosts, and the decisions of the autoscaler; drain and call back."""

from dataclasses import dataclass

from flask import Blueprint, flash, redirect, render_template, request, url_for
from sqlalchemy import Connection
from werkzeug.wrappers import Response

from headrace.broker.forecast import PoolForecast
from headrace.config import LaneSettings
from headrace.domain.hosts import HostCounts
from headrace.domain.operators import Right
from headrace.domain.places import Load
from headrace.domain.queues import OVERFLOW, Lane, queue_name
from headrace.errors import NotFound
from headrace.store import actions, clock
from headrace.store.fleet import decisions, host_list, observations, processes, workers
from headrace.store.fleet.hosts import removed_notice, removed_pools
from ops.deps import deps
from ops.forms import Periods, checked
from ops.gate import acting, needs

queues = Blueprint("queues", __name__)


@dataclass(frozen=True, slots=True)
class _Row:
    """One queue. Attributes: pool: as it stands, all lanes. expected_wait_s: of a job submitted now; None: unknown."""

    queue: str
    load: Load
    lane: LaneSettings
    pool: PoolForecast
    expected_wait_s: float | None
    oldest_wait_s: float


@queues.get("/queues")
def list_queues() -> str:
    """Every queue, and the charts of each pool."""
    form = checked(Periods(request.args))
    with deps().store.read() as db:
        silence, rows, gpus = decisions.silence_notice(db, deps().settings), _rows(db), workers.gpus(db)
    pools = deps().settings.own_pools
    return render_template("queues.html", form=form, queues=rows, pools=pools, gpus=gpus, silence=silence)


def _rows(db: Connection) -> list[_Row]:
    """Every queue as it stands. Raises: BrokerUnavailable. StoreUnavailable."""
    settings, forecast = deps().settings, deps().forecast
    pools = [*settings.own_pools, *([OVERFLOW] if settings.openai_api_key else [])]
    places = {queue_name(pool, lane): (pool, lane) for pool in pools for lane in Lane}
    loads, present = deps().admission.loads(list(places)), observations.present(db, list(places))
    return [
        _Row(
            *(queue, loads[queue], settings.lane(lane, pool), forecast.pool(pool)),
            *(forecast.wait_if_submitted_s(queue), present[queue].oldest_wait_s if queue in present else 0.0),
        )
        for queue, (pool, lane) in places.items()
    ]


hosts = Blueprint("hosts", __name__)

#: Ended hosts, and decisions of each pool, on the page.
ENDED_ROWS, DECISION_ROWS = 20, 15


@hosts.get("/hosts")
def list_hosts() -> str:
    pools = deps().settings.own_pools
    with deps().store.read() as db:
        mode = processes.scaling_mode(db) or deps().settings.scaling.mode
        removed, counted = removed_pools(db, pools), workers.count_hosts(db)
        found = {
            "now": clock.now(db),
            "live": host_list.live(db),
            "ended": host_list.ended(db, None, ENDED_ROWS),
            # Also of a pool whose hosts have all gone, and not of the paid API, whose workers are no hosts.
            "counts": {pool: counted.get(pool, HostCounts()) for pool in (*pools, *removed)},
            "runs": {pool: decisions.runs(db, pool, DECISION_ROWS) for pool in pools},
            "failing": {pool: decisions.failing(db, pool) for pool in pools},
            "mode": mode,
            "notices": [
                *filter(None, [decisions.silence_notice(db, deps().settings)]),
                *(removed_notice(pool, mode) for pool in removed),
            ],
        }
    return render_template("hosts.html", **found)


@hosts.post("/hosts/drain")
def drain() -> Response:
    """Let a host finish its jobs and end."""
    needs(Right.ACT)
    with acting() as audit:
        host_id = actions.drain_host(audit, *_named()).lease.id
    flash(f"{host_id} finishes its jobs, then it ends.")
    return redirect(url_for("hosts.list_hosts"), 303)


@hosts.post("/hosts/resume")
def resume() -> Response:
    """Call a draining host back."""
    needs(Right.ACT)
    with acting() as audit:
        host_id = actions.resume_host(audit, *_named()).lease.id
    flash(f"{host_id} takes jobs again.")
    return redirect(url_for("hosts.list_hosts"), 303)


def _named() -> tuple[str, str | None]:
    """The host that the form names, and its pool. Raises: NotFound."""
    name, pool = request.form.get("host", ""), request.form.get("pool", "")
    if not name or not f"{name}{pool}".isprintable():
        raise NotFound("There is no host of this name.")
    return name, pool or None
