"""Escalations: a job whose answer is not good enough goes on to the next pool of its rule, and keeps that answer.

The first attempt is booked as waste at once. If no better answer comes, the kept one ends the job: a second entry takes
the waste back, and the answer is billed as if it had ended the job at once. Entries never change.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection, Row

from headrace.domain.attempts import AttemptEnd, Claim, Escalation
from headrace.domain.prompts import storable, stored_calls
from headrace.domain.queues import Lane, Route, queue_name
from headrace.domain.states import JobState
from headrace.errors import PayloadUnreadable
from headrace.store.attempts import held_by, put_back, record, settle
from headrace.store.states import IS_UNSTARTED, UNSTARTED, transition
from headrace.tables import job_texts, jobs, ledger

#: The most jobs that one sweep ends with the answers that they have.
STAND_ROWS = 200
#: So long before a job's deadline the answer that it has is given: longer than a sweep takes to come.
BEFORE_DEADLINE = timedelta(seconds=2)
#: The `reason` of the first attempt's entry in the ledger, and of the entry that takes it back.
ESCALATED, KEPT = "escalated", "kept"

#: Columns of the ledger, and of the job, that a kept answer fills.
_BILLED = ("prompt_tokens", "cached_tokens", "output_tokens", "price_version", "api_usd", "model", "pool", "host_id")
_OF_JOB = ("finish_reason", "model_served", "prompt_tokens", "cached_tokens", "output_tokens", "reasoning_tokens")


def escalate(db: Connection, claim: Claim, end: AttemptEnd, to: Escalation) -> JobState | None:
    """Put the job into the next pool's queue, and keep its answer. Args: end: as if the answer ended the job.

    Returns: the job's new state, `waiting` or `cancelled`; None, with nothing written, if the claim no longer holds.
    """
    now = sa.func.now()
    values: dict[str, Any] = {name: getattr(to, name) for name in ("pool", "queue", "route")}
    if to.route is Route.OVERFLOW:
        values["overflow_at"] = sa.func.coalesce(jobs.c.overflow_at, now)
    state = put_back(
        db,
        claim,
        not_before=now,
        model_requested=to.model,
        route_reason=to.reason,
        stand_by=sa.func.least(now + timedelta(seconds=to.wait_s), jobs.c.finish_by - BEFORE_DEADLINE),
        **values,
    )
    if state is None:
        return None
    waste = replace(end, kind="waste", reason=ESCALATED, escalated_by=to.signal, saved_usd=None)
    record(db, (claim, waste))
    settle(db, (claim, end))
    kept = sa.update(job_texts).where(job_texts.c.job_id == claim.job_id)
    db.execute(kept.values(kept_answer=_kept(claim, end)))
    return state


def _kept(claim: Claim, end: AttemptEnd) -> dict[str, Any]:
    """The answer with its bill, as JSON."""
    return {
        "answer": storable(end.text or ""),
        "logprobs": None if end.logprobs is None else list(end.logprobs),
        "reasoning": storable(end.reasoning) or None,
        "tool_calls": stored_calls(end.tool_calls),
        "reasoning_tokens": end.usage.reasoning_tokens,
        "finish_reason": end.finish_reason,
        "model_served": end.model_served,
        "prompt_tokens": end.usage.prompt_tokens,
        "cached_tokens": end.usage.cached_tokens,
        "output_tokens": end.usage.output_tokens,
        "usd": str(end.cost.usd),
        "price_version": end.cost.price_version,
        "api_usd": None if end.api_usd is None else str(end.api_usd),
        "kind": end.kind,
        "attempt": claim.attempt,
        "pool": claim.pool,
        "route": claim.route,
        "model_requested": claim.model,
        "model": end.model_served or claim.model,
        "host_id": end.host_id,
    }


def stand_in(db: Connection, claim: Claim, end: AttemptEnd, reason: str) -> JobState | None:
    """End a running job with the answer that it has, because this attempt gave no better one.

    Args: end: of this attempt. reason: what the job's row says.
    Returns: the job's new state, `succeeded`; None, with nothing written, if the claim no longer holds.
    """
    if not _stand(db, [JobState.RUNNING], reason, *held_by(claim)):
        return None
    record(db, (claim, replace(end, kind="waste")))
    settle(db, (claim, end))
    return JobState.SUCCEEDED


def overdue(db: Connection, *conditions: ColumnElement[bool]) -> Sequence[Row[Any]]:
    """Lock and return the ids of at most `STAND_ROWS` jobs that have waited long enough for a better answer."""
    these = (IS_UNSTARTED, jobs.c.stand_by.is_not(None), jobs.c.stand_by <= sa.func.now(), *conditions)
    first = sa.select(jobs.c.id).where(*these).order_by(jobs.c.stand_by).limit(STAND_ROWS)
    return db.execute(first.with_for_update(skip_locked=True)).all()


def stand(db: Connection, found: Sequence[Row[Any]]) -> list[Row[Any]]:
    """End waiting jobs with the answers that they have. Args: found: from `overdue`, in the same transaction.

    Returns: their rows as they were, for their tickets.
    """
    reason = "no better answer came in time"
    return [row for each in found for row in _stand(db, UNSTARTED, reason, jobs.c.id == each.id)]


def _stand(db: Connection, sources: Sequence[JobState], reason: str, *which: ColumnElement[bool]) -> list[Row[Any]]:
    """End the job, if it is in `sources` and has an answer. Returns: its row as it was. Raises: PayloadUnreadable."""
    joined = sa.select(jobs, job_texts.c.kept_answer).join(job_texts, job_texts.c.job_id == jobs.c.id)
    these = (jobs.c.state.in_(sources), jobs.c.stand_by.is_not(None), job_texts.c.kept_answer.is_not(None), *which)
    # Both rows: an answer that is erased meanwhile must not come back.
    found = db.execute(joined.where(*these).with_for_update(of=[jobs, job_texts])).all()
    for row in found:
        try:
            _give(db, row, sources, reason)
        except (KeyError, TypeError, ArithmeticError) as error:
            raise PayloadUnreadable(f"The job's kept answer is malformed ({type(error).__name__}).") from None
    return list(found)


def _give(db: Connection, row: Row[Any], sources: Sequence[JobState], reason: str) -> None:
    kept: Mapping[str, Any] = row.kept_answer
    values = {name: kept[name] for name in (*_OF_JOB, "pool", "model_requested", "route")}
    transition(
        db,
        sources,
        JobState.SUCCEEDED,
        jobs.c.id == row.id,
        by_key=True,
        # The attempt that answered, whose engine the job shows. The later ones keep their own rows.
        attempt=kept["attempt"],
        usd=Decimal(kept["usd"]),
        queue=queue_name(kept["pool"], Lane(row.lane)),
        route_reason=f"rule '{row.rule}': the answer of {kept['pool']} stands: {reason}"[:1000],
        error_code=None,
        error_message=None,
        **values,
    )
    texts = {"answer": kept["answer"], "logprobs_json": kept["logprobs"], "reasoning": kept["reasoning"]}
    texts["tool_calls"] = kept.get("tool_calls")  # An answer that an older release kept has none.
    db.execute(sa.update(job_texts).where(job_texts.c.job_id == row.id).values(**texts, kept_answer=None))
    _book(db, row, kept)


def _book(db: Connection, row: Row[Any], kept: Mapping[str, Any]) -> None:
    """Take the waste back, and bill the answer. The engine's seconds stay with the waste, so that they count once."""
    usd = Decimal(kept["usd"])
    whose = {"job_id": row.id, "attempt": kept["attempt"], "app_id": row.app_id, "end_user": row.end_user}
    bill = {name: kept[name] for name in _BILLED}
    taken_back = {name: kept[name] for name in ("pool", "model", "host_id", "price_version")}
    db.execute(sa.insert(ledger).values(**whose, **taken_back, kind="waste", usd=-usd, reason=KEPT))
    api_usd = None if kept["api_usd"] is None else Decimal(kept["api_usd"])
    db.execute(sa.insert(ledger).values(**whose, **(bill | {"api_usd": api_usd}), kind=kept["kind"], usd=usd))
