"""The statements of an attempt, built once: to build one takes longer than Postgres takes to carry it out.

What changes is a parameter; `given_as` gives them their names.
"""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy import BindParameter, ColumnElement, Insert, Select, Update

from headrace.jobs import TERMINAL, TRANSITIONS, JobState
from headrace.store.transitions import ANNOUNCED, moving
from headrace.tables import attempts, job_texts, jobs, ledger, workers

#: What a claim reads of the job's row.
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
    ),
)
#: What the end of an attempt says of its job.
_KEPT = ("output_tokens", "cached_tokens", "finish_reason", "model_served", "error_code", "error_message")
#: Columns of the ledger and of `attempts` that say the same of an attempt.
_USED = ("prompt_tokens", "cached_tokens", "output_tokens", "engine_s")
_ENTRY = (
    *("kind", "job_id", "attempt", "app_id", "end_user", "pool", "model", "host_id"),
    *("kv_token_s", "usd", "price_version", "api_usd", "estimated"),
    *_USED,
)
_ENDED = ("outcome", "error_code", "model_served", "first_token_s", "preemptions", *_USED)


def given_as(values: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a statement here."""
    return {f"given_{name}": value for name, value in values.items()}


def _given(column: ColumnElement[Any], name: str | None = None) -> BindParameter[Any]:
    # SQLAlchemy keeps the bare names of columns for itself.
    return sa.bindparam(f"given_{name or column.key}", type_=column.type)


#: The conditions under which a claim still holds.
_HELD = (
    jobs.c.id == _given(attempts.c.job_id),
    jobs.c.worker_id == _given(jobs.c.worker_id),
    jobs.c.attempt == _given(jobs.c.attempt),
    # A number that was handed back is given out again, to the same worker perhaps.
    jobs.c.enqueue_no == _given(jobs.c.enqueue_no),
)


def _claim() -> Select[Any]:
    worker_id = _given(jobs.c.worker_id)
    alive = sa.select(workers.c.id).where(workers.c.id == worker_id, workers.c.lease_until > sa.func.now())
    claimed = (
        moving(
            [JobState.QUEUED],
            JobState.RUNNING,
            jobs.c.id == _given(attempts.c.job_id),
            jobs.c.enqueue_no == _given(jobs.c.enqueue_no),
            jobs.c.cancel_requested_at.is_(None),
            sa.or_(jobs.c.started_at.is_not(None), jobs.c.start_by > sa.func.now()),
            sa.or_(jobs.c.finish_by.is_(None), jobs.c.finish_by > sa.func.now()),
            alive.exists(),
            worker_id=worker_id,
            attempt=jobs.c.attempt + 1,
            started_at=sa.func.coalesce(jobs.c.started_at, sa.func.now()),
        )
        .returning(*(jobs.c[name] for name in _CLAIMED))
        .cte("claimed")
    )
    attempt = sa.select(claimed.c.id, claimed.c.attempt, claimed.c.worker_id, _given(attempts.c.engine), sa.func.now())
    begun = sa.insert(attempts).from_select(["job_id", "number", "worker_id", "engine", "started_at"], attempt)
    statement = sa.select(claimed, job_texts.c.messages, job_texts.c.sampling).add_cte(begun.cte("begun"))
    return statement.join_from(claimed, job_texts, job_texts.c.job_id == claimed.c.id)


def _finish(target: JobState) -> Select[Any]:
    prompt_tokens = sa.func.nullif(_given(jobs.c.prompt_tokens), 0)
    moved = (
        moving(
            [JobState.RUNNING],
            target,
            *_HELD,
            usd=_given(jobs.c.usd, "charged_usd"),
            prompt_tokens=sa.func.coalesce(prompt_tokens, jobs.c.prompt_tokens),
            **{name: _given(jobs.c[name]) for name in _KEPT},
        )
        .returning(*(jobs.c[name] for name in ANNOUNCED))
        .cte("moved")
    )
    still_held = sa.select(moved.c.id).exists()
    answer = _given(job_texts.c.answer)
    answered = sa.update(job_texts).where(job_texts.c.job_id == _given(attempts.c.job_id), still_held)
    return sa.select(moved).add_cte(
        _end_attempt().where(still_held).cte("ended"),
        _book(still_held).cte("booked"),
        answered.where(answer.is_not(None)).values(answer=answer).cte("answered"),
    )


def _end_attempt() -> Update:
    """End the attempt's row."""
    this = attempts.c.job_id == _given(attempts.c.job_id), attempts.c.number == _given(jobs.c.attempt)
    ended = {name: _given(attempts.c[name]) for name in _ENDED}
    return sa.update(attempts).where(*this).values(ended_at=sa.func.now(), **ended)


def _book(*conditions: ColumnElement[bool]) -> Insert:
    """Write the attempt's entry into the ledger, where the conditions hold."""
    entry = sa.select(*(_given(ledger.c[name]) for name in _ENTRY)).where(*conditions)
    return sa.insert(ledger).from_select(list(_ENTRY), entry)


CLAIM = _claim()
#: Locks the job's row while its claim holds.
HOLD = sa.select(jobs.c.id).where(jobs.c.state == JobState.RUNNING, *_HELD).with_for_update()
#: By the state in which the job ends.
FINISH = {target: _finish(target) for target in TRANSITIONS[JobState.RUNNING] & TERMINAL}
BOOK = sa.select(sa.literal(1)).add_cte(_book().cte("booked"))
RECORD = BOOK.add_cte(_end_attempt().cte("ended"))
