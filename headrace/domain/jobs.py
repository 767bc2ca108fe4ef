"""Jobs: as requested, as placed in a queue, as they stand now, and the events of their streams."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

from headrace.domain.answers import Choice, TokenLogprob
from headrace.domain.apps import AppLimits
from headrace.domain.prompts import Message, ReasoningEffort, Sampling
from headrace.domain.prompts.tools import ToolCall, Tools
from headrace.domain.queues import Lane, Overflow, Route, Ticket
from headrace.domain.states import JobState

#: What there was for a job: an identical job's answer, an identical job under way whose answer it shares, the answer of
#: a job that asks the same in other words, or none of these.
CacheUse = Literal["hit", "shared", "semantic", "miss"]


@dataclass(frozen=True, slots=True)
class Idempotency:
    """The client's Idempotency-Key, and the SHA-256 of the request's path and body."""

    key: str
    request_hash: bytes


@dataclass(frozen=True, slots=True)
class JobSpec:
    """A validated request: everything that admission and the store need. Nothing in it changes later.

    Attributes:
        prompt_tokens: counted with the model's own tokenizer and chat template.
        max_wait_s: seconds from acceptance, or from `not_before`, within which the job must start for the first time.
        deadline: when the job is aborted, queued or running; None for no deadline.
        not_before: before it, the job does not start; None for a start as soon as there is room.
        webhook_url: receives the job's end, signed with the app's secret.
        background: False when the job is cancelled if its caller disconnects.
        stream: True when its tokens are published while they are generated.
        adapter: the LoRA adapter that `model` names; None for the pool's model itself.
        is_cache_miss: True if the cache was searched for an identical job's answer, and had none.
        cache_key: what identical jobs share, if this job's answer may serve them; None if it may not.
        is_stored: False if its texts are erased once they are delivered.
        looked_up_by: the pool whose worker looks the job up in the semantic cache while it waits; None for no look-up.
        rule: the rule that chose its pool; None for a job that names its model.
        is_shadowed: True if another pool of the rule is to answer it too, in the background.
        start_after: the `not_before` that its caller asked for; None where only Headrace delays it, or nobody.
        notes: what plugins note of it, by their names, without texts.
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
    not_before: datetime | None = None
    overflow: Overflow = Overflow.ALLOW
    max_cost_usd: Decimal | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    webhook_url: str | None = None
    end_user: str | None = None
    background: bool = True
    stream: bool = False
    idempotency: Idempotency | None = None
    adapter: str | None = None
    is_cache_miss: bool = False
    cache_key: bytes | None = None
    is_stored: bool = True
    looked_up_by: str | None = None
    rule: str | None = None
    is_shadowed: bool = False
    start_after: datetime | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def kv_tokens(self) -> int:
        """The most KV cache that this job can use, in tokens. Its answers share the prompt's."""
        return self.prompt_tokens + self.sampling.most_tokens

    @property
    def is_interactive(self) -> bool:
        """True if its caller waits for the answer, or streams it."""
        return self.stream or not self.background


@dataclass(frozen=True, slots=True)
class Job:
    """One job as it stands now, with its answer; `headrace.tables.jobs` has the columns.

    Attributes:
        logprobs: of the answer's tokens; None if not requested, and in a list of jobs.
        reasoning: the model's reasoning before the answer; None if it gave none, and in a list of jobs.
        reasoning_effort: the requested effort; None if the request did not set it.
        is_over: True for a waiting job whose time has passed: `expire` will end it.
        cache: what the cache had for it; None if it was not searched.
        served_by_job: the job whose answer it was given, or waits for; None for a job with an answer of its own.
        is_leader_ended: True for a job that waits for another job's answer, which has ended: `settle_followers` will
            end it, or move it on.
        original_tokens: what the prompt had before it was compressed; None if it was not.
        tool_calls: the answer's calls of tools. It may have no text then.
        tools: those that the request offered; None without any, and in a list of jobs.
        n: the number of answers that it asks for.
        start_after: the time before which its caller wants no start; None for a start at once.
        others: the answers after the first; None without any, and in a list of jobs.
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
    cache: CacheUse | None = None
    served_by_job: UUID | None = None
    is_leader_ended: bool = False
    original_tokens: int | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tools: Tools | None = None
    n: int = 1
    others: Sequence[Choice] | None = None
    start_after: datetime | None = None

    @property
    def choices(self) -> tuple[Choice, ...]:
        """All answers of a job that has succeeded."""
        first = Choice(
            text=self.answer or "",
            finish_reason=self.finish_reason,
            logprobs=self.logprobs,
            reasoning=self.reasoning or "",
            tool_calls=self.tool_calls,
        )
        return first, *(self.others or ())

    @property
    def stream_id(self) -> UUID:
        """The job whose stream has this job's text: its leader's, if it shares an answer."""
        return self.served_by_job if self.cache == "shared" and self.served_by_job else self.id

    @property
    def is_embedding(self) -> bool:
        """True if its answer is vectors: see `headrace.domain.prompts.embeddings`."""
        return self.max_tokens == 0

    @property
    def max_wait_s(self) -> float:
        """Seconds from `waits_from` within which the job must start."""
        return (self.start_by - self.waits_from).total_seconds()

    @property
    def waits_from(self) -> datetime:
        """When its wait begins: at its acceptance, or at its delayed start."""
        return self.start_after or self.created_at

    @property
    def ticket(self) -> Ticket:
        """What the job's message in its queue says now."""
        return Ticket.of(self)

    @property
    def wait_s(self) -> float | None:
        """Seconds from `waits_from` to the first start, or to the end of a job that never started; at least 0."""
        until = self.started_at or self.ended_at
        return max(0.0, (until - self.waits_from).total_seconds()) if until else None

    @property
    def run_s(self) -> float | None:
        """Seconds from the first start to the end; None until then."""
        return (self.ended_at - self.started_at).total_seconds() if self.started_at and self.ended_at else None


@dataclass(frozen=True, slots=True)
class Inserted:
    """The outcome of an insert: the job that answers the request.

    Attributes:
        job_id: an earlier job's id when the Idempotency-Key was used before with the same body: a replay.
        start_by: None for a replay.
    """

    job_id: UUID
    start_by: datetime | None

    @property
    def is_replay(self) -> bool:
        """True if no new job was created."""
        return self.start_by is None


@dataclass(frozen=True, slots=True)
class LateJob:
    """A waiting job that may spill to the paid API: what its price depends on, and the app that pays."""

    ticket: Ticket
    app: str
    limits: AppLimits
    model: str
    messages: tuple[Message, ...]
    sampling: Sampling
    overflow: Overflow
    max_cost_usd: Decimal | None


#: What an entry of a stream adds. `delta`: text of the answer. `logprobs`: the log probabilities of the tokens in the
#: next `delta`, one JSON object per line. `reasoning`: text that the model generates before the answer. `tool_call`: a
#: piece of a call of a tool, as JSON.
PieceKind = Literal["delta", "logprobs", "reasoning", "tool_call"]

#: More events than any claim publishes. Event numbers must grow even after Redis has lost the last one.
NUMBERS_PER_CLAIM = 1_000_000


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """One event of a job's stream.

    Attributes:
        number: from 1, growing with each event of the job, with gaps. Those of each claim are above those of any older
            claim, by `NUMBERS_PER_CLAIM`, whatever Redis has lost of the older one.
        kind: `restart` invalidates all earlier events; a reader that has received none ignores it. `begin`: a later
            claim continues the text before it.
        text: the text that the event adds.
        choice: the answer that it adds to, from 0; of a restart, all.
        tokens: of the answer by then, as the engine counted them; 0 if it does not say.
    """

    number: int
    kind: Literal[PieceKind, "restart", "begin"]
    text: str
    choice: int = 0
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class StreamPiece:
    """A piece that one claim adds to its job's stream.

    Attributes:
        enqueue_no: of the claim. The attempt's number cannot identify it: an attempt that is handed back is not
            counted.
        before_bytes: UTF-8 length of the claim's earlier pieces, including a beginning that it continues.
        tokens: of the answer with this piece, as the engine counted them; 0 if it does not say.
    """

    job_id: UUID
    enqueue_no: int
    before_bytes: int
    text: str
    kind: PieceKind = "delta"
    choice: int = 0
    tokens: int = 0
