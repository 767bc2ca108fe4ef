"""Attempts: claim a job, and end the attempt with its result and its bill, but only while the claim holds."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection

from headrace.domain.attempts import AS_BEFORE, NOTHING_USED, AttemptEnd, Claim, HandBack
from headrace.domain.choices import Choice
from headrace.domain.limits.budgets import Lack, Limits
from headrace.domain.prompts import Message, Sampling, storable, storable_calls, stored_calls
from headrace.domain.prompts.payloads import read_payload
from headrace.domain.queues import Lane, Overflow, Route
from headrace.domain.states import JobState, check_transition
from headrace.errors import PayloadUnreadable
from headrace.store.jobs.transitions import announce, transition
from headrace.store.money import reservations
from headrace.store.money.reservations import PaidCall
from headrace.store.session import Store
from headrace.store.sql import Statement
from headrace.tables import attempts, jobs

#: The fields that identify a claim.
_RIGHT = ("job_id", "worker_id", "attempt", "enqueue_no")
#: Fields that a claim copies unchanged from the job's row.
_AS_STORED = (
    *("attempt", "enqueue_no", "worker_id", "app_id", "end_user", "pool", "max_cost_usd", "prompt_tokens"),
    *("start_by", "finish_by", "stream", "suspicion", "adapter", "rule", "stand_by", "shadow_of"),
)

_CLAIM, _HOLD, _FINISH, _RECORD = map(Statement, ("claim", "hold", "finish", "record"))


def claim(db: Connection, job_id: UUID, enqueue_no: int, worker_id: UUID, engine: str) -> Claim | None:
    """Claim a queued job. None if it cannot be claimed: another worker took it, it ended, or its time has passed.

    The worker's own lease must be valid, else `rescue` would take the job away at once. One statement, which needs no
    transaction around it.
    """
    row = claim_all(db, {job_id: enqueue_no}, worker_id, engine).get(job_id)
    return None if row is None else claim_of(row)


def claim_all(
    where: Connection | Store, asked: Mapping[UUID, int], worker_id: UUID, engine: str, *, is_before_disk: bool = False
) -> dict[UUID, Any]:
    """Like `claim` for several messages, `{job id: enqueue_no}`. Returns: the claimed rows, each for `claim_of`.

    Args:
        where: a transaction; or a store, where the claims are one by themselves and cost less.
        is_before_disk: returns a moment earlier; the claims are durable after `Store.wait_for_disk`.
    """
    by_whom = {"worker_id": worker_id, "engine": engine}
    given = [{"job_id": job_id, "enqueue_no": enqueue_no, **by_whom} for job_id, enqueue_no in asked.items()]
    return {row.id: row for row in _CLAIM.run_by_month(where, given, is_before_disk=is_before_disk)}


def claim_of(row: Any) -> Claim:
    """The claim in a row of `claim_all`; also of a job whose prompt this process cannot read."""
    messages, sampling, unread = _payload(row)
    return Claim(
        **{name: getattr(row, name) for name in _AS_STORED},
        job_id=row.id,
        lane=Lane(row.lane),
        model=row.model_requested,
        overflow=Overflow(row.overflow),
        messages=messages,
        sampling=sampling,
        has_webhook=row.webhook_url is not None,
        route=Route(row.route),
        unread=unread,
    )


def _payload(row: Any) -> tuple[tuple[Message, ...], Sampling, PayloadUnreadable | None]:
    try:
        return *read_payload(row.messages, row.sampling), None
    except PayloadUnreadable as error:
        return (), Sampling(max_tokens=1), error


def held_by(claim: Claim) -> tuple[ColumnElement[bool], ...]:
    """The conditions under which this claim still holds."""
    this = (jobs.c.id == claim.job_id, jobs.c.worker_id == claim.worker_id, jobs.c.attempt == claim.attempt)
    # An attempt's number that was handed back is used again, perhaps by the same worker.
    return (*this, jobs.c.enqueue_no == claim.enqueue_no)


def reserve(db: Connection, claim: Claim, usd: Decimal, configured: Limits) -> Claim | Lack | None:
    """Reserve the maximum cost of this attempt's call to the paid API.

    Returns: the claim with its reservation, or why the budgets do not pay; None if the claim no longer holds.
    """
    return reserve_all(db, [(claim, usd)], configured).get(claim.job_id)


def reserve_all(db: Connection, asked: Sequence[tuple[Claim, Decimal]], configured: Limits) -> dict[UUID, Claim | Lack]:
    """Like `reserve` for several attempts. Returns: the result by job; a claim that no longer holds is absent."""
    claims = [{name: getattr(claim, name) for name in _RIGHT} for claim, _ in asked]
    held = {row.id for row in _HOLD.run_by_month(db, claims)}
    calls = [PaidCall(claim.job_id, claim.attempt, claim.app_id, usd) for claim, usd in asked if claim.job_id in held]
    lacking = reservations.reserve(db, calls, configured)
    paid = {claim.job_id: replace(claim, reserved_usd=usd) for claim, usd in asked if claim.job_id in held}
    return {**paid, **lacking}


def settle(db: Connection, *ends: tuple[Claim, AttemptEnd]) -> None:
    """Settle the attempts' reservations, in the transaction that has moved their jobs.

    The attempts' rows say what was reserved, not the claims: the reply to a reservation can be lost.
    """
    paid = [(claim, end.cost.usd) for claim, end in ends if claim.route is Route.OVERFLOW]
    reservations.settle(db, [PaidCall(claim.job_id, claim.attempt, claim.app_id, usd) for claim, usd in paid])


def finish(db: Connection, claim: Claim, target: JobState, end: AttemptEnd) -> bool:
    """End the job with this attempt: state, result, ledger entry and webhook row.

    One statement, which needs no transaction around it unless the job has a webhook or a reservation.
    Returns: False, with nothing written, if the claim no longer holds: the job is then no longer this worker's.
    """
    return claim.job_id in finish_all(db, target, [(claim, end)])


def finish_all(where: Connection | Store, target: JobState, ends: Sequence[tuple[Claim, AttemptEnd]]) -> set[UUID]:
    """Like `finish` for several jobs that end in the same state. Returns: the jobs whose claims held.

    Args: where: a transaction; or a store, for jobs that have neither a webhook nor a reservation, and then cost less.
    """
    check_transition(JobState.RUNNING, target)
    rows = _FINISH.run_by_month(where, [_finished(claim, end) for claim, end in ends], state=str(target))
    ended = {row.id for row in rows}
    if isinstance(where, Connection):
        announce(where, rows)
        settle(where, *(each for each in ends if each[0].job_id in ended))
    return ended


def _finished(claim: Claim, end: AttemptEnd) -> dict[str, Any]:
    """The values to write for a job that ends with this attempt."""
    return _recorded(claim, end) | {
        "charged_usd": end.cost.usd if end.kind != "waste" else Decimal(0),
        "finish_reason": end.finish_reason,
        "error_message": end.error_message and storable(end.error_message),
        "answer": end.text and storable(end.text),
        "logprobs_json": end.logprobs,
        "reasoning": storable(end.reasoning) or None,
        "tool_calls": stored_calls(end.tool_calls),
        "reasoning_tokens": end.usage.reasoning_tokens,
        "choices": [_storable(each).to_fields() for each in end.others] or None,
    }


def _storable(choice: Choice) -> Choice:
    text, reasoning = storable(choice.text), storable(choice.reasoning)
    return replace(choice, text=text, reasoning=reasoning, tool_calls=storable_calls(choice.tool_calls))


def retry(db: Connection, claim: Claim, end: AttemptEnd, delay_s: float) -> JobState | None:
    """Put the job back for another attempt after `delay_s`, and book this attempt.

    Returns: the job's new state, `waiting` or `cancelled`; None, with nothing written, if the claim no longer holds.
    """
    state = put_back(db, claim, not_before=sa.func.now() + timedelta(seconds=delay_s))
    if state is not None:
        record(db, claim, end)
        settle(db, (claim, end))
    return state


def hand_back(db: Connection, claim: Claim, end: AttemptEnd, how: HandBack = AS_BEFORE) -> JobState | None:
    """Hand the job back without counting the attempt. Returns: as `retry`.

    Tokens that the attempt used are booked as waste: the app does not pay for them, but a paid API charges for them.
    """
    reroute = how.reroute
    due = sa.func.now() + timedelta(seconds=reroute.delay_s if reroute else how.delay_s)
    values: dict[str, Any] = {
        "attempt": jobs.c.attempt - 1,
        "suspicion": jobs.c.suspicion + how.suspicion,
        "not_before": due,
    }
    if reroute is not None:
        values |= {"queue": reroute.queue, "route": reroute.route, "route_reason": reroute.reason}
    if how.needs_version is not None:
        values["needs_version"] = how.needs_version
    if reroute is not None or how.delay_s:
        values["started_at"] = sa.case((jobs.c.attempt > 1, jobs.c.started_at))
    state = put_back(db, claim, **values)
    if state is None:
        return None
    if state is JobState.CANCELLED:
        record(db, claim, end)
        settle(db, (claim, end))
        return state
    if end.usage != NOTHING_USED or end.cost.usd:
        record(db, claim, end)
    settle(db, (claim, end))
    db.execute(sa.delete(attempts).where(attempts.c.job_id == claim.job_id, attempts.c.number == claim.attempt))
    return state


def put_back(db: Connection, claim: Claim, **values: Any) -> JobState | None:
    """Move the job to `waiting`, or to `cancelled` if a cancel was requested: a worker would never claim it again.

    Returns: the job's new state; None if the claim no longer holds.
    """
    wanted = (*held_by(claim), jobs.c.cancel_requested_at.is_(None))
    if transition(db, [JobState.RUNNING], JobState.WAITING, *wanted, **values):
        return JobState.WAITING
    if transition(db, [JobState.RUNNING], JobState.CANCELLED, *held_by(claim)):
        return JobState.CANCELLED
    return None


def record(db: Connection, claim: Claim, end: AttemptEnd) -> None:
    """End the attempt's row and book its cost."""
    _RECORD.run_by_month(db, [_recorded(claim, end)])


def _recorded(claim: Claim, end: AttemptEnd) -> dict[str, Any]:
    """The values of the attempt's row and of its ledger entry."""
    model_served = end.model_served and storable(end.model_served)
    return {
        **{name: getattr(claim, name) for name in (*_RIGHT, "app_id", "end_user", "pool")},
        "model": model_served or claim.model,
        "model_served": model_served,
        "host_id": end.host_id,
        "kind": end.kind,
        "outcome": end.outcome,
        "error_code": end.error_code,
        "prompt_tokens": end.usage.prompt_tokens,
        "cached_tokens": end.usage.cached_tokens,
        "output_tokens": end.usage.output_tokens,
        "engine_s": end.engine_s,
        "first_token_s": end.first_token_s,
        "preemptions": end.preemptions,
        "kv_token_s": (end.usage.prompt_tokens + end.usage.output_tokens) * end.engine_s,
        "usd": end.cost.usd,
        "price_version": end.cost.price_version,
        "api_usd": end.api_usd,
        "estimated": end.estimated,
        "original_tokens": end.original_tokens,
        "saved_usd": end.saved_usd,
        "reason": end.reason,
        "escalated_by": end.escalated_by,
    }
