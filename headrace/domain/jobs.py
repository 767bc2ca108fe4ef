"""The job: its states and who may change them, its lane, its prompt and what it used.

Pure nouns. Nothing here knows a database, a broker or HTTP.
"""

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, Literal, TypedDict
from uuid import UUID

from uuid_utils.compat import uuid7

from headrace.errors import IllegalTransition, NotFound


class JobState(StrEnum):
    """Where a job is. Each state is documented by its exits in `docs/lifecycle.md`."""

    #: In Postgres only. `publish_due` moves it on, through `admission`.
    WAITING = "waiting"
    #: A message is, or soon will be, in the queue's list. A worker's claim or `expire` moves it on.
    QUEUED = "queued"
    #: A worker holds it under its lease. The worker finishes it; `rescue` takes it from a dead one.
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    #: `start_by` passed before a first start. Costs nothing.
    EXPIRED = "expired"

    @property
    def is_terminal(self) -> bool:
        """True when nothing will change this job any more."""
        return not TRANSITIONS[self]


#: The transition table: from each state, the states it may become. `store.transition` obeys it.
TRANSITIONS: Mapping[JobState, frozenset[JobState]] = {
    JobState.WAITING: frozenset(
        {JobState.QUEUED, JobState.EXPIRED, JobState.CANCELLED, JobState.SUCCEEDED, JobState.FAILED}
    ),
    JobState.QUEUED: frozenset(
        {JobState.RUNNING, JobState.EXPIRED, JobState.CANCELLED, JobState.SUCCEEDED, JobState.FAILED}
    ),
    JobState.RUNNING: frozenset({JobState.WAITING, JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED}),
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
    JobState.EXPIRED: frozenset(),
}

_HEX_ID = re.compile("[0-9a-fA-F]{32}")
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")

#: Of a job's `suspicion`: from here on it runs alone.
SUSPECT = 2

TERMINAL: frozenset[JobState] = frozenset(state for state, exits in TRANSITIONS.items() if not exits)


def check_transition(source: JobState, target: JobState) -> None:
    """Raise IllegalTransition unless the table allows `source -> target`."""
    if target not in TRANSITIONS[source]:
        raise IllegalTransition(f"A job cannot go from {source} to {target}.")


class Lane(StrEnum):
    """A priority class, best first."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"
    BATCH = "batch"

    @property
    def priority(self) -> int:
        """Rank for an engine's scheduler: lower runs first."""
        return list(Lane).index(self)


class Overflow(StrEnum):
    """Whether a job may be answered by the paid API."""

    ALLOW = "allow"
    NEVER = "never"
    ONLY = "only"


#: Service tiers of a paid API that are asked for: `flex` is cheaper and slower, and refused while capacity is short.
#: Source: OpenAI's guide "Flex processing".
ApiTier = Literal["default", "flex"]


class Route(StrEnum):
    """Which way a job was sent."""

    POOL = "pool"
    OVERFLOW = "overflow"


Role = Literal["system", "developer", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


#: How much a model is to think before it answers, from nothing upwards. Source: OpenAI's API; vLLM's own server.
ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to decode. `max_tokens` bounds the output; None elsewhere means the engine's default.

    Attributes:
        top_logprobs: the most likely tokens to tell of at each place of the answer, beside the one that was made; None
            where no log probability is asked for.
        reasoning_effort: how much to think before the answer.
    """

    max_tokens: int
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    response_format: Mapping[str, Any] | None = None
    top_logprobs: int | None = None
    reasoning_effort: ReasoningEffort | None = None


class Alternative(TypedDict):
    """A token that could have been made at some place, as JSON has it.

    Attributes:
        token: its text; empty for one that ends within a character, which belongs to the token that completes it.
        logprob: the natural logarithm of its probability; `LEAST_LOGPROB` where that is too small to tell.
        bytes: of its text in UTF-8.
    """

    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(Alternative):
    """A token that was made, and the most likely ones at its place, best first."""

    top_logprobs: list[Alternative]


#: What stands for the log probability of a token that is as good as impossible. Source: OpenAI's and vLLM's APIs.
LEAST_LOGPROB = -9999.0
#: The most alternatives to a token that can be asked for. Source: OpenAI's API; vLLM's own default.
MOST_LOGPROBS = 20


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


#: The public spellings of one job's UUID, by the API that hands it out.
ID_PREFIXES = ("job_", "resp_", "chatcmpl-")


def new_id() -> UUID:
    """A UUIDv7: sorts by creation time, so that an index on it stays compact."""
    return uuid7()


def oldest_id(at: datetime) -> UUID:
    """The smallest UUIDv7 that can be made at this time: its first 48 bits are unix milliseconds (RFC 9562)."""
    return UUID(int=int(at.timestamp() * 1000) << 80)


def time_of(job_id: UUID) -> datetime:
    """When this UUIDv7 was made, to the millisecond."""
    return datetime.fromtimestamp((job_id.int >> 80) / 1000, UTC)


def show_id(job_id: UUID, prefix: str = "job_") -> str:
    """The public spelling, e.g. `job_0197…`: prefix and 32 hex digits."""
    return f"{prefix}{job_id.hex}"


def parse_id(text: str) -> UUID:
    """The UUID inside a public id. Raises: NotFound, also for a malformed id, since no such job exists."""
    for prefix in ID_PREFIXES:
        digits = text.removeprefix(prefix)
        # `UUID` would also read underscores and the digits of other scripts.
        if digits != text and _HEX_ID.fullmatch(digits):
            return UUID(hex=digits)
    raise NotFound(f"No job with id '{text[:80]}'.")


def prompt_digest(model: str, messages: Sequence[Message], sampling: Sampling) -> bytes:
    """By what a prompt is known again: what the model is asked, and how it is to decode, whoever asks."""
    asked = {"model": model, "messages": [asdict(each) for each in messages], "sampling": asdict(sampling)}
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).digest()


def storable(text: str) -> str:
    """The text with what Postgres cannot hold (NUL, lone surrogates) replaced by U+FFFD.

    A model may emit either; an answer that can never be committed would be run again and again.
    """
    return _UNSTORABLE.sub("\ufffd", text)


def alternative(token: str, logprob: float) -> Alternative:
    """A token and its log probability, whatever an engine has computed, as JSON and Postgres can hold them."""
    if not LEAST_LOGPROB <= logprob < math.inf:  # Nor is anything that is no number.
        logprob = LEAST_LOGPROB
    token = storable(token)
    return {"token": token, "logprob": logprob, "bytes": list(token.encode())}
