"""Attempts: the right to run a job once, and how the run ended."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal, NamedTuple
from uuid import UUID

from headrace.domain.answers import Choice, TokenLogprob
from headrace.domain.limits import Cost
from headrace.domain.prompts import Message, Sampling
from headrace.domain.prompts.tools import ToolCall
from headrace.domain.queues import Lane, Overflow, Route
from headrace.domain.states import JobState
from headrace.errors import PayloadUnreadable

#: Service tiers that Headrace requests from a paid API. `flex` is cheaper and slower; the provider refuses it while
#: capacity is short.
#: Source: OpenAI's guide "Flex processing".
ApiTier = Literal["default", "flex"]


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one attempt, as the engine counted them.

    Attributes:
        cached_tokens: part of `prompt_tokens`.
        reasoning_tokens: part of `output_tokens`: those before the first token of the answer.
    """

    prompt_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Claim:
    """A worker's right to run one attempt of one job. It fences every write about the attempt.

    Attributes:
        reserved_usd: reserved in the budgets for its call to the paid API.
        enqueue_no: of the message that the claim took. It orders the claims of one job. `attempt` cannot: an attempt
            that is handed back is not counted, so two claims may have the same number.
        stream: True when the job's tokens are published while they are generated.
        compressed: what the engine gets in place of `messages`; None where that is `messages` themselves.
        rule: the rule that chose its pool; None for a job that names its model.
        stand_by: until when it waits for a better answer than the one that it has; None if it has none.
        shadow_of: the job that this shadow answers once more; None for an app's job.
        notes: what plugins have noted of the job, by their names; None: nothing.
        unread: why this process cannot read the prompt, so that `messages` is empty; None if it can.
    """

    job_id: UUID
    attempt: int
    enqueue_no: int
    worker_id: UUID
    app_id: UUID
    end_user: str | None
    lane: Lane
    pool: str
    model: str
    overflow: Overflow
    max_cost_usd: Decimal | None
    prompt_tokens: int
    messages: tuple[Message, ...]
    sampling: Sampling
    start_by: datetime
    finish_by: datetime | None
    has_webhook: bool
    stream: bool
    suspicion: int
    route: Route
    adapter: str | None = None
    reserved_usd: Decimal = Decimal(0)
    compressed: tuple[Message, ...] | None = None
    rule: str | None = None
    stand_by: datetime | None = None
    shadow_of: UUID | None = None
    notes: Mapping[str, Any] | None = None
    unread: PayloadUnreadable | None = None

    @property
    def request_id(self) -> str:
        """Names the claim in the engine. Its attempt's number may be another claim's, too."""
        return f"{self.job_id.hex}.{self.enqueue_no}"

    @property
    def sent(self) -> tuple[Message, ...]:
        """The messages that the engine gets."""
        return self.messages if self.compressed is None else self.compressed


NOTHING_USED = Usage()


LedgerKind = Literal["compute", "api", "waste"]


@dataclass(frozen=True, slots=True)
class AttemptEnd:
    """How one attempt ended and what it costs.

    Attributes:
        kind: `waste` when its tokens were spent without a delivered result.
        estimated: True when the real cost is unknown; `cost` is then the maximum.
        api_usd: what the paid API would have charged for the same tokens; None when it has no price.
        text: the answer; None without an answer to store.
        logprobs: of the answer's tokens; None if not requested.
        reasoning: the model's reasoning before the answer; empty if it gave none.
        tool_calls: the answer's calls of tools.
        original_tokens: what the prompt had before it was compressed; None if it was not.
        saved_usd: what those tokens would have cost that compression took away; None if it was not.
        reason: why the ledger has it, for a kind with several reasons.
        escalated_by: the signal that called its answer bad.
        others: the answers after the first, where several were asked for.
        notes: what plugins note of the job that ends, by their names, in place of what they had noted.
    """

    outcome: Literal["succeeded", "failed", "aborted"]
    engine_s: float
    cost: Cost
    kind: LedgerKind
    usage: Usage = NOTHING_USED
    text: str | None = None
    finish_reason: str | None = None
    model_served: str | None = None
    first_token_s: float | None = None
    api_usd: Decimal | None = None
    error_code: str | None = None
    error_message: str | None = None
    error_cause: str | None = None
    host_id: str | None = None
    preemptions: int = 0
    estimated: bool = False
    logprobs: Sequence[TokenLogprob] | None = None
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    original_tokens: int | None = None
    saved_usd: Decimal | None = None
    reason: str | None = None
    escalated_by: str | None = None
    others: tuple[Choice, ...] = ()
    notes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Escalation:
    """A job's way to the next pool of its rule, because a signal called its answer bad.

    Attributes:
        signal: what called it bad.
        pool, model: those that answer next.
        reason: what the job's row says of it.
        wait_s: how long the job waits there. Then the answer that it has is given after all.
    """

    signal: str
    pool: str
    model: str
    queue: str
    route: Route
    reason: str
    wait_s: float


class Outcome(NamedTuple):
    """The job's state after an attempt, and the error code that led to it, if any."""

    state: JobState
    error_code: str | None = None


@dataclass(frozen=True, slots=True)
class Reroute:
    """Another queue for a job, and why it goes there, `delay_s` from now."""

    queue: str
    route: Route
    reason: str
    delay_s: float = 0.0


@dataclass(frozen=True, slots=True)
class HandBack:
    """How a worker hands a claimed job back.

    With a delay or a reroute, a first attempt does not count as a start: the job's `start_by` still applies.

    Attributes:
        suspicion: added to the job's suspicion, because an engine died while it ran.
        delay_s: seconds until the job is due again; `reroute` has its own delay and overrides this one.
        reroute: the queue where the job waits from now on; None for the same queue.
        needs_version: the payload version that a worker must read to run the job; None if this worker could read it.
    """

    suspicion: int = 0
    delay_s: float = 0.0
    reroute: Reroute | None = None
    needs_version: int | None = None


#: Same queue, due at once.
AS_BEFORE = HandBack()


@dataclass(frozen=True, slots=True)
class HeldAttempt:
    """A running attempt under a worker's lease, as stored in Postgres. `stop`: why it must stop; None if it may run."""

    job_id: UUID
    enqueue_no: int
    stop: Literal["cancelled", "deadline_exceeded"] | None

    @property
    def request_id(self) -> str:
        """As its claim's."""
        return f"{self.job_id.hex}.{self.enqueue_no}"
