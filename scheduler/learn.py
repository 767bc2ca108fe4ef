"""The sweeps that compare answers: those of the semantic cache with those of jobs that ran all the same, and shadows.

A shadow is another pool's answer to a job of a sample of a rule's jobs. No job waits for these sweeps.
"""

import logging
from typing import Any

from sqlalchemy import Row

from headrace.config import Settings
from headrace.domain.queues import OVERFLOW, Lane, Overflow, Route, queue_name
from headrace.domain.states import JobState
from headrace.logging import named
from headrace.policies.routing import shadow_pool
from headrace.policies.routing.agreement import agree, read_alike
from headrace.store import apps, locks
from headrace.store.cache import semantic_cache, semantic_matches
from headrace.store.cache.exact_cache import ENDED_WELL
from headrace.store.cache.semantic_matches import Due
from headrace.store.jobs import shadows
from headrace.store.jobs.shadows import Shadow, Verdict
from scheduler.deps import ControlDeps

log = logging.getLogger(__name__)


def judge_matches(deps: ControlDeps) -> int:
    """Compare the answers of jobs that ran although the semantic cache had an answer.

    Bound: one sweep after a job's end, and half of the time that it took to get there. The sweep is repeated at once
    where it found `semantic_matches.JUDGE_ROWS`.
    """
    with deps.store.begin() as db:
        locks.take(db, "judge_matches")
        found = semantic_matches.due(db)
        if not found:
            return 0
        waiting = [each.job_id for each in found if not each.has_ended]
        verdicts = {each.job_id: _is_right(each) for each in found if each.has_ended}
        right, wrong, void = (
            [job_id for job_id, verdict in verdicts.items() if verdict is wanted] for wanted in (True, False, None)
        )
        semantic_matches.judged(db, right=right, wrong=wrong, void=void)
        semantic_matches.put_off(db, waiting)
    for each in found:
        if (is_right := verdicts.get(each.job_id)) is not None:
            deps.tallies.compared.add(each.pool, each.kind, "right" if is_right else "wrong")
    if verdicts:
        log.info("matches_judged", extra={"right": len(right), "wrong": len(wrong), "void": len(void)})
    return len(found)


def _is_right(due: Due) -> bool | None:
    """Whether both answers say the same; None if they cannot be compared."""
    if due.is_same is None:
        return None
    return due.is_same or (due.answers is not None and read_alike(*due.answers))


def forget_entries(deps: ControlDeps) -> int:
    """Delete entries of the semantic cache that are too old, serve nothing or are too many, and old matches.

    Bound: one sweep after that, which is repeated at once where it found `semantic_cache.FORGET_ROWS`.
    """
    pools = deps.settings.pools.items()
    keep_s = {name: pool.cache_s for name, pool in pools if pool.semantic_cache.pool is not None}
    with deps.store.begin() as db:
        locks.take(db, "forget_entries")
        return semantic_cache.forget_entries(db, keep_s) + semantic_matches.forget(db)


def start_shadows(deps: ControlDeps) -> int:
    """Start the shadows of ended jobs of the sample, a few at a time. No job waits for this.

    A crash leaves nothing: a shadow and its job's mark are one transaction, and `publish_due` pushes its message.
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
