"""`/ops/queues`: every queue and lane as it stands, and over time."""

from flask import Blueprint, render_template, request

from api.deps import deps
from api.ops.forms import Periods, checked
from api.routes.queues import every_queue

blueprint = Blueprint("queues", __name__)


@blueprint.get("/queues")
def list_all() -> str:
    """Every queue, and the charts of each pool."""
    form = checked(Periods(request.args))
    return render_template("queues.html", form=form, queues=every_queue(), pools=deps().settings.own_pools)
