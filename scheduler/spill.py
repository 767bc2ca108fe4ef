"""Spill: move jobs that would expire in their own queue to the paid API. Knows neither Celery nor any price."""

import logging
from itertools import islice

from sqlalchemy import Connection

from headrace.broker.rates import Headroom
from headrace.domain.jobs import LateJob
from headrace.domain.limits import Balances
from headrace.domain.queues import OVERFLOW, lane_queues
from headrace.logging import named
from headrace.policies.overflow import Objection, Wallet, quote
from headrace.policies.pricing import Tariff
from headrace.store import locks
from headrace.store.bad_rows import BadRows
from headrace.store.fleet import workers
from headrace.store.jobs import queued
from headrace.store.money import budgets, tariffs
from scheduler.deps import ControlDeps

log = logging.getLogger(__name__)

#: Jobs that one sweep looks at, those with the earliest `start_by` first.
MOST_JOBS = 500


def spill(deps: ControlDeps, bad: BadRows | None = None) -> int:
    """Move jobs that would miss their `start_by` to the paid API's queue, as many as can begin there at once.

    A job moves when `spill_before_s` is left of its time: own capacity that frees before then costs nothing.
    Bound: one sweep. If Redis fails after the commit, `publish_due` and `reconcile_admission` complete the move. A job
    that finds the API closed comes back, as any job that is turned away there.
    Args: bad: the jobs whose payloads could not be read in earlier sweeps.
    """
    settings = deps.settings
    if settings.openai_api_key is None:
        return 0
    headrooms = {model: deps.pace.left(model) for model in Tariff.of(settings).all_api_models}
    loads = deps.admission.loads(lane_queues(OVERFLOW)).values()
    spilled = sum(load.jobs for load in loads)
    for headroom in headrooms.values():
        # Jobs that wait there already go first. Their models are unknown, so each model's headroom counts all of them:
        # mostly only one model is in use.
        headroom.take(sum(load.tokens for load in loads), spilled)
    with deps.store.begin() as db:
        locks.take(db, "spill")
        # First: without a free call no job can move, and the search is saved.
        free = _free_calls(db, spilled)
        late = _late(db, settings.overflow.spill_before_s, bad or BadRows("spill")) if free else []
        if not late:
            return 0
        tariff = tariffs.in_force(db, settings)
        wallet, balances = Wallet(), budgets.balances(db, settings.budgets)
        model_of = tariff.api_model
        able = (job.ticket for job in late if _goes(job, headrooms[model_of(job.model)], wallet, balances, tariff))
        tickets = list(islice(able, free))
        moved = queued.spill(db, tickets, f"own queue late: {settings.overflow.spill_before_s:g} s before its start_by")
    if moved:
        log.info("jobs_spilled", extra=named([ticket.job_id for ticket in moved]))
        deps.admission.remove(tickets)
        deps.admission.restore(moved)
    return len(moved)


def _late(db: Connection, within_s: float, bad: BadRows) -> list[LateJob]:
    rows = queued.about_to_be_late(db, within_s, MOST_JOBS, *bad.others())
    return bad.readable(rows, queued.late_job, MOST_JOBS)


def _free_calls(db: Connection, spilled: int) -> int:
    """Calls that the overflow workers can begin at once. Args: spilled: jobs that already wait for them."""
    fleet = workers.fleets(db).get(OVERFLOW)
    return max(0, fleet.slots - fleet.running - spilled) if fleet else 0


def _goes(job: LateJob, headroom: Headroom, wallet: Wallet, balances: Balances, tariff: Tariff) -> bool:
    """Whether the job can begin now. If so, promise it its money and its part of the provider's rates."""
    if not headroom.has(job.ticket.kv_tokens):
        return False
    quoted = quote(job, tariff, lambda usd: wallet.lacking(usd, job.app, job.limits, balances))
    if isinstance(quoted, Objection):
        return False
    wallet.promise(job.app, quoted.most_usd)
    headroom.take(job.ticket.kv_tokens)
    return True
