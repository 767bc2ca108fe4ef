"""The statements of an attempt. They are built once, since building one takes longer than running it.

Each handles any number of attempts, so that threads can share one statement and its commit. Its one parameter is a JSON
list with an object per attempt. With one array per column, psycopg would need more time than Postgres for the rows.
"""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy import CTE, ColumnElement, Insert, Select, Update

from headrace.domain.states import TERMINAL, TRANSITIONS, JobState
from headrace.store.jobs.transitions import ANNOUNCED, moving
from headrace.store.statement import StatementByMonth, among, before_disk, rows_sent
from headrace.tables import attempts, job_texts, jobs, ledger, workers

#: The columns of the job's row that a claim reads.
_CLAIMED = (
    *("id", "app_id", "attempt", "enqueue_no", "worker_id", "end_user", "lane", "pool", "model_requested", "overflow"),
    *(
        "max_cost_usd",
        "prompt_tokens",
        "start_by",
        "finish_by",
        "webhook_url",
        "stream",
        "suspicion",
        "route",
        "adapter",
        "rule",
        "stand_by",
        "shadow_of",
    ),
)
#: The columns of `jobs` that the end of an attempt writes.
_KEPT = (
    *("output_tokens", "cached_tokens", "reasoning_tokens", "finish_reason"),
    *("model_served", "error_code", "error_message", "original_tokens"),
)
#: The columns of `job_texts` that it writes; without an answer, none.
_TEXTS = ("answer", "logprobs_json", "reasoning", "tool_calls", "choices")
#: Columns that the ledger and `attempts` share.
_USED = ("prompt_tokens", "cached_tokens", "output_tokens", "engine_s")
_ENTRY = (
    *("kind", "job_id", "attempt", "app_id", "end_user", "pool", "model", "host_id"),
    *("kv_token_s", "usd", "price_version", "api_usd", "estimated", "saved_usd", "reason"),
    *_USED,
)
_ENDED = ("outcome", "error_code", "model_served", "first_token_s", "preemptions", "escalated_by", *_USED)


def _given(columns: Mapping[str, ColumnElement[Any]]) -> CTE:
    """The parameter as a table with these columns' names and types.

    The condition on `enqueue_no` always holds. It makes the planner estimate one row, and so look up each job by key.
    With its default estimate for functions, it would scan whole tables while these are new and have no statistics.
    """
    typed = (sa.column(name, column.type) for name, column in columns.items())
    table = rows_sent("given", typed)
    return sa.select(table).where(table.c.enqueue_no.between(0, 2**31 - 1)).cte("given")


def _held(given: Any) -> tuple[ColumnElement[bool], ...]:
    """The conditions under which a claim still holds."""
    return (
        jobs.c.id == given.job_id,
        among(jobs.c.id),
        jobs.c.worker_id == given.worker_id,
        jobs.c.attempt == given.attempt,
        # An attempt's number that was handed back is used again, perhaps by the same worker.
        jobs.c.enqueue_no == given.enqueue_no,
    )


_RIGHT = {"job_id": jobs.c.id, **{name: jobs.c[name] for name in ("worker_id", "attempt", "enqueue_no")}}
_END = (
    {"charged_usd": jobs.c.usd}
    | {name: job_texts.c[name] for name in _TEXTS}
    | {name: jobs.c[name] for name in _KEPT}
    | {name: attempts.c[name] for name in _ENDED}
    | {name: ledger.c[name] for name in _ENTRY}
    | _RIGHT
)


def _claim(is_before_disk: bool) -> Select[Any]:
    asked = {name: jobs.c[name] for name in ("enqueue_no", "worker_id")}
    given = _given({"job_id": jobs.c.id, "engine": attempts.c.engine, **asked})
    alive = sa.select(workers.c.id).where(workers.c.id == given.c.worker_id, workers.c.lease_until > sa.func.now())
    claimed = (
        moving(
            [JobState.QUEUED],
            JobState.RUNNING,
            jobs.c.id == given.c.job_id,
            among(jobs.c.id),
            jobs.c.enqueue_no == given.c.enqueue_no,
            jobs.c.cancel_requested_at.is_(None),
            sa.or_(jobs.c.started_at.is_not(None), jobs.c.start_by > sa.func.now()),
            sa.or_(jobs.c.finish_by.is_(None), jobs.c.finish_by > sa.func.now()),
            alive.correlate(given).exists(),
            by_key=True,
            worker_id=given.c.worker_id,
            attempt=jobs.c.attempt + 1,
            started_at=sa.func.coalesce(jobs.c.started_at, sa.func.now()),
        )
        .returning(*(jobs.c[name] for name in _CLAIMED), given.c.engine)
        .cte("claimed")
    )
    attempt = sa.select(claimed.c.id, claimed.c.attempt, claimed.c.worker_id, claimed.c.engine, sa.func.now())
    begun = sa.insert(attempts).from_select(["job_id", "number", "worker_id", "engine", "started_at"], attempt)
    texts = job_texts.c.messages, job_texts.c.sampling
    statement = sa.select(claimed, *texts, *([before_disk()] if is_before_disk else [])).add_cte(begun.cte("begun"))
    is_text = sa.and_(job_texts.c.job_id == claimed.c.id, among(job_texts.c.job_id))
    return statement.join_from(claimed, job_texts, is_text)


def _finish(target: JobState) -> Select[Any]:
    given = _given(_END)
    prompt_tokens = sa.func.nullif(given.c.prompt_tokens, 0)
    moved = (
        moving(
            [JobState.RUNNING],
            target,
            *_held(given.c),
            by_key=True,
            usd=given.c.charged_usd,
            prompt_tokens=sa.func.coalesce(prompt_tokens, jobs.c.prompt_tokens),
            **{name: given.c[name] for name in _KEPT},
        )
        .returning(*(jobs.c[name] for name in ANNOUNCED))
        .cte("moved")
    )
    is_held = moved.c.id == given.c.job_id
    is_text = job_texts.c.job_id == given.c.job_id, among(job_texts.c.job_id)
    answered = sa.update(job_texts).where(*is_text, given.c.answer.is_not(None), is_held)
    return sa.select(moved).add_cte(
        _end_attempt(given, is_held).cte("ended"),
        _book(given, is_held).cte("booked"),
        answered.values({name: given.c[name] for name in _TEXTS}).cte("answered"),
    )


def _end_attempt(given: CTE, *conditions: ColumnElement[bool]) -> Update:
    """End the attempts' rows for which the conditions hold."""
    this_job = attempts.c.job_id == given.c.job_id, among(attempts.c.job_id)
    ended = {name: given.c[name] for name in _ENDED}
    return (
        sa.update(attempts)
        .where(*this_job, attempts.c.number == given.c.attempt, *conditions)
        .values(ended_at=sa.func.now(), **ended)
    )


def _book(given: CTE, *conditions: ColumnElement[bool]) -> Insert:
    """Write the ledger entries of the attempts for which the conditions hold."""
    entries = sa.select(*(given.c[name] for name in _ENTRY)).where(*conditions)
    return sa.insert(ledger).from_select(list(_ENTRY), entries)


def _record(*, ends: bool) -> Select[Any]:
    given = _given(_END)
    statement: Select[Any] = sa.select(sa.literal_column("1")).add_cte(_book(given).cte("booked"))
    return statement.add_cte(_end_attempt(given).cte("ended")) if ends else statement


def _hold() -> Select[Any]:
    given = _given(_RIGHT)
    # By the key, which leads to one month, not by the index of running jobs of each month.
    held = sa.select(jobs.c.id).join(given, sa.and_(*_held(given.c))).where(jobs.c.state + "" == JobState.RUNNING)
    return held.with_for_update(of=jobs)


CLAIM = StatementByMonth.of(_claim(is_before_disk=False))
CLAIM_BEFORE_DISK = StatementByMonth.of(_claim(is_before_disk=True))
#: Locks the jobs' rows while their claims hold.
HOLD = StatementByMonth.of(_hold())
#: By the jobs' final state.
FINISH = {target: StatementByMonth.of(_finish(target)) for target in TRANSITIONS[JobState.RUNNING] & TERMINAL}
BOOK = StatementByMonth.of(_record(ends=False))
RECORD = StatementByMonth.of(_record(ends=True))
