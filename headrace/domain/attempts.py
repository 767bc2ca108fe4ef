"""Attempts: the right to run a job once, and how the run ended."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Literal
from uuid import UUID

from headrace.domain.budgets import Cost
from headrace.domain.logprobs import TokenLogprob
from headrace.domain.prompts import Message, Sampling
from headrace.domain.queues import Lane, Overflow, Route

#: Service tiers of a paid API that are asked for: `flex` is cheaper and slower, and refused while capacity is short.
#: Source: OpenAI's guide "Flex processing".
ApiTier = Literal["default", "flex"]


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one attempt, as the engine counted them.

    Attributes:
        cached_tokens: part of `prompt_tokens`.
        reasoning_tokens: part of `output_tokens`: those before the answer's first.
    """

    prompt_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Claim:
    """A worker's right to one attempt of one job: the fence of everything it writes about it.

    Attributes:
        reserved_usd: set aside in the budgets for its call to the paid API.
        enqueue_no: of the message it was claimed by. It tells apart, and orders, the claims of one job, also where
            `attempt` does not: an attempt that is handed back is not counted.
        stream: True when the job's tokens are to be published while they are made.
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

    @property
    def request_id(self) -> str:
        """What the engine calls this attempt."""
        return f"{self.job_id.hex}.{self.attempt}"


NOTHING_USED = Usage()


LedgerKind = Literal["compute", "api", "waste"]


@dataclass(frozen=True, slots=True)
class AttemptEnd:
    """How one attempt went and what it is charged.

    Attributes:
        kind: `waste` when its tokens were burnt without a delivered result.
        estimated: True when nobody knows what it has cost, and `cost` is the most that it can be.
        api_usd: what the paid API would have charged for the same tokens; None when it has no price.
        text: the answer; None when there is none to keep.
        logprobs: of its tokens; None where they were not asked for.
        reasoning: what came before it; empty when nothing did.
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
    host_id: str | None = None
    preemptions: int = 0
    estimated: bool = False
    logprobs: Sequence[TokenLogprob] | None = None
    reasoning: str = ""


@dataclass(frozen=True, slots=True)
class Reroute:
    """Another queue for a job, and why it goes there, `delay_s` from now."""

    queue: str
    route: Route
    reason: str
    delay_s: float = 0.0


@dataclass(frozen=True, slots=True)
class HandBack:
    """How a job is given back by a worker that took it.

    Attributes:
        suspicion: how much more of it falls on the job, for an engine has died.
        delay_s: until it is due again. A job that could not really start is bound by its `start_by` as before.
        reroute: where it waits from now on, instead of `delay_s`; None where it did. Likewise.
    """

    suspicion: int = 0
    delay_s: float = 0.0
    reroute: Reroute | None = None


#: It waits where it did, and is due at once.
AS_BEFORE = HandBack()


@dataclass(frozen=True, slots=True)
class HeldAttempt:
    """An attempt that runs under a worker's lease, as Postgres has it. `stop` says why it must stop, if it must."""

    job_id: UUID
    attempt: int
    stop: Literal["cancelled", "deadline_exceeded"] | None

    @property
    def request_id(self) -> str:
        """What the engine calls this attempt."""
        return f"{self.job_id.hex}.{self.attempt}"
