"""The sweeps for the rules of the model `auto`: give answers that were kept, and compare shadows.

A shadow is another pool's answer to a job of a sample; it is noted how often both say the same.
"""

import logging
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row

from headrace.config import Settings
from headrace.domain.queues import OVERFLOW, Lane, Overflow, Route, queue_name
from headrace.domain.states import JobState
from headrace.logging import named
from headrace.policies.agreement import agree
from headrace.policies.routing.shadow import shadow_pool
from headrace.store import apps, locks
from headrace.store.attempts import escalations
from headrace.store.bad_rows import BadRows
from headrace.store.jobs import shadows, ticket_of
from headrace.store.jobs.cached_answers import ENDED_WELL
from headrace.store.jobs.shadows import Shadow, Verdict
from scheduler.deps import ControlDeps

log = logging.getLogger(__name__)


def give_kept(deps: ControlDeps, bad: BadRows | None = None) -> int:
    """End the jobs that have an answer, and have waited for a better one until their `stand_by`.

    Bound: one sweep after that, which is repeated at once where it found `escalations.STAND_ROWS`.
    Args: bad: the jobs that Postgres refused in earlier batches.
    Returns: jobs that were ended or refused.
    """

    def choose(db: Connection, *conditions: ColumnElement[bool]) -> Sequence[Row[Any]]:
        locks.take(db, "give_kept")
        return escalations.overdue(db, *conditions)

    bad = bad or BadRows("give_kept")
    rows, tried = bad.move(deps.store, choose, escalations.stand, escalations.STAND_ROWS)
    if rows:
        ended = [row.id for row in rows]
        log.info("kept_answers_given", extra=named(ended))
        deps.admission.remove([ticket_of(row) for row in rows])
        deps.tell_ended(ended)
    return tried


def start_shadows(deps: ControlDeps) -> int:
    """Start the shadows of ended jobs of the sample, a few at a time. No job waits for this.

    A crash leaves nothing: a shadow and its job's mark are one transaction, and `publish_due` pushes its message.
    Returns: jobs that were looked at.
    """
    started = []
    with deps.store.begin() as db:
        locks.take(db, "start_shadows")
        rows = shadows.wanted(db)
        for row in rows:
            where = _where(deps.settings, row)
            if where is None:
                shadows.skip(db, row.id)
            elif (shadow_id := shadows.start(db, row, where, apps.ensure(db, shadows.APP).id)) is not None:
                started.append(shadow_id)
    if started:
        log.info("shadows_started", extra=named(started))
    return len(rows)


def _where(settings: Settings, row: Row[Any]) -> Shadow | None:
    """Where the shadow of this job runs; None if it gets none."""
    rule, answered_by = settings.rules.get(row.rule or ""), settings.pools.get(row.pool)
    if rule is None or answered_by is None or not _is_comparable(row):
        return None
    if row.route == Route.OVERFLOW and not answered_by.is_paid:
        return None  # The paid API has answered in the pool's place.
    name = shadow_pool(rule, row.pool)
    pool = settings.pools.get(name or "")
    if name is None or pool is None:
        return None
    if pool.max_model_tokens is not None and row.prompt_tokens + row.max_tokens > pool.max_model_tokens:
        return None
    if not pool.is_paid:
        return Shadow(name, pool.model, queue_name(name, Lane.BATCH), Route.POOL, Overflow.NEVER)
    if settings.openai_api_key is None or row.overflow == Overflow.NEVER:
        return None
    return Shadow(name, pool.model, queue_name(OVERFLOW, Lane.BATCH), Route.OVERFLOW, Overflow.ONLY)


def _is_comparable(row: Row[Any]) -> bool:
    """Whether its pool has answered it. Both pools have answered an escalated job already."""
    ended_well = row.state == JobState.SUCCEEDED and row.finish_reason in ENDED_WELL and row.has_answer
    return bool(ended_well and row.served_by_job is None and row.stand_by is None and not row.is_old)


def compare_shadows(deps: ControlDeps) -> int:
    """Compare the shadows that have ended with their jobs, and erase the shadows' texts.

    Bound: one sweep after a shadow's end, which is repeated at once where it found `shadows.SWEEP_ROWS`.
    Returns: shadows that were compared.
    """
    with deps.store.begin() as db:
        locks.take(db, "compare_shadows")
        verdicts = [(row.id, _verdict(row)) for row in shadows.ended(db)]
        if verdicts:
            shadows.close(db, verdicts)
    if verdicts:
        agreed = sum(verdict == "agrees" for _, verdict in verdicts)
        log.info("shadows_compared", extra={"agreed": agreed, **named([shadow_id for shadow_id, _ in verdicts])})
    return len(verdicts)


def _verdict(row: Row[Any]) -> Verdict:
    if row.state != JobState.SUCCEEDED or row.answer is None or row.job_answer is None:
        return "failed"
    return "agrees" if agree(row.job_answer, row.answer, row.response_format) else "differs"
