"""Jobs: as they are asked for, where they were put, how they stand, and the events of their streams."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Literal
from uuid import UUID

from headrace.domain.apps import AppLimits
from headrace.domain.logprobs import TokenLogprob
from headrace.domain.prompts import Message, ReasoningEffort, Sampling
from headrace.domain.queues import Lane, Overflow, Route, Ticket
from headrace.domain.states import SUSPECT, JobState


@dataclass(frozen=True, slots=True)
class Idempotency:
    """The client's Idempotency-Key, and the SHA-256 of the path and body it came with."""

    key: str
    request_hash: bytes


@dataclass(frozen=True, slots=True)
class JobSpec:
    """A validated request: everything admission and the store need, and nothing that changes later.

    Attributes:
        prompt_tokens: counted with the model's own tokenizer and chat template.
        max_wait_s: seconds after acceptance within which the first start must happen.
        deadline: past it the job is aborted, queued or running; None for no such bound.
        webhook_url: where its end is announced, signed with the app's secret.
        background: False when the job is worth nothing to a caller that went away.
        stream: True when its tokens are published while they are made.
        adapter: the fine-tuning of its pool's model that it asks for by the name `model`; None for the model as it is.
    """

    id: UUID
    app_id: UUID
    model: str
    pool: str
    lane: Lane
    messages: tuple[Message, ...]
    sampling: Sampling
    prompt_tokens: int
    max_wait_s: float
    deadline: datetime | None = None
    overflow: Overflow = Overflow.ALLOW
    max_cost_usd: Decimal | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    webhook_url: str | None = None
    end_user: str | None = None
    background: bool = True
    stream: bool = False
    idempotency: Idempotency | None = None
    adapter: str | None = None

    @property
    def kv_tokens(self) -> int:
        """Upper bound of the KV cache this job can come to hold, in tokens."""
        return self.prompt_tokens + self.sampling.max_tokens


@dataclass(frozen=True, slots=True)
class Job:
    """One job as it stands, with its answer; see `headrace.tables.jobs` for the columns.

    Attributes:
        logprobs: of the answer's tokens; None where they were not asked for, and in a list of jobs.
        reasoning: what came before the answer; None when nothing did, and in a list of jobs.
        reasoning_effort: how much was to be thought; None where it was not said.
        is_over: True while it waits although its time has passed: `expire` will end it.
    """

    id: UUID
    app_id: UUID
    state: JobState
    lane: Lane
    pool: str
    queue: str
    route: Route
    route_reason: str
    overflow: Overflow
    model_requested: str
    model_served: str | None
    metadata: Mapping[str, str]
    end_user: str | None
    background: bool
    stream: bool
    prompt_tokens: int
    max_tokens: int
    output_tokens: int | None
    cached_tokens: int | None
    finish_reason: str | None
    usd: Decimal
    error_code: str | None
    error_message: str | None
    enqueue_no: int
    attempt: int
    suspicion: int
    created_at: datetime
    start_by: datetime
    finish_by: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    cancel_requested_at: datetime | None
    retry_of: UUID | None
    answer: str | None
    engine: str | None
    price_version: str | None
    is_over: bool
    logprobs: Sequence[TokenLogprob] | None = None
    reasoning: str | None = None
    reasoning_tokens: int | None = None
    reasoning_effort: ReasoningEffort | None = None

    @property
    def max_wait_s(self) -> float:
        """Seconds from acceptance within which it must start."""
        return (self.start_by - self.created_at).total_seconds()

    @property
    def ticket(self) -> Ticket:
        """The message that stands for this job in its queue now."""
        return Ticket(
            self.id,
            self.app_id,
            self.queue,
            self.lane,
            self.prompt_tokens,
            self.max_tokens,
            self.start_by,
            self.enqueue_no,
            alone=self.suspicion >= SUSPECT,
        )

    @property
    def wait_s(self) -> float | None:
        """Seconds from acceptance to the first start, or to the end of a job that never started."""
        until = self.started_at or self.ended_at
        return (until - self.created_at).total_seconds() if until else None

    @property
    def run_s(self) -> float | None:
        """Seconds from the first start to the end; None until then."""
        return (self.ended_at - self.started_at).total_seconds() if self.started_at and self.ended_at else None


@dataclass(frozen=True, slots=True)
class Placement:
    """Where admission put a job: the queue, which way it leads, and why."""

    queue: str
    route: Route
    reason: str


@dataclass(frozen=True, slots=True)
class Inserted:
    """The outcome: the job that now stands for the request.

    Attributes:
        job_id: another job's when the Idempotency-Key was used before with the same body.
        start_by: None for such a replay.
    """

    job_id: UUID
    start_by: datetime | None

    @property
    def is_replay(self) -> bool:
        """True when no new job was made."""
        return self.start_by is None


@dataclass(frozen=True, slots=True)
class LateJob:
    """A job that waits, and may go to the paid API: what its price depends on, and who pays."""

    ticket: Ticket
    app: str
    limits: AppLimits
    model: str
    messages: tuple[Message, ...]
    sampling: Sampling
    overflow: Overflow
    max_cost_usd: Decimal | None


#: What an entry of a stream adds: text of the answer; the log probabilities of the tokens of the text that comes next,
#: an object of JSON in each line; or what the model thinks before it answers.
PieceKind = Literal["delta", "logprobs", "reasoning"]

#: More events than any claim publishes. Numbers must grow even where Redis forgot what they had come to.
NUMBERS_PER_CLAIM = 1_000_000


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """One event of a job's stream.

    Attributes:
        number: grows with each event of the job, from 1 up, with gaps.
        kind: `restart` takes back all that came before it; to a reader that has heard nothing it means nothing.
        text: what a piece adds.
    """

    number: int
    kind: Literal[PieceKind, "restart"]
    text: str


@dataclass(frozen=True, slots=True)
class StreamPiece:
    """What one claim has to add to its job's stream.

    Attributes:
        enqueue_no: of the claim. Attempts' numbers do not tell claims apart: one that was handed back is not counted.
        before_bytes: UTF-8 length of the claim's pieces before this one, a continued beginning included.
    """

    job_id: UUID
    enqueue_no: int
    before_bytes: int
    text: str
    kind: PieceKind = "delta"
