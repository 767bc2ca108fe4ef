"""Batches in OpenAI's format; what OpenAI has no word for is in `job`."""

from datetime import datetime
from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import AfterValidator, Field

from api.schemas.fields import (
    INT4_MAX,
    Answer,
    Deadline,
    Metadata,
    Page,
    QueryInt,
    Request,
    TimeOut,
    UsdOut,
    WebhookUrl,
    refusal,
)
from api.schemas.jobs import OverflowName
from headrace.domain.ids import show_id
from plugins.batches.domain import BATCH_PREFIX, FILE_PREFIX, Batch, BatchError, BatchState, window_s
from plugins.batches.schemas.files import LONGEST_S, SHORTEST_S

#: Batches on one page, at most, as OpenAI has it.
MOST_BATCHES = 100


def _window(text: str) -> str:
    if window_s(text) is None:
        raise refusal("Input should be a time from 1m to 30d, such as 24h, 90m or 1h38min")
    return text


Window = Annotated[
    str,
    Field(
        max_length=32,
        description="How long its lines have, such as 24h, 90m or 1h38min: what has not started then expires.",
    ),
    AfterValidator(_window),
]


class OutputExpiry(Request):
    """When the files of the results are deleted."""

    anchor: Literal["created_at"]
    seconds: Annotated[int, Field(ge=SHORTEST_S, le=LONGEST_S, description="After they were made.")]


class BatchOptions(Request):
    """What OpenAI has no word for."""

    overflow: OverflowName = Field("never", description="Whether a paid API may answer its lines.")
    webhook: WebhookUrl | None = Field(
        None, description="Called once the batch has ended, signed with the app's secret."
    )
    not_before: Deadline | None = Field(
        None,
        description="Unix seconds or ISO 8601, at most 30 days ahead. None of its lines starts before, and its "
        "completion window begins then.",
    )


class BatchRequest(Request):
    """A new batch."""

    input_file_id: str = Field(max_length=64, description="An uploaded file, whose lines are requests.")
    endpoint: Literal["/v1/responses", "/v1/chat/completions", "/v1/completions", "/v1/embeddings"] = Field(
        description="The path of all its lines."
    )
    completion_window: Window
    metadata: Metadata | None = None
    output_expires_after: OutputExpiry | None = None
    job: BatchOptions = Field(default_factory=lambda: BatchOptions.model_validate({}))


class RetryRequest(Request):
    """How the lines without an answer are run again."""

    completion_window: Window | None = Field(None, description="That of the old batch by default.")


class ErrorBody(Answer):
    """What is wrong with a file."""

    code: str
    line: int | None = Field(description="Counts from 1; null: it is about the whole file.")
    message: str
    param: str | None


class ErrorList(Answer):
    """All that is wrong, up to a number."""

    object: Literal["list"] = "list"
    data: list[ErrorBody]


class RequestCounts(Answer):
    """Lines by what became of them."""

    total: int
    completed: int = Field(description="Those with an answer: the lines of the output file.")
    failed: int = Field(description="Those that ended without: the lines of the error file.")


class InputDetails(Answer):
    cached_tokens: int


class OutputDetails(Answer):
    reasoning_tokens: int


class BatchUsage(Answer):
    """The tokens of all answers so far."""

    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int


class BatchView(Answer):
    """What OpenAI has no word for."""

    overflow: str
    usd: UsdOut = Field(description="What its lines have cost so far.")
    not_before: TimeOut | None
    retry_of: str | None = Field(description="The batch whose lines without an answer these are.")


class BatchBody(Answer):
    """One batch."""

    id: str
    object: Literal["batch"] = "batch"
    endpoint: str
    model: str | None
    errors: ErrorList | None
    input_file_id: str
    completion_window: str
    status: BatchState
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    expires_at: int
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: RequestCounts
    usage: BatchUsage
    metadata: dict[str, str] | None
    job: BatchView

    @classmethod
    def of(cls, batch: Batch) -> Self:
        """A batch as it stands."""
        usage, times = batch.usage, {state: _seconds(batch.times.get(state)) for state in BatchState}
        return cls(
            id=show_id(batch.id, BATCH_PREFIX),
            endpoint=batch.endpoint,
            model=batch.model,
            errors=ErrorList(data=[_error(error) for error in batch.errors]) if batch.errors else None,
            input_file_id=show_id(batch.input_file_id, FILE_PREFIX),
            completion_window=batch.completion_window,
            status=batch.state,
            output_file_id=_shown(batch.output_file_id, FILE_PREFIX),
            error_file_id=_shown(batch.error_file_id, FILE_PREFIX),
            created_at=int(batch.created_at.timestamp()),
            expires_at=int(batch.expires_at.timestamp()),
            request_counts=RequestCounts(total=batch.total, completed=batch.completed, failed=batch.failed),
            usage=BatchUsage(
                input_tokens=usage.prompt,
                input_tokens_details=InputDetails(cached_tokens=usage.cached),
                output_tokens=usage.output,
                output_tokens_details=OutputDetails(reasoning_tokens=usage.reasoning),
                total_tokens=usage.prompt + usage.output,
            ),
            metadata=dict(batch.metadata) or None,
            job=BatchView(
                overflow=batch.overflow,
                usd=usage.usd,
                not_before=batch.not_before,
                retry_of=_shown(batch.retry_of, BATCH_PREFIX),
            ),
            in_progress_at=times[BatchState.IN_PROGRESS],
            finalizing_at=times[BatchState.FINALIZING],
            completed_at=times[BatchState.COMPLETED],
            failed_at=times[BatchState.FAILED],
            expired_at=times[BatchState.EXPIRED],
            cancelling_at=times[BatchState.CANCELLING],
            cancelled_at=times[BatchState.CANCELLED],
        )


def _error(error: BatchError) -> ErrorBody:
    return ErrorBody(code=error.code, line=error.line, message=error.message, param=error.param)


def _shown(number: UUID | None, prefix: str) -> str | None:
    return None if number is None else show_id(number, prefix)


def _seconds(at: datetime | None) -> int | None:
    return None if at is None else int(at.timestamp())


class BatchList(Page):
    """One page of batches."""

    data: list[BatchBody]


class BatchesQuery(Request):
    """The query string of a list."""

    after: str | None = Field(None, description="The id of a batch: the page begins with the one after it.")
    limit: QueryInt = Field(20, ge=1, le=MOST_BATCHES, description="Batches on the page, at most.")


class ResultsQuery(Request):
    """The query string of the results so far."""

    after: QueryInt = Field(
        0, ge=0, le=INT4_MAX, description="The number of a line of the input file: only later lines."
    )


class BatchEnded(Answer):
    """The batch of a webhook."""

    id: str
