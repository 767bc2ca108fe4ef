"""Files that apps upload, and batches: the jobs of one file's lines, in OpenAI's states. Pure."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Literal, NamedTuple
from uuid import UUID

from headrace.domain.ids import show_id
from headrace.domain.queues import Overflow
from headrace.errors import NotFound

#: Of the plugin, as notes of jobs have it. What it notes is the id of the job's batch.
NAME = "batches"
#: The event of a batch that has ended: this and its state.
BATCH_EVENT = "batch."
#: What a file is for: the lines of a batch, or what became of them.
Purpose = Literal["batch", "batch_output"]
#: The public prefix of a file's id.
FILE_PREFIX = "file-"
#: The public prefixes of a batch's id, and of the id of one of its lines.
BATCH_PREFIX, LINE_PREFIX = "batch_", "batch_req_"
#: The paths that lines may be sent to.
ENDPOINTS = ("/v1/responses", "/v1/chat/completions", "/v1/completions", "/v1/embeddings")
#: The fields of a request that its result repeats, by endpoint; kept only if the first one is set.
REPEATED: Mapping[str, Sequence[str]] = {
    "/v1/completions": ("echo", "prompt"),
    "/v1/embeddings": ("encoding_format",),
}
_ID = re.compile(f"{BATCH_PREFIX}([0-9a-f]{{32}})")
_WINDOW = re.compile(r"(?:(\d{1,4})d)?(?:(\d{1,5})h)?(?:(\d{1,6})m(?:in)?)?(?:(\d{1,8})s)?", re.ASCII)
_UNITS_S = (86_400, 3600, 60, 1)
#: The bounds of a completion window, in seconds.
SHORTEST_WINDOW_S, LONGEST_WINDOW_S = 60, 30 * 86_400


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file that is whole. Attributes: size: in bytes. expires_at: when it is deleted by itself."""

    id: UUID
    app_id: UUID
    purpose: Purpose
    filename: str
    size: int
    created_at: datetime
    expires_at: datetime | None


def storage_key(app_id: UUID, file_id: UUID) -> str:
    """Where a file's content is in the storage."""
    return f"{app_id.hex}/{file_id.hex}"


def noted(batch_id: UUID) -> dict[str, str]:
    """The notes of a job that answers a line of this batch."""
    return {NAME: show_id(batch_id, BATCH_PREFIX)}


class BatchState(StrEnum):
    """The state of a batch, as OpenAI names it."""

    #: Its file is not read yet.
    VALIDATING = "validating"
    #: The file is no batch: no line runs.
    FAILED = "failed"
    IN_PROGRESS = "in_progress"
    #: All lines have ended; the files of their results are being written.
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    #: The window ended first: the lines that had not started are in the error file.
    EXPIRED = "expired"
    #: A cancel was asked for; lines that run are being ended.
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        """True when the batch never changes its state again."""
        return self in (BatchState.FAILED, BatchState.COMPLETED, BatchState.EXPIRED, BatchState.CANCELLED)


class LineState(StrEnum):
    """The state of one line."""

    #: In Postgres only, until the feeder submits it.
    WAITING = "waiting"
    #: Its job was given an id, and is submitted or about to be. The feeder looks whether the job exists.
    SUBMITTED = "submitted"
    SUCCEEDED = "succeeded"
    #: Its job failed, or its request was refused for good.
    FAILED = "failed"
    #: The window ended before it started.
    EXPIRED = "expired"
    CANCELLED = "cancelled"


class ProviderState(StrEnum):
    """How far a provider's batch has come. `docs/lifecycle.md` says who moves it on."""

    #: `batches` adds lines. Their jobs wait.
    GATHERING = "gathering"
    #: It has all its lines. Their jobs wait until their money is reserved.
    READY = "ready"
    #: Their jobs run, and their money is reserved; the file goes up next.
    RESERVED = "reserved"
    #: The provider has the file, and makes the batch next.
    UPLOADED = "uploaded"
    #: The provider works on it.
    SENT = "sent"
    #: Every line is booked, or went back to its own queue; the provider's files are deleted next.
    SETTLED = "settled"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class ProviderBatch:
    """Lines of one batch that a provider answers as a batch of its own.

    Attributes:
        id: also the `worker_id` of the jobs that run there.
        batch_id: the batch that has the lines, which is in the state `batch_state`.
        model: what the jobs name, not what the provider calls it.
        file_id, provider_id: what the provider calls the file, and the batch; None before it has them.
        status: the provider's last word.
        asks: how often the provider may have made it, by calls without an answer or with one; `asked_at` is the last.
        cancel_asked_at: when the provider was asked to cancel it; None: it was not.
        read_at: when this was read, by the database's clock.
        lines: in its file; `answered` of them by the provider.
        unreturned_usd: what the provider billed beyond the answers.
        error: why lines went back to their own queues; None: none did, or only by their own results.
    """

    id: UUID
    batch_id: UUID
    batch_state: BatchState
    app_id: UUID
    model: str
    state: ProviderState
    created_at: datetime
    read_at: datetime = field(compare=False)
    file_id: str | None = None
    provider_id: str | None = None
    status: str | None = None
    asks: int = 0
    asked_at: datetime | None = None
    sent_at: datetime | None = None
    cancel_asked_at: datetime | None = None
    lines: int = 0
    answered: int = 0
    unreturned_usd: Decimal = Decimal(0)
    error: str | None = None

    @property
    def name(self) -> str:
        """What the provider's file and batch are found by."""
        return f"headrace-{self.id.hex}"

    @property
    def age(self) -> timedelta:
        """Returns the time since it was begun."""
        return self.read_at - self.created_at


class TokenSums(NamedTuple):
    """The tokens and the price of a batch's answers. Attributes: reasoning: part of `output`. cached: of `prompt`."""

    prompt: int = 0
    cached: int = 0
    output: int = 0
    reasoning: int = 0
    usd: Decimal = Decimal(0)


NO_USAGE = TokenSums()


@dataclass(frozen=True, slots=True)
class BatchError:
    """What is wrong with a batch's file. Attributes: line: counts from 1; None: it is about the whole file."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch as it stands.

    Attributes:
        model: what all lines name; None before the file is read.
        total: lines; 0 before the file is read. completed and failed are those of the output and of the error file.
        times: when it reached each state that it has reached.
        expires_at: the end of its window.
        read_at: when this was read, by the database's clock. No time is compared with a host's clock, which may jump.
        output_keep_s: for how long its files are kept; None: as long as uploads are.
        retry_of: the batch whose failed lines these are.
        errors: why it failed.
        has_lines: False once its lines are deleted for their age.
    """

    id: UUID
    app_id: UUID
    endpoint: str
    state: BatchState
    input_file_id: UUID
    completion_window: str
    created_at: datetime
    expires_at: datetime
    read_at: datetime = field(compare=False)
    overflow: Overflow
    model: str | None = None
    output_file_id: UUID | None = None
    error_file_id: UUID | None = None
    not_before: datetime | None = None
    webhook_url: str | None = None
    output_keep_s: int | None = None
    retry_of: UUID | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    errors: Sequence[BatchError] = ()
    times: Mapping[BatchState, datetime] = field(default_factory=dict)
    total: int = 0
    completed: int = 0
    failed: int = 0
    usage: TokenSums = NO_USAGE
    has_lines: bool = True

    @property
    def left_s(self) -> float:
        """The seconds until its window ends."""
        return (self.expires_at - self.read_at).total_seconds()

    @property
    def has_begun(self) -> bool:
        """Returns True if lines may run or wait for an answer: none before `not_before`."""
        is_going_on = self.state is BatchState.IN_PROGRESS and self.completed + self.failed < self.total
        return is_going_on and (self.not_before is None or self.not_before <= self.read_at)

    @property
    def is_ending(self) -> bool:
        """Returns True if lines that have not started never will: it is being cancelled, or its window has ended."""
        return self.state is BatchState.CANCELLING or (self.state is BatchState.IN_PROGRESS and self.left_s <= 0)


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a batch.

    Attributes:
        number: in the file, from 1.
        body: the request, as JSON text.
        job_id: its job's; None before it is submitted, and for a line that was refused or never started.
        refusal: the status and body of its refusal, as JSON text; None: it was not refused.
    """

    batch_id: UUID
    number: int
    custom_id: str
    state: LineState
    body: str
    job_id: UUID | None = None
    refusal: tuple[int, str] | None = None


class NewLine(NamedTuple):
    """A line of a file, as `COPY` writes it."""

    number: int
    custom_id: str
    prefix: str
    body: str


def window_s(text: str) -> int | None:
    """The seconds of a completion window, such as `24h`, `90m`, `1h38min` or `2d12h`; None if it is none."""
    found = _WINDOW.fullmatch(text)
    if not text or found is None:
        return None
    seconds = sum(int(number or 0) * unit for number, unit in zip(found.groups(), _UNITS_S, strict=True))
    return seconds if SHORTEST_WINDOW_S <= seconds <= LONGEST_WINDOW_S else None


def parse_batch_id(text: str) -> UUID:
    """The UUID in a batch's id. Raises: NotFound for a malformed id."""
    if (found := _ID.fullmatch(text)) is None:
        raise NotFound(f"No batch with id '{text[:80]}'.")
    return UUID(hex=found[1])
