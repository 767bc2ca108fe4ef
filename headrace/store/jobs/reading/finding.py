"""Finds jobs by their ids, with their texts, the last attempt's engine and the bill: what an app is shown of them."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from typing import Any, NamedTuple
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection, Select

from headrace.domain.choices import Choice
from headrace.domain.ids import show_id
from headrace.domain.jobs import Job
from headrace.domain.logprobs import StoredLogprobs
from headrace.domain.prompts.tools import ToolCall, Tools
from headrace.domain.queues import Lane, Overflow, Route
from headrace.domain.states import JobState
from headrace.errors import NotFound, PayloadUnreadable
from headrace.store.bad_rows import BadRows
from headrace.store.jobs.conditions import IS_LEADER_ENDED, IS_OVER, IS_OVER_ALONE
from headrace.store.session import Store
from headrace.store.statement import StatementByMonth, among, rows_sent
from headrace.tables import attempts, job_texts, jobs, ledger

#: The kinds of ledger entry that charge a job's owner.
BILLED = ("compute", "api", "cache")


def job_of(row: Any) -> Job:
    """The job in a row of `_SELECT_JOB` or `_SELECT_LISTED`. Raises: PayloadUnreadable."""
    values = {field.name: getattr(row, field.name) for field in fields(Job)}
    values |= {"state": JobState(row.state), "lane": Lane(row.lane)}
    values |= {"route": Route(row.route), "overflow": Overflow(row.overflow)}
    values["logprobs"] = None if row.logprobs is None else StoredLogprobs(row.logprobs)
    values["n"] = row.n or 1
    try:
        values["tool_calls"] = tuple(map(ToolCall.of, row.tool_calls or ()))
        values["tools"] = None if row.tools is None else Tools.of(row.tools)
        values["others"] = None if row.others is None else tuple(map(Choice.of, row.others))
    except (AttributeError, KeyError, TypeError) as error:
        what = f"The answer of '{show_id(row.id)}' is malformed, or a newer release wrote it"
        raise PayloadUnreadable(f"{what} ({type(error).__name__}).") from None
    return Job(**values)


def _of_job(table: sa.Table) -> ColumnElement[bool]:
    return sa.and_(table.c.job_id == jobs.c.id, among(table.c.job_id))


#: Literals, as in `conditions`, so that a generic plan can use the ledger's partial index.
SPELLED_BILLED = [sa.literal(kind, literal_execute=True) for kind in BILLED]
#: An inner join with the texts: an erased job has none and must not be found. The bill has at most one row.
_FROM = (
    jobs.join(job_texts, _of_job(job_texts))
    .outerjoin(attempts, sa.and_(_of_job(attempts), attempts.c.number == jobs.c.attempt))
    .outerjoin(ledger, sa.and_(_of_job(ledger), ledger.c.kind.in_(SPELLED_BILLED)))
)
_SELECT = sa.select(
    *(jobs.c[field.name] for field in fields(Job) if field.name in jobs.c),
    attempts.c.engine,
    ledger.c.price_version,
    job_texts.c.sampling["reasoning_effort"].astext.label("reasoning_effort"),
    job_texts.c.tool_calls,
).select_from(_FROM)
#: As text: nothing here reads them, so they are passed on as stored.
_LOGPROBS = sa.func.coalesce(sa.cast(job_texts.c.logprobs_json, sa.Text), sa.cast(job_texts.c.logprobs, sa.Text))
_TOOLS = job_texts.c.sampling["tools"].label("tools")
_OTHERS = job_texts.c.choices.label("others")
_SELECT_JOB = _SELECT.add_columns(
    job_texts.c.answer, _LOGPROBS.label("logprobs"), job_texts.c.reasoning, _TOOLS, _OTHERS
)
#: Without what can have megabytes per job, vectors of embeddings too.
_TEXT = sa.case((jobs.c.max_tokens > 0, job_texts.c.answer)).label("answer")
_NOT_LISTED = (sa.null().label(name) for name in ("logprobs", "reasoning", "tools", "others"))
_SELECT_LISTED = _SELECT.add_columns(_TEXT, *_NOT_LISTED)


class Finding(NamedTuple):
    """How jobs are found by a JSON list of (app id, job id).

    Attributes:
        alone: looks at the job itself.
        following: looks also at the job whose answer this one waits for.
    """

    alone: StatementByMonth
    following: StatementByMonth

    @classmethod
    def of(cls, selected: Select[Any]) -> "Finding":
        """Find what is selected of the jobs."""
        return cls(_asked_for(selected, IS_OVER_ALONE, sa.false()), _asked_for(selected, IS_OVER, IS_LEADER_ENDED))


def _asked_for(
    selected: Select[Any], is_over: ColumnElement[bool], is_leader_ended: ColumnElement[bool]
) -> StatementByMonth:
    typed = (sa.column("app_id", jobs.c.app_id.type), sa.column("job_id", jobs.c.id.type))
    given = rows_sent("given", typed, "given")
    mine = sa.and_(given.c.job_id == jobs.c.id, given.c.app_id == jobs.c.app_id, among(jobs.c.id))
    told = is_over.label("is_over"), is_leader_ended.label("is_leader_ended")
    # The planner estimates one row between two bounds: see `attempts.statements`.
    is_one = given.c.job_id.between(UUID(int=0), UUID(int=2**128 - 1))
    return StatementByMonth.of(selected.add_columns(*told).join(given, mine).where(is_one))


FIND = Finding.of(_SELECT_JOB)
FIND_LISTED = Finding.of(_SELECT_LISTED)


def not_found(job_id: UUID) -> NotFound:
    """The error for an unknown job id, or for another app's job."""
    return NotFound(f"No job with id '{show_id(job_id)}'.")


def find(db: Connection, app_id: UUID, job_id: UUID) -> Job:
    """One job of this app. Raises: NotFound, also for another app's job and for an erased one."""
    found = find_all(db, [(app_id, job_id)])
    if not found:
        raise not_found(job_id)
    return found[app_id, job_id]


def find_all(where: Connection | Store, asked: Iterable[tuple[UUID, UUID]]) -> dict[tuple[UUID, UUID], Job]:
    """Those of the jobs that exist, matched by (app id, job id).

    Args: where: a transaction; or a store, where the read is one by itself and costs less.
    """
    return read(where, FIND, asked)


def read(where: Connection | Store, how: Finding, asked: Iterable[tuple[UUID, UUID]]) -> dict[tuple[UUID, UUID], Job]:
    """As `find_all`. Jobs that wait for another's answer are read once more, with a look at that job, of any month.

    A list of jobs lacks those that cannot be read. Raises: PayloadUnreadable: one of them, in no list.
    """
    rows = {(row.app_id, row.id): row for row in how.alone.run(where, _given(asked))}
    following = [key for key, row in rows.items() if row.state == JobState.WAITING and row.served_by_job]
    for key in following:
        del rows[key]
    rows |= {(row.app_id, row.id): row for row in how.following.run(where, _given(following))}
    if how is not FIND_LISTED:
        return {key: job_of(row) for key, row in rows.items()}
    listed = BadRows("list").readable(list(rows.values()), job_of, len(rows))
    return {(job.app_id, job.id): job for job in listed}


def _given(asked: Iterable[tuple[UUID, UUID]]) -> Iterator[Mapping[str, UUID]]:
    return ({"app_id": app_id, "job_id": job_id} for app_id, job_id in set(asked))
