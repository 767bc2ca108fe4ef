"""The texts of batches' lines: read by pages of few bytes, and dropped once no step needs them.

A line has its request until it ends. An answered line keeps only the fields that its result repeats. A line whose job
failed keeps its request, for a retry. All others never run: a retry reads them again from the input file.
"""

from datetime import timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection, Row, Select

from headrace.domain.ids import oldest_id, time_of
from headrace.tables import job_texts
from plugins.batches.domain import REPEATED, Batch, Line, LineState, NewLine
from plugins.batches.tables import batch_lines

#: The request of a line that was dropped, or erased.
DROPPED = "{}"
#: Bytes of texts that a page has at most, or one line.
PAGE_BYTES = 1024 * 1024
#: Bytes of a line's row beside its texts.
ROW_BYTES = 100
#: The clocks of Postgres and of the API, which write the ids of batches and of jobs, differ by less.
_SKEW = timedelta(hours=1)
_COLUMNS = (batch_lines.c.number, batch_lines.c.custom_id, batch_lines.c.state, batch_lines.c.job_id)
_REFUSAL = (batch_lines.c.status_code, batch_lines.c.refusal)


def oldest_job_of(batch_id: UUID) -> UUID:
    """The smallest id that a job of the batch may have: older months are not looked into."""
    return oldest_id(time_of(batch_id) - _SKEW)


def left_of_answered(endpoint: str) -> ColumnElement[str]:
    """Remainder of the request of a line that has its answer."""
    fields = REPEATED.get(endpoint, ())
    if not fields:
        return sa.literal(DROPPED)
    body = sa.cast(batch_lines.c.body, sa.JSON)
    pairs = [part for name in fields for part in (sa.literal(name), body[name])]
    is_set = sa.func.coalesce(body[fields[0]].as_string(), "false") != "false"
    return sa.case((is_set, sa.cast(sa.func.json_build_object(*pairs), sa.Text)), else_=DROPPED)


def held_by(batch_id: UUID) -> ColumnElement[int]:
    """The bytes of the batch's lines in Postgres, before it compresses them."""
    texts = (batch_lines.c.custom_id, batch_lines.c.prefix, batch_lines.c.body, batch_lines.c.refusal)
    # octet_length reads the stored length, not the text.
    sizes = sum((sa.func.coalesce(sa.func.octet_length(text), 0) for text in texts), sa.literal(ROW_BYTES))
    held = sa.select(sa.func.coalesce(sa.func.sum(sizes), 0)).where(batch_lines.c.batch_id == batch_id)
    return held.scalar_subquery()


def within_bytes(page: Select[Any], size: ColumnElement[int]) -> Select[Any]:
    """Takes lines of a page, in their order, up to `PAGE_BYTES` and at least one. Args: size: of a line."""
    sized = page.add_columns(size.label("size")).subquery("sized")
    before = sa.func.sum(sized.c.size).over(order_by=sized.c.number) - sized.c.size
    summed = sa.select(sized, before.label("before")).subquery("summed")
    return sa.select(summed).where(summed.c.before < PAGE_BYTES).order_by(summed.c.number)


def ended(db: Connection, batch: Batch, after: int, limit: int, *, has_tools: bool) -> list[Line]:
    """The lines that have ended, in the order of the file: a page that is small also with the texts of their jobs.

    `body` has what is left of the request of a line with an answer.
    Args: after: the number of the last line before. has_tools: the results have the tools of requests.
    """
    # An expression of which Postgres has no statistics: it reads lines in their order until a page is full. While few
    # have ended, it would otherwise sort the whole batch for each page.
    has_ended = (batch_lines.c.state + "").not_in([LineState.WAITING, LineState.SUBMITTED])
    left = sa.case((batch_lines.c.state == LineState.SUCCEEDED, batch_lines.c.body), else_=DROPPED)
    chosen = sa.select(*_COLUMNS, *_REFUSAL, left.label("body")).where(
        batch_lines.c.batch_id == batch.id, batch_lines.c.number > after, has_ended
    )
    page = chosen.order_by(batch_lines.c.number).limit(limit).subquery("page")
    answer = _answer_bytes(has_tools=has_tools).where(
        job_texts.c.job_id == page.c.job_id, job_texts.c.job_id >= oldest_job_of(batch.id)
    )
    size = sa.func.octet_length(page.c.body) + sa.func.coalesce(answer.scalar_subquery(), 0)
    return [line_of(batch.id, row) for row in db.execute(within_bytes(sa.select(page), size))]


def _answer_bytes(*, has_tools: bool) -> Select[tuple[int]]:
    """The bytes of what a result has of a job's texts."""
    texts: list[ColumnElement[Any]] = [job_texts.c.answer, job_texts.c.reasoning]
    documents = [job_texts.c.tool_calls, job_texts.c.choices, job_texts.c.logprobs, job_texts.c.logprobs_json]
    texts += [sa.cast(each, sa.Text) for each in documents]
    if has_tools:
        texts.append(job_texts.c.sampling["tools"].as_string())
    return sa.select(sum((sa.func.coalesce(sa.func.octet_length(text), 0) for text in texts), sa.literal(0)))


def unanswered(db: Connection, batch_id: UUID, after: int, limit: int) -> list[NewLine]:
    """Some lines of an ended batch that have no answer, in the order of the file. Args: after: the last one before."""
    asked = sa.select(*(batch_lines.c[name] for name in NewLine._fields)).where(
        batch_lines.c.batch_id == batch_id, batch_lines.c.number > after, batch_lines.c.state != LineState.SUCCEEDED
    )
    page = within_bytes(asked.order_by(batch_lines.c.number).limit(limit), sa.func.octet_length(batch_lines.c.body))
    return [NewLine(row.number, row.custom_id, row.prefix, row.body) for row in db.execute(page)]


def requests_left(db: Connection, batch_id: UUID) -> tuple[int, bool]:
    """The bytes of the requests that lines without an answer still have, and whether a line has none any more."""
    is_left = batch_lines.c.body != DROPPED
    size = sa.func.sum(sa.func.octet_length(batch_lines.c.body)).filter(is_left)
    asked = sa.select(sa.func.coalesce(size, 0), sa.func.coalesce(sa.func.bool_or(~is_left), sa.false()))
    unanswered = (batch_lines.c.batch_id == batch_id, batch_lines.c.state != LineState.SUCCEEDED)
    held_bytes, has_dropped = db.execute(asked.where(*unanswered)).one()
    return held_bytes, has_dropped


def line_of(batch_id: UUID, row: Row[*tuple[Any, ...]]) -> Line:
    """The line in a row."""
    refusal = None if row.refusal is None else (row.status_code, row.refusal)
    return Line(batch_id, row.number, row.custom_id, LineState(row.state), row.body, row.job_id, refusal)
