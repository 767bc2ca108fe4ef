"""Finds jobs by their ids, with their texts, the last attempt's engine and the bill: what an app is shown of them."""

from collections.abc import Iterable
from dataclasses import fields
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection, Row

from headrace.domain.choices import Choice
from headrace.domain.ids import show_id
from headrace.domain.jobs import Job
from headrace.domain.logprobs import StoredLogprobs
from headrace.domain.prompts.tools import ToolCall, Tools
from headrace.domain.queues import Lane, Overflow, Route
from headrace.domain.states import JobState
from headrace.errors import NotFound, PayloadUnreadable
from headrace.store.bad_rows import BadRows
from headrace.store.session import Store
from headrace.store.sql import Statement

#: The kinds of ledger entry that charge a job's owner.
BILLED = ("compute", "api", "cache")
#: Literals, as in `conditions`, so that a generic plan can use the ledger's partial index.
SPELLED_BILLED = [sa.literal(kind, literal_execute=True) for kind in BILLED]


def job_of(row: Any) -> Job:
    """The job in a row of `sql/find.sql`. Raises: PayloadUnreadable."""
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


_FIND, _FIND_FOLLOWING = Statement("find"), Statement("find_following")


def not_found(job_id: UUID) -> NotFound:
    """The error for an unknown job id, or for another app's job."""
    return NotFound(f"No job with id '{show_id(job_id)}'.")


def find(db: Connection, app_id: UUID, job_id: UUID) -> Job:
    """One job of this app. Raises: NotFound, also for another app's job and for an erased one."""
    found = find_all(db, [(app_id, job_id)])
    if not found:
        raise not_found(job_id)
    return found[app_id, job_id]


def find_all(
    where: Connection | Store, asked: Iterable[tuple[UUID, UUID]], *, is_listed: bool = False
) -> dict[tuple[UUID, UUID], Job]:
    """Those of the jobs that exist, matched by (app id, job id).

    Jobs that wait for another's answer are read once more, with a look at that job, of any month.

    Args:
        where: a transaction; or a store, where the read is one by itself.
        is_listed: leaves out what can have megabytes for each job, and jobs that cannot be read.

    Raises: PayloadUnreadable: one of them, unless `is_listed`.
    """
    rows = _read(where, _FIND, asked, is_listed)
    following = [key for key, row in rows.items() if row.state == JobState.WAITING and row.served_by_job]
    for key in following:
        del rows[key]
    rows |= _read(where, _FIND_FOLLOWING, following, is_listed)
    if not is_listed:
        return {key: job_of(row) for key, row in rows.items()}
    listed = BadRows("list").readable(list(rows.values()), job_of, len(rows))
    return {(job.app_id, job.id): job for job in listed}


def _read(
    where: Connection | Store, how: Statement, asked: Iterable[tuple[UUID, UUID]], is_listed: bool
) -> dict[tuple[UUID, UUID], Row[Any]]:
    given = [{"app_id": app_id, "job_id": job_id} for app_id, job_id in set(asked)]
    return {(row.app_id, row.id): row for row in how.run_by_month(where, given, is_listed=is_listed)}
