"""`/ops/queues`: every queue and lane as it stands, and over time."""

from dataclasses import dataclass

from flask import Blueprint, render_template, request

from headrace.broker.forecast import PoolForecast
from headrace.config import LaneSettings
from headrace.domain.places import Load
from headrace.domain.queues import OVERFLOW, Lane, queue_name
from ops.deps import deps
from ops.forms import Periods, checked

blueprint = Blueprint("queues", __name__)


@dataclass(frozen=True, slots=True)
class _Row:
    """One queue. Attributes: pool: as it stands, all lanes. expected_wait_s: of a job submitted now; None: unknown."""

    queue: str
    load: Load
    lane: LaneSettings
    pool: PoolForecast
    expected_wait_s: float | None


@blueprint.get("/queues")
def list_all() -> str:
    """Every queue, and the charts of each pool."""
    form = checked(Periods(request.args))
    return render_template("queues.html", form=form, queues=_rows(), pools=deps().settings.own_pools)


def _rows() -> list[_Row]:
    """Every queue as it stands. Raises: BrokerUnavailable. StoreUnavailable."""
    settings, forecast = deps().settings, deps().forecast
    pools = [*settings.own_pools, *([OVERFLOW] if settings.openai_api_key else [])]
    places = {queue_name(pool, lane): (pool, lane) for pool in pools for lane in Lane}
    loads = deps().admission.loads(list(places))
    return [
        _Row(queue, loads[queue], settings.lane(lane, pool), forecast.pool(pool), forecast.wait_if_submitted_s(queue))
        for queue, (pool, lane) in places.items()
    ]
