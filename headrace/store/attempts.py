"""Attempts: claim a job, and end the attempt with its result and its bill, but only while the claim holds.

A lost attempt's worker died before it could end it: the output is lost, and `lose` books it.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection, Row

from headrace.domain.answers import Choice
from headrace.domain.attempts import AS_BEFORE, NOTHING_USED, AttemptEnd, Claim, HandBack
from headrace.domain.limits import Cost, Lack, Limits
from headrace.domain.prompts import Message, Sampling, storable, storable_calls, stored_calls
from headrace.domain.prompts.payloads import read_payload
from headrace.domain.queues import Lane, Overflow, Route
from headrace.domain.states import JobState, check_transition
from headrace.errors import PayloadUnreadable
from headrace.store import Store
from headrace.store.money import budgets
from headrace.store.money.budgets import PaidCall
from headrace.store.sql import Statement, is_one_of
from headrace.store.states import announce, transition
from headrace.tables import attempts, jobs, ledger

#: The fields that identify a claim.
_RIGHT = ("job_id", "worker_id", "attempt", "enqueue_no")
#: Fields that a claim copies unchanged from the job's row.
_AS_STORED = (
    *("attempt", "enqueue_no", "worker_id", "app_id", "end_user", "pool", "max_cost_usd", "prompt_tokens"),
    *("start_by", "finish_by", "stream", "suspicion", "adapter", "rule", "stand_by", "shadow_of", "notes"),
)

#: `claim` and `finish` change the state: their SQL is in `headrace/store/states`.
_CLAIM, _HOLD, _FINISH, _RECORD = map(Statement, ("claim", "hold", "finish", "record"))


def claim_all(where: Connection | Store, asked: Mapping[UUID, int], worker_id: UUID, engine: str) -> dict[UUID, Any]:
    """Claim queued jobs, `{job id: enqueue_no}`: those that no other worker took, and that neither ended nor expired.

    The worker's own lease must be valid, else `rescue` would take the jobs away at once.
    Returns: the claimed rows, each for `claim_of`.

    Args:
        where: a transaction; or a store, where the claims are one by themselves, which does not wait for the disk.
    """
    by_whom = {"worker_id": worker_id, "engine": engine}
    given = [{"job_id": job_id, "enqueue_no": enqueue_no, **by_whom} for job_id, enqueue_no in asked.items()]
    return {row.id: row for row in _CLAIM.run_by_month(where, given, is_before_disk=isinstance(where, Store))}


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


def reserve_all(db: Connection, asked: Sequence[tuple[Claim, Decimal]], configured: Limits) -> dict[UUID, Claim | Lack]:
    """Reserve the maximum cost of each attempt's call to the paid API.

    Returns: by job, the claim with its reservation, or why the budgets do not pay; without claims that no longer hold.
    """
    claims = [{name: getattr(claim, name) for name in _RIGHT} for claim, _ in asked]
    held = {row.id for row in _HOLD.run_by_month(db, claims)}
    calls = [PaidCall(claim.job_id, claim.attempt, claim.app_id, usd) for claim, usd in asked if claim.job_id in held]
    lacking = budgets.reserve(db, calls, configured)
    paid = {claim.job_id: replace(claim, reserved_usd=usd) for claim, usd in asked if claim.job_id in held}
    return {**paid, **lacking}


def settle(db: Connection, *ends: tuple[Claim, AttemptEnd]) -> None:
    """Settle the attempts' reservations, in the transaction that has moved their jobs.

    The attempts' rows say what was reserved, not the claims: the reply to a reservation can be lost.
    """
    paid = [(claim, end.cost.usd) for claim, end in ends if claim.route is Route.OVERFLOW]
    budgets.settle(db, [PaidCall(claim.job_id, claim.attempt, claim.app_id, usd) for claim, usd in paid])


def finish_all(where: Connection | Store, target: JobState, ends: Sequence[tuple[Claim, AttemptEnd]]) -> set[UUID]:
    """End jobs with their attempts in one state: result, ledger entry, webhook row. Returns: those whose claims held.

    The others are no longer this worker's, and nothing is written about them.
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
        "notes": dict(end.notes) or None,
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
        record(db, (claim, end))
        settle(db, (claim, end))
    return state


def hand_back(db: Connection, claim: Claim, end: AttemptEnd, how: HandBack = AS_BEFORE) -> JobState | None:
    """Hand the job back without counting the attempt. Returns: as `retry`.

    Tokens that the attempt used are booked as waste: the app does not pay for them, but a paid API charges for them.
    The row of an attempt whose engine died stays, with a number below 1; that of any other is deleted.
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
        record(db, (claim, end))
        settle(db, (claim, end))
        return state
    if how.suspicion:
        settle(db, (claim, end))
        record(db, (_uncounted(db, claim), end))
        return state
    if end.usage != NOTHING_USED or end.cost.usd:
        record(db, (claim, end))
    settle(db, (claim, end))
    db.execute(sa.delete(attempts).where(attempts.c.job_id == claim.job_id, attempts.c.number == claim.attempt))
    return state


def _uncounted(db: Connection, claim: Claim) -> Claim:
    """Number the attempt 0, or one below the job's lowest, because the next attempt gets its present number."""
    mine = attempts.c.job_id == claim.job_id
    below = sa.select(sa.func.least(sa.func.min(attempts.c.number), 1) - 1).where(mine).scalar_subquery()
    renumbered = sa.update(attempts).where(mine, attempts.c.number == claim.attempt).values(number=below)
    return replace(claim, attempt=db.execute(renumbered.returning(attempts.c.number)).scalar_one())


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


def record(db: Connection, *ends: tuple[Claim, AttemptEnd]) -> None:
    """End the attempts' rows and book their costs."""
    _RECORD.run_by_month(db, [_recorded(claim, end) for claim, end in ends])


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
        "error_cause": end.error_cause,
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


@dataclass(frozen=True, slots=True)
class Loss:
    """A running job whose worker is dead, and the state that it goes to.

    Attributes:
        row: of `jobs`, from `jobs.orphans`.
        target: the job's next state; a job that goes to `waiting` is due at once.
        stands: True for one that goes to `waiting`, and is not tried again: the answer that it has stands.
        cost: of the attempt, without the cost of a call to the paid API.
    """

    row: Row[Any]
    target: JobState
    cost: Cost
    error_code: str | None = None
    error_message: str | None = None
    stands: bool = False


def lose(db: Connection, losses: Sequence[Loss]) -> list[PaidCall]:
    """Take running jobs from their dead workers: move each to its target and book its attempt as lost.

    A few statements for any number of jobs. Jobs that have ended meanwhile are skipped.
    Returns: the jobs' calls to the paid API, for `budgets.settle`. It is unknown whether these were answered, so
    they count with their maximum cost. Settle them last, to hold the locks on the budgets' rows briefly.
    """
    by_fate: dict[tuple[JobState, str | None, str | None, bool], list[Loss]] = defaultdict(list)
    for loss in losses:
        by_fate[loss.target, loss.error_code, loss.error_message, loss.stands].append(loss)
    taken = [loss for group in by_fate.values() for loss in _move(db, group)]
    if not taken:
        return []
    calls = [
        PaidCall(loss.row.id, loss.row.attempt, loss.row.app_id, None)
        for loss in taken
        if Route(loss.row.route) is Route.OVERFLOW
    ]
    _book(db, taken, _reserved_usd(db, calls))
    return calls


def _move(db: Connection, losses: Sequence[Loss]) -> list[Loss]:
    """Move jobs that share one target and one error. Returns: those that their dead workers still held."""
    one = losses[0]
    values: dict[str, Any] = {"error_code": one.error_code, "error_message": one.error_message}
    if one.target is JobState.WAITING:
        now = sa.func.now()
        values = {"not_before": None, "stand_by": now} if one.stands else {"not_before": now}
    held = [(loss.row.id, loss.row.worker_id, loss.row.attempt) for loss in losses]
    still = sa.tuple_(jobs.c.id, jobs.c.worker_id, jobs.c.attempt).in_(held)
    moved = {row.id for row in transition(db, [JobState.RUNNING], one.target, still, **values)}
    return [loss for loss in losses if loss.row.id in moved]


def _reserved_usd(db: Connection, calls: Sequence[PaidCall]) -> dict[UUID, Decimal]:
    """What is reserved for each call. It cannot change, since the jobs are locked."""
    if not calls:
        return {}
    these = is_one_of(attempts.c.job_id, [call.job_id for call in calls])
    rows = db.execute(sa.select(attempts.c.job_id, attempts.c.number, attempts.c.reserved_usd).where(these))
    found = {(row.job_id, row.number): row.reserved_usd for row in rows}
    return {call.job_id: found.get((call.job_id, call.number), Decimal(0)) for call in calls}


def _book(db: Connection, losses: Sequence[Loss], spent_usd: dict[UUID, Decimal]) -> None:
    """End the attempts, and book each as waste. The cost is an estimate, since the attempt's output is unknown."""
    these = sa.tuple_(attempts.c.job_id, attempts.c.number).in_([(each.row.id, each.row.attempt) for each in losses])
    db.execute(sa.update(attempts).where(these).values(outcome="lost", ended_at=sa.func.now()))
    entries = [
        {
            "kind": "waste",
            "job_id": row.id,
            "attempt": row.attempt,
            "app_id": row.app_id,
            "end_user": row.end_user,
            "pool": row.pool,
            "model": row.model_requested,
            "prompt_tokens": row.prompt_tokens,
            "usd": spent_usd.get(row.id, cost.usd),
            "price_version": cost.price_version,
            "estimated": True,
        }
        for row, cost in ((each.row, each.cost) for each in losses)
    ]
    db.execute(sa.insert(ledger), entries)
