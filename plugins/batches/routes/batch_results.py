"""The results of a batch's lines, as OpenAI writes them: one JSON object for each, in the order of the file."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple
from uuid import UUID

from api.deps import WebDeps
from api.routes.formats import FORMATS
from api.routes.replies import problem, reply_of
from api.schemas.openai import job_error
from headrace.domain.ids import show_id
from headrace.domain.jobs import Job
from headrace.domain.states import JobState
from headrace.errors import PayloadUnreadable
from headrace.store.jobs import find_all
from plugins.batches.domain import LINE_PREFIX, Batch, Line, LineState
from plugins.batches.store import line_texts

#: Lines that are read at once, unless their texts are large: see `line_texts.PAGE_BYTES`.
PAGE = 64
#: Why a line has no response.
_NEVER_STARTED = {
    LineState.EXPIRED: ("batch_expired", "This request could not be executed before the completion window expired."),
    LineState.CANCELLED: ("batch_cancelled", "This request was not executed before the batch was cancelled."),
}
_ERASED = ("erased", "The job of this line was erased.")


class Result(NamedTuple):
    """The result of a line. Attributes: has_answer: it belongs into the output file; otherwise into the error file."""

    has_answer: bool
    text: bytes


def results(web: WebDeps, batch: Batch, after: int = 0) -> Iterator[list[Result]]:
    """Returns the results of the lines that have ended, by pages. Args: after: the number of a line.

    Raises: StoreUnavailable.
    """
    while True:
        with web.store.autocommit() as db:
            lines = line_texts.ended(db, batch, after, PAGE, has_tools=FORMATS[batch.endpoint].has_tools)
        if not lines:
            return
        found = _jobs_of(web, batch, lines)
        yield [_result(batch, line, found.get(line.number)) for line in lines]
        after = lines[-1].number


def _jobs_of(web: WebDeps, batch: Batch, lines: Sequence[Line]) -> dict[int, Job | PayloadUnreadable]:
    """Returns the jobs that exist, by the numbers of their lines, or why one cannot be read."""
    keys = {line.number: (batch.app_id, line.job_id) for line in lines if line.job_id is not None}
    try:
        found: Mapping[tuple[UUID, UUID], Job] = find_all(
            web.store, keys.values(), has_tools=FORMATS[batch.endpoint].has_tools
        )
    except PayloadUnreadable as error:
        if len(lines) == 1:
            return {lines[0].number: error}
        # It must not hold up the others, nor the end of the batch.
        return {number: job for line in lines for number, job in _jobs_of(web, batch, [line]).items()}
    return {number: found[key] for number, key in keys.items() if key in found}


def _result(batch: Batch, line: Line, job: Job | PayloadUnreadable | None) -> Result:
    if line.refusal is not None:
        status, body = line.refusal
        return _response(line, status, body.encode())
    if line.state in _NEVER_STARTED:
        return _error(line, *_NEVER_STARTED[line.state])
    if job is None:
        return _error(line, *_ERASED)
    if isinstance(job, PayloadUnreadable):
        return _error(line, job.code, str(job))
    if job.state is not JobState.SUCCEEDED:
        reply = problem(job_error(job), "")
    else:
        form = FORMATS[batch.endpoint]
        body_of = form.body_of(lambda: form.restored(json.loads(line.body)))
        reply = reply_of(body_of(job, None))
    return _response(line, reply.status_code, reply.get_data().rstrip(b"\n"), job.id)


def _response(line: Line, status: int, body: bytes, job_id: UUID | None = None) -> Result:
    """Puts the body in as it is: to read it and to write it anew takes twice as long."""
    head = {"id": _id(line), "custom_id": line.custom_id}
    begun = {"status_code": status, "request_id": show_id(job_id, "req_") if job_id else _id(line)}
    text = b'%s,"response":%s,"body":%s},"error":null}\n' % (_open(head), _open(begun), body)
    return Result(status < 400, text)


def _error(line: Line, code: str, message: str) -> Result:
    error = {"code": code, "message": message}
    body = {"id": _id(line), "custom_id": line.custom_id, "response": None, "error": error}
    return Result(has_answer=False, text=json.dumps(body, separators=(",", ":")).encode() + b"\n")


def _id(line: Line) -> str:
    return f"{LINE_PREFIX}{line.batch_id.hex}_{line.number}"


def _open(values: Mapping[str, object]) -> bytes:
    """Returns a JSON object without its last brace."""
    return json.dumps(values, separators=(",", ":")).removesuffix("}").encode()
