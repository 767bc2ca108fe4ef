"""`/v1/batches`: make, read, list, cancel and retry batches, in OpenAI's format. `running` moves them on."""

from collections.abc import Callable, Generator
from datetime import UTC, datetime
from functools import partial
from uuid import UUID

from flask import Blueprint, Response, request
from sqlalchemy import Connection

from api.calls import Stream, caller, parts, turn
from api.deps import WebDeps
from api.door.specify import LATEST_START, check_lane, check_webhook
from api.routes.operations import SUBMIT, describes
from api.routes.replies import reply_of
from api.routes.requests import checked_body, idempotency, listed, query
from api.turns import ClientGone, Step, Wake
from headrace.domain.apps import App
from headrace.domain.queues import Lane, Overflow
from headrace.errors import InvalidRequest, NotFound
from plugins.batches import store as batches
from plugins.batches.domain import Batch, BatchState, parse_batch_id, window_s
from plugins.batches.part import BatchesPart, storage_of
from plugins.batches.routes.batch_results import results
from plugins.batches.routes.files import parse_file_id, slot_of
from plugins.batches.schemas.batches import (
    BatchBody,
    BatchesQuery,
    BatchList,
    BatchRequest,
    ResultsQuery,
    RetryRequest,
)
from plugins.batches.store import files

#: Of the reference.
BATCH_ID = ("A batch's id.", "^batch_[0-9a-f]{32}$")
ROUTES = Blueprint("batches", __name__)
#: The media type of results.
JSONL = "application/jsonl"


@ROUTES.post("/v1/batches")
@describes(
    "OpenAI",
    "Run the lines of a file in the background",
    BatchBody,
    body=BatchRequest,
    makes="batch",
    examples={
        "day": {"input_file_id": "file-…", "endpoint": "/v1/chat/completions", "completion_window": "24h"},
        "night": {
            "input_file_id": "file-…",
            "endpoint": "/v1/responses",
            "completion_window": "1h38min",
            "metadata": {"run": "7"},
            "output_expires_after": {"anchor": "created_at", "seconds": 86_400},
            "job": {"overflow": "allow"},
        },
    },
    refusals=(*SUBMIT, 403),
    about=(
        "The file is read after the reply; what is wrong with it is then in `errors`. Each line runs as a job "
        "in the lane `batch`, and its answer is in the output file. Windows are from a minute to 30 days."
    ),
)
def create() -> Response:
    """Note the batch; its file is read after the reply, and what is wrong with it is then in `errors`."""
    asked, web, app = checked_body(BatchRequest), parts(), caller()
    return _once(lambda db: _create(db, web, app, asked))


def _create(db: Connection, web: WebDeps, app: App, asked: BatchRequest) -> Batch:
    storage_of(web)
    check_lane(Lane.BATCH, app, "endpoint")
    check_webhook(asked.job.webhook, "job.webhook", web.settings)
    if asked.job.not_before and asked.job.not_before > datetime.now(UTC) + LATEST_START:
        raise InvalidRequest(f"A batch may start at most {LATEST_START.days} days from now.", param="job.not_before")
    try:
        file = files.find(db, app.id, parse_file_id(asked.input_file_id))
    except NotFound as error:
        raise InvalidRequest(str(error), code="file_not_found", param="input_file_id") from error
    if file.purpose != "batch":
        message = f"This file's purpose is '{file.purpose}': upload one with the purpose 'batch'."
        raise InvalidRequest(message, param="input_file_id")
    seconds = window_s(asked.completion_window)
    assert seconds is not None
    return batches.create(
        db,
        app.id,
        window_s=seconds,
        most_open=web.of(BatchesPart).settings.open_per_app,
        endpoint=asked.endpoint,
        input_file_id=file.id,
        held_bytes=file.size,
        quota_bytes=web.of(BatchesPart).settings.files.app_limit_bytes,
        completion_window=asked.completion_window,
        overflow=Overflow(asked.job.overflow),
        metadata=asked.metadata or {},
        webhook_url=asked.job.webhook,
        not_before=asked.job.not_before,
        output_keep_s=asked.output_expires_after and asked.output_expires_after.seconds,
    )


def _once(make: Callable[[Connection], Batch]) -> Response:
    """Reply with the batch that `make` makes, or that an earlier request with this Idempotency-Key made.

    Raises: IdempotencyKeyReused. StoreUnavailable. What `make` raises.
    """
    with parts().store.begin() as db:
        batch, is_replay = batches.once(db, caller().id, idempotency(), make)
    reply = reply_of(BatchBody.of(batch))
    if is_replay:
        reply.headers["Idempotent-Replayed"] = "true"
    return reply


@ROUTES.get("/v1/batches")
@describes(
    "OpenAI",
    "List your batches",
    BatchList,
    query=BatchesQuery,
    refusals=(400,),
    about="A page. `after` is the last id of the page before.",
)
def list_batches() -> Response:
    """Returns a page of the caller's batches, newest first."""
    asked = query(BatchesQuery)
    try:
        after = parse_batch_id(asked.after) if asked.after else None
    except NotFound as error:
        raise InvalidRequest("Invalid 'after': it is not the id of a batch.", param="after") from error
    with parts().store.begin() as db:
        found = batches.newest(db, caller().id, limit=asked.limit + 1, after=after)
    return listed(lambda: BatchList.of([BatchBody.of(batch) for batch in found], asked.limit))


@ROUTES.get("/v1/batches/<batch_id>")
@describes(
    "OpenAI",
    "Read a batch",
    BatchBody,
    refusals=(404,),
    about=(
        "Its state, its counts, and once it has ended the ids of both files of results. Read both: lines "
        "without an answer are in the error file alone."
    ),
    id=BATCH_ID,
)
def retrieve(batch_id: str) -> Response:
    """Returns the batch as it stands."""
    return reply_of(BatchBody.of(_find(batch_id)))


@ROUTES.post("/v1/batches/<batch_id>/cancel")
@describes(
    "OpenAI",
    "Cancel a batch",
    BatchBody,
    refusals=(404,),
    about=(
        "Waiting lines end at once, running ones within seconds. What was answered before is in the output "
        "file. Safe to repeat."
    ),
    id=BATCH_ID,
)
def cancel(batch_id: str) -> Response:
    """Returns the batch as it stands after the request; safe to repeat. What has ended stays, and is in the files."""
    found = parse_batch_id(batch_id)
    with parts().store.begin() as db:
        return reply_of(BatchBody.of(batches.cancel(db, caller().id, found)))


@ROUTES.post("/v1/batches/<batch_id>/retry")
@describes(
    "Headrace",
    "Run the lines without an answer again",
    BatchBody,
    body=RetryRequest,
    makes="batch",
    may_lack_body=True,
    examples={"same": {}, "longer": {"completion_window": "48h"}},
    refusals=(*SUBMIT, 403),
    about=(
        "Makes a new batch of the lines that have no answer, once this one has ended. The window is this "
        "one's, counted anew, unless the body has another."
    ),
    id=BATCH_ID,
)
def retry(batch_id: str) -> Response:
    """Returns a new batch of the lines that have no answer."""
    asked = checked_body(RetryRequest) if request.get_data() else RetryRequest.model_validate({})
    found, web, app = parse_batch_id(batch_id), parts(), caller()
    return _once(lambda db: _retry(db, web, app, found, asked.completion_window))


def _retry(db: Connection, web: WebDeps, app: App, batch_id: UUID, window: str | None) -> Batch:
    old = batches.find(db, app.id, batch_id)
    check_lane(Lane.BATCH, app, "endpoint")
    window = window or old.completion_window
    seconds = window_s(window)
    assert seconds is not None
    return batches.retry(
        db,
        old,
        window_s=seconds,
        most_open=web.of(BatchesPart).settings.open_per_app,
        quota_bytes=web.of(BatchesPart).settings.files.app_limit_bytes,
        completion_window=window,
    )


@ROUTES.get("/v1/batches/<batch_id>/results")
@describes(
    "Headrace",
    "Read the results so far",
    BatchBody,
    query=ResultsQuery,
    refusals=(400, 404),
    media=JSONL,
    about=(
        "Of all lines that have ended so far, with and without answers, as lines of JSON in the order of the "
        "file. `after` is the number of a line."
    ),
    id=BATCH_ID,
)
def results_so_far(batch_id: str) -> Response:
    """Returns the results of all lines that have ended so far, with and without answers, in the order of the file."""
    asked = query(ResultsQuery)
    batch = _find(batch_id)
    if not batch.has_lines and batch.state is not BatchState.FAILED:
        raise NotFound("The lines of this batch are deleted. Its files may still be there.")
    turn().closing.append(slot_of(parts(), caller()).release)
    return Stream(partial(_steps, parts(), batch, asked.after), {"Content-Type": JSONL}, is_download=True)


def _steps(web: WebDeps, batch: Batch, after: int, _wake: Wake) -> Generator[Step, None, None]:
    try:
        for page in results(web, batch, after):
            yield Step(b"".join(result.text for result in page), 0.0)
    except ClientGone:
        return


def _find(public_id: str) -> Batch:
    batch_id = parse_batch_id(public_id)
    with parts().store.begin() as db:
        return batches.find(db, caller().id, batch_id)
