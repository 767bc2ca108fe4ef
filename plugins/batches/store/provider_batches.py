"""The provider's batch tier: lines of batches that a provider answers as batches of its own.

`api/batches` gathers the lines of each; `workers/batch_tier.py` sends it, asks for it, and settles its lines. Only the
worker that holds its lease moves it on: each step is a compare-and-set on its state and its lease.

The jobs of its lines wait until their money is reserved, and then run, with its id as their worker's. No worker of
`workers` has that id, so `rescue` leaves them alone.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection, Row

from headrace.domain.attempts import AttemptEnd, Claim, Usage
from headrace.domain.ids import new_id
from headrace.domain.limits import Cost, Lack, Limits
from headrace.domain.queues import Lane, Route, parts_of, wanted_queue
from headrace.domain.states import JobState
from headrace.store import attempts
from headrace.store.money import budgets
from headrace.store.money.budgets import PaidCall
from headrace.store.sql import is_one_of
from headrace.store.states import transition
from headrace.tables import attempts as attempts_table
from headrace.tables import job_texts, jobs, ledger
from plugins.batches import store as batches
from plugins.batches.domain import BatchState, Line, ProviderBatch, ProviderState
from plugins.batches.provider_lines import BATCH_TIER
from plugins.batches.store import IS_SUBMITTED, is_job_of
from plugins.batches.tables import batch_lines, provider_batches
from plugins.batches.tables import batches as batches_table

#: How long the jobs of lines wait for the provider's batch to be sent. Then they go to their own queues.
HOLD = timedelta(hours=1)
#: Jobs that one transaction reserves money for, and lines that one transaction settles or hands back.
CLAIM_ROWS, PAGE_ROWS = 200, 100
#: The `reason` of what a provider billed and did not return.
UNRETURNED = "unreturned"
_IS_OPEN = provider_batches.c.state != sa.literal("ended", literal_execute=True)
_ENGINE = "openai"
_READ = sa.select(
    provider_batches,
    batches_table.c.state.label("batch_state"),
    batches_table.c.app_id.label("app_id"),
    sa.func.now().label("read_at"),
).join(batches_table, batches_table.c.id == provider_batches.c.batch_id)
_SAME = (
    *("id", "batch_id", "app_id", "model", "created_at", "read_at", "file_id", "provider_id", "status"),
    *("asks", "asked_at", "sent_at", "cancel_asked_at", "lines", "answered", "unreturned_usd", "error"),
)


# The side that gathers lines.


def was_begun_within(db: Connection, batch_id: UUID, age: timedelta) -> bool:
    """Whether lines of this batch were chosen for the provider so lately."""
    these = (provider_batches.c.batch_id == batch_id, provider_batches.c.created_at > sa.func.now() - age)
    return bool(db.scalar(sa.select(sa.exists().where(*these))))


def take_lines(db: Connection, batch_id: UUID, model: str, limit: int) -> list[Line]:
    """The next lines of a batch, for the provider's batch that gathers them, which is begun if need be.

    Args: as `batches.take_lines`. model: what their jobs name.
    """
    if not (taken := batches.take_lines(db, batch_id, limit)):
        return []
    is_gathering = (provider_batches.c.batch_id == batch_id, provider_batches.c.state == ProviderState.GATHERING)
    its = db.scalar(sa.select(provider_batches.c.id).where(*is_gathering).limit(1).with_for_update())
    if its is None:
        its = new_id()
        db.execute(sa.insert(provider_batches).values(id=its, batch_id=batch_id, model=model))
    these = (batch_lines.c.batch_id == batch_id, batch_lines.c.number.in_([line.number for line in taken]))
    db.execute(sa.update(batch_lines).where(*these).values(provider_batch_id=its))
    return taken


def close(db: Connection, batch_id: UUID) -> None:
    """Let the provider's batches of this batch go: they have all their lines."""
    these = (provider_batches.c.batch_id == batch_id, provider_batches.c.state == ProviderState.GATHERING)
    db.execute(sa.update(provider_batches).where(*these).values(state=ProviderState.READY))


def lines_at_provider(db: Connection, batch_ids: Collection[UUID]) -> dict[UUID, int]:
    """By batch, how many of its lines are on their way to the provider, or there."""
    these = (is_one_of(batch_lines.c.batch_id, batch_ids), IS_SUBMITTED, batch_lines.c.provider_batch_id.is_not(None))
    counts = sa.select(batch_lines.c.batch_id, sa.func.count().label("lines")).where(*these)
    return {row.batch_id: row.lines for row in db.execute(counts.group_by(batch_lines.c.batch_id))}


# The side that sends and settles.


def lease(db: Connection, runner_id: UUID, lease_s: float) -> list[ProviderBatch]:
    """Take over the provider's batches that no worker moves on, and keep those of this one. The oldest come first."""
    values = {"runner_id": runner_id, "lease_until": sa.func.now() + timedelta(seconds=lease_s)}
    is_mine = (_IS_OPEN, provider_batches.c.runner_id == runner_id)
    db.execute(sa.update(provider_batches).where(*is_mine).values(values))
    is_free = sa.or_(provider_batches.c.runner_id.is_(None), provider_batches.c.lease_until < sa.func.now())
    free = sa.select(provider_batches.c.id).where(_IS_OPEN, is_free).with_for_update(skip_locked=True)
    db.execute(sa.update(provider_batches).where(provider_batches.c.id.in_(free)).values(values))
    return [_read(row) for row in db.execute(_READ.where(*is_mine).order_by(provider_batches.c.id))]


def release(db: Connection, runner_id: UUID) -> None:
    """Give up all of a worker that ends."""
    is_mine = (_IS_OPEN, provider_batches.c.runner_id == runner_id)
    db.execute(sa.update(provider_batches).where(*is_mine).values(runner_id=None, lease_until=None))


def find(db: Connection, provider_batch_id: UUID) -> ProviderBatch:
    """One by its id, which exists."""
    return _read(db.execute(_READ.where(provider_batches.c.id == provider_batch_id)).one())


def of_batch(db: Connection, batch_id: UUID) -> list[ProviderBatch]:
    """Those that lines of this batch went to, oldest first."""
    asked = _READ.where(provider_batches.c.batch_id == batch_id).order_by(provider_batches.c.id)
    return [_read(row) for row in db.execute(asked)]


def move(db: Connection, batch: ProviderBatch, runner_id: UUID, state: ProviderState, **values: Any) -> bool:
    """Move it on, or note what the provider said. Returns: False if another worker moves it on now."""
    these = (
        provider_batches.c.id == batch.id,
        provider_batches.c.runner_id == runner_id,
        provider_batches.c.state == batch.state,
    )
    if state is ProviderState.ENDED:
        values["ended_at"] = sa.func.now()
    return bool(db.execute(sa.update(provider_batches).where(*these).values(state=state, **values)).rowcount)


def claim(db: Connection, batch: ProviderBatch, reason: str) -> list[Claim]:
    """Begin attempts of jobs that wait for it, at most `CLAIM_ROWS`: they run from now on.

    Those that have a deadline, or that were asked to end, are left to their own queues.
    """
    chosen = sa.select(jobs.c.id).join(batch_lines, is_job_of(batch.batch_id))
    chosen = chosen.where(
        batch_lines.c.provider_batch_id == batch.id,
        jobs.c.state + "" == JobState.WAITING,
        jobs.c.not_before > sa.func.now(),
        jobs.c.finish_by.is_(None),
        jobs.c.cancel_requested_at.is_(None),
    )
    job_ids = db.scalars(chosen.limit(CLAIM_ROWS).with_for_update(of=jobs, skip_locked=True)).all()
    rows = transition(
        db,
        [JobState.WAITING],
        JobState.RUNNING,
        is_one_of(jobs.c.id, job_ids),
        worker_id=batch.id,
        attempt=jobs.c.attempt + 1,
        started_at=sa.func.coalesce(jobs.c.started_at, sa.func.now()),
        route=Route.OVERFLOW,
        route_reason=reason,
        overflow_at=sa.func.coalesce(jobs.c.overflow_at, sa.func.now()),
        not_before=None,
    )
    begun = [
        {"job_id": row.id, "number": row.attempt, "worker_id": batch.id, "engine": _ENGINE, "started_at": sa.func.now()}
        for row in rows
    ]
    if begun:
        db.execute(sa.insert(attempts_table).values(begun))
    return claims(db, batch, [row.id for row in rows])


def claims(db: Connection, batch: ProviderBatch, job_ids: Collection[UUID]) -> list[Claim]:
    """The claims of those of these jobs that run there."""
    return _claims(db, batch, is_one_of(jobs.c.id, job_ids))


def running(db: Connection, batch: ProviderBatch, after: UUID | None) -> list[Claim]:
    """The claims of the next `PAGE_ROWS` jobs that run there, by their ids. Args: after: the last job's before."""
    return _claims(db, batch, jobs.c.id > (after or UUID(int=0)), most=PAGE_ROWS)


def _claims(db: Connection, batch: ProviderBatch, *conditions: sa.ColumnElement[bool], most: int = 0) -> list[Claim]:
    asked = (
        sa.select(jobs, job_texts.c.messages, job_texts.c.sampling, attempts_table.c.reserved_usd)
        .join(job_texts, job_texts.c.job_id == jobs.c.id)
        .join(
            attempts_table,
            sa.and_(attempts_table.c.job_id == jobs.c.id, attempts_table.c.number == jobs.c.attempt),
        )
        .where(jobs.c.state == sa.literal("running", literal_execute=True), jobs.c.worker_id == batch.id, *conditions)
        .order_by(jobs.c.id)
    )
    rows = db.execute(asked.limit(most) if most else asked)
    return [replace(attempts.claim_of(row), reserved_usd=row.reserved_usd) for row in rows]


def count_running(db: Connection, batch: ProviderBatch) -> int:
    """How many of its jobs run there."""
    theirs = (jobs.c.state == sa.literal("running", literal_execute=True), jobs.c.worker_id == batch.id)
    return db.scalar(sa.select(sa.func.count()).select_from(jobs).where(*theirs)) or 0


def reserve(db: Connection, asked: Sequence[tuple[Claim, Decimal]], configured: Limits) -> dict[UUID, Lack]:
    """Reserve the maximum cost of each claim's line, in the transaction that made the claims; see `budgets.reserve`."""
    calls = [PaidCall(claim.job_id, claim.attempt, claim.app_id, usd) for claim, usd in asked]
    return budgets.reserve(db, calls, configured)


def give_back(
    db: Connection, batch: ProviderBatch, ends: Sequence[tuple[Claim, AttemptEnd]], paid_pools: Collection[str]
) -> list[Claim]:
    """Send jobs to their own queues, as if they had never been at the provider. One that was to be cancelled ends.

    Args: paid_pools: the pools that only the paid API answers. Returns: those that ended.
    """
    if not ends:
        return []
    is_unwanted = (is_one_of(jobs.c.id, _ids(ends)), jobs.c.cancel_requested_at.is_not(None))
    over = transition(db, [JobState.RUNNING], JobState.CANCELLED, jobs.c.worker_id == batch.id, *is_unwanted)
    cancelled = {row.id for row in over}
    by_way: dict[tuple[str, Route, str], list[UUID]] = defaultdict(list)
    for one, end in ends:
        queue = wanted_queue(one.pool, Lane.BATCH, one.overflow, paid_pools)
        route = Route.POOL if parts_of(queue)[0] == one.pool else Route.OVERFLOW
        # The code alone: a provider's message may quote a prompt, which analysts may not read.
        by_way[queue, route, f"back from the provider's batch tier: {end.error_code}"].append(one.job_id)
    back = set[UUID]()
    for (queue, route, why), job_ids in by_way.items():
        values = {"queue": queue, "route": route, "route_reason": why, "attempt": jobs.c.attempt - 1}
        values |= {"not_before": sa.func.now(), "started_at": sa.case((jobs.c.attempt > 1, jobs.c.started_at))}
        # One that a cancel has reached meanwhile would never be claimed again: it is left to the next call.
        these = (jobs.c.worker_id == batch.id, is_one_of(jobs.c.id, job_ids), jobs.c.cancel_requested_at.is_(None))
        back |= {row.id for row in transition(db, [JobState.RUNNING], JobState.WAITING, *these, **values)}
    _book(db, [each for each in ends if each[0].job_id in back | cancelled], back)
    if batch.state is ProviderState.READY:
        # Its jobs are chosen by this mark, and these must not be chosen again.
        marked = (batch_lines.c.provider_batch_id == batch.id, is_one_of(batch_lines.c.job_id, _ids(ends)))
        db.execute(sa.update(batch_lines).where(*marked).values(provider_batch_id=None))
    return [one for one, _ in ends if one.job_id in cancelled]


def _book(db: Connection, ends: Sequence[tuple[Claim, AttemptEnd]], back: Collection[UUID]) -> None:
    """Book what the attempts cost, and release what was reserved. Those of jobs that went back are not counted.

    For all in a few statements: settling locks the budgets' rows, for which other calls wait.
    """
    attempts.record(db, *(each for each in ends if each[0].job_id not in back or each[1].cost.usd))
    attempts.settle(db, *ends)
    gone = [(one.job_id, one.attempt) for one, _ in ends if one.job_id in back]
    if gone:
        its = sa.tuple_(attempts_table.c.job_id, attempts_table.c.number)
        db.execute(sa.delete(attempts_table).where(its.in_(gone)))


def _ids(ends: Sequence[tuple[Claim, AttemptEnd]]) -> list[UUID]:
    return [one.job_id for one, _ in ends]


def booked(db: Connection, batch: ProviderBatch) -> tuple[int, Usage]:
    """How many of its lines the ledger has answers of, and the tokens that it has of all."""
    answers = sa.func.count().filter(ledger.c.kind == sa.literal("api", literal_execute=True))
    sums = (sa.func.sum(ledger.c[name]) for name in ("prompt_tokens", "output_tokens", "cached_tokens"))
    asked = sa.select(answers, *(sa.func.coalesce(each, 0) for each in sums)).join(
        batch_lines, batch_lines.c.job_id == ledger.c.job_id
    )
    is_its = (batch_lines.c.provider_batch_id == batch.id, ledger.c.price_version.endswith(f"/{BATCH_TIER}"))
    answered, *tokens = map(int, db.execute(asked.where(*is_its)).one())
    return answered, Usage(*tokens)


def book_unreturned(db: Connection, batch: ProviderBatch, model: str, usage: Usage, cost: Cost) -> None:
    """Book what the provider billed beyond the lines' answers, as waste of the batch's app, against its budgets."""
    entry = {
        "kind": "waste",
        "app_id": batch.app_id,
        "model": model,
        "prompt_tokens": usage.prompt_tokens,
        "cached_tokens": usage.cached_tokens,
        "output_tokens": usage.output_tokens,
        "usd": cost.usd,
        "price_version": cost.price_version,
        "reason": UNRETURNED,
    }
    db.execute(sa.insert(ledger).values(entry))
    budgets.spend(db, PaidCall(batch.id, 0, batch.app_id, cost.usd))


class OpenProviderBatches(NamedTuple):
    """What is under way.

    Attributes:
        counts: by state.
        oldest_s, unsent_s: the age of the oldest, and of the oldest that is not sent; 0 without any.
    """

    counts: Mapping[ProviderState, int]
    oldest_s: float
    unsent_s: float


def under_way(db: Connection) -> OpenProviderBatches:
    """What has not ended."""
    rows = db.execute(
        sa.select(
            provider_batches.c.state,
            sa.func.count().label("number"),
            sa.func.extract("epoch", sa.func.now() - sa.func.min(provider_batches.c.created_at)).label("oldest_s"),
        )
        .where(_IS_OPEN)
        .group_by(provider_batches.c.state)
    ).all()
    counts = {ProviderState(row.state): row.number for row in rows}
    ages = {row.state: float(row.oldest_s) for row in rows}
    unsent_s = max((ages.get(state, 0.0) for state in _UNSENT), default=0.0)
    counted: dict[ProviderState, int] = {state: counts.get(state, 0) for state in _OPEN}
    return OpenProviderBatches(counted, max(ages.values(), default=0.0), unsent_s)


_OPEN = tuple(state for state in ProviderState if state is not ProviderState.ENDED)
_UNSENT = (ProviderState.READY, ProviderState.RESERVED, ProviderState.UPLOADED)


def _read(row: Row[Any]) -> ProviderBatch:
    values = {name: getattr(row, name) for name in _SAME}
    return ProviderBatch(**values, batch_state=BatchState(row.batch_state), state=ProviderState(row.state))
