"""The draft: a checked request in the core's terms, before its model is looked up and its prompt counted. Pure.

`specify` turns it into a JobSpec, which then bids for a place. Knows neither HTTP nor the spellings of a request.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, TypeAlias
from uuid import UUID

from headrace.domain.apps import App
from headrace.domain.fleet import Vacancy
from headrace.domain.jobs import CacheUse, Job, JobSpec
from headrace.domain.limits import RatesLeft
from headrace.domain.places import Ask
from headrace.domain.prompts import CacheChoice, ExtraSampling, Message, Quality, ReasoningEffort
from headrace.domain.prompts.compression import NO_CHOICE, CompressChoice
from headrace.domain.prompts.tools import Tools
from headrace.domain.queues import Candidate, Lane, Overflow
from headrace.domain.states import JobState
from headrace.policies.routing import route_of

#: Characters that a chat template adds around one message, as in ChatML.
TEMPLATE_CHARS = 32
#: Nothing, with the scale of the bills' columns.
NO_USD = Decimal("0.000000000")


@dataclass(frozen=True, slots=True)
class Sent:
    """The HTTP request that a draft was made from.

    Attributes:
        id: for the log.
        body: as it was sent. If the job is refused, it tells whether the request was refused before.
        is_kept: who submits it keeps it, and tries again, so that a refusal is no demand that was lost.
    """

    id: str = ""
    body: bytes = b""
    is_kept: bool = False


#: A job that no HTTP request asked for.
NOT_SENT = Sent()


@dataclass(frozen=True, slots=True)
class Spelling:
    """The caller's names for the fields that are checked late, so that an error can name them.

    Attributes:
        own_prefix: the prefix of the fields that OpenAI's API lacks.
    """

    prompt: str
    max_tokens: str = "max_tokens"
    own_prefix: str = ""
    lane: str = "lane"
    effort: str = "reasoning_effort"


@dataclass(frozen=True, slots=True)
class ItemReference:
    """A turn of an earlier response, named by its id. Attributes: param: the field that names it."""

    id: str
    param: str


@dataclass(frozen=True, slots=True)
class Continuation:
    """A conversation that goes on from the caller's stored responses. `compose` reads them.

    Attributes:
        previous_id: the response whose conversation comes before the turns; None without one.
        instructions: come before all turns, in place of the previous response's.
        turns: the new turns, oldest first.
    """

    previous_id: str | None
    instructions: Message | None
    turns: tuple[Message | ItemReference, ...]

    @property
    def is_whole(self) -> bool:
        """True if nothing must be read."""
        return self.previous_id is None and not any(isinstance(turn, ItemReference) for turn in self.turns)


@dataclass(frozen=True, slots=True)
class Draft:
    """A request as submitted; None where the caller left the choice to Headrace.

    Attributes:
        messages: a conversation, or the inputs of an embedding job; of a continuation, empty until it is composed.
        is_embedding: its answer is vectors.
        is_plain: it has a text, or token ids, to be continued without a chat template.
        is_stored: False if its texts are erased once they are delivered.
        rule: the rule by which its model was chosen; None for the caller's own choice.
        choice_reason: why the rules chose this model; empty for the caller's own choice.
        tools: the functions that the model may call; None without any.
        n: how many answers to make, each of `max_tokens` at most.
        default_max_tokens: in place of the pool's, where its API has its own.
        job_id: its job's; None for a new one.
        notes: what plugins note of it, by their names, without texts.
    """

    spelling: Spelling
    messages: tuple[Message, ...]
    is_embedding: bool = False
    is_plain: bool = False
    model: str | None = None
    max_tokens: int | None = None
    lane: Lane = Lane.NORMAL
    max_wait_s: float | None = None
    deadline: datetime | None = None
    not_before: datetime | None = None
    overflow: Overflow = Overflow.ALLOW
    max_cost_usd: Decimal | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    response_format: Mapping[str, Any] | None = None
    top_logprobs: int | None = None
    reasoning_effort: ReasoningEffort | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    webhook_url: str | None = None
    end_user: str | None = None
    background: bool = True
    stream: bool = False
    cache: CacheChoice | None = None
    dimensions: int | None = None
    extra_sampling: ExtraSampling | None = None
    continuation: Continuation | None = None
    is_stored: bool = True
    compress: CompressChoice = NO_CHOICE
    quality: Quality | None = None
    rule: str | None = None
    choice_reason: str = ""
    tools: Tools | None = None
    n: int = 1
    default_max_tokens: int | None = None
    job_id: UUID | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def chars(self) -> int:
        """The length of all its texts, tools and calls included, in characters."""
        tools = 0 if self.tools is None else len(json.dumps(self.tools.specs))
        calls = (call for message in self.messages for call in message.tool_calls)
        return tools + sum(len(each.content) for each in self.messages) + sum(len(call.arguments) for call in calls)

    @property
    def templated_chars(self) -> int:
        """About the same with the chat template around each message."""
        return self.chars + TEMPLATE_CHARS * len(self.messages)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bid(Ask):
    """A job that asks to be accepted: what admission control needs, and what the reply is made from."""

    spec: JobSpec
    app: App
    sent: Sent = NOT_SENT


@dataclass(frozen=True, slots=True)
class Accepted:
    """An accepted job, as its caller sees it.

    Attributes:
        max_tokens, max_wait_s: as the caller gave them, or their defaults.
        position: counts from 1, within the lane; None for a replay, whose place is not looked up again, and for a job
            that the cache has served.
        depth: jobs in the queue, this one included; None for these, too.
        expected_wait_s: until its start; None when it is unknown, and for these.
        rates_left: what the app's own limits have left; None for a replay, which uses nothing.
        is_replay: True when an earlier request with this Idempotency-Key made the job.
        cache: what the cache had for it; None if it was not searched.
        confined_until: until when the app's jobs in this pool run one at a time; None if it is not confined.
        vacancy: no worker serves any queue that the job may go to; None if one does, or that is unknown.
        fresh: makes the job as it was inserted; None for one that must be read, such as a replay.
    """

    job_id: UUID
    state: JobState
    lane: Lane
    queue: str
    start_by: datetime
    max_tokens: int
    max_wait_s: float
    position: int | None = None
    depth: int | None = None
    expected_wait_s: float | None = None
    rates_left: RatesLeft | None = None
    is_replay: bool = False
    cache: CacheUse | None = None
    confined_until: datetime | None = None
    vacancy: Vacancy | None = None
    fresh: Callable[[], Job] | None = None


def as_inserted(spec: JobSpec, candidate: Candidate, start_by: datetime) -> Job:
    """Makes the job of a spec with a place in the candidate's queue, as `find.sql` reads it until it is claimed."""
    return Job(
        id=spec.id,
        app_id=spec.app_id,
        state=JobState.QUEUED,
        lane=spec.lane,
        pool=spec.pool,
        queue=candidate.queue,
        route=route_of(candidate.queue),
        route_reason=candidate.reason,
        overflow=spec.overflow,
        model_requested=spec.model,
        model_served=None,
        metadata=spec.metadata,
        end_user=spec.end_user,
        background=spec.background,
        stream=spec.stream,
        prompt_tokens=spec.prompt_tokens,
        max_tokens=spec.sampling.max_tokens,
        output_tokens=None,
        cached_tokens=None,
        finish_reason=None,
        usd=NO_USD,
        error_code=None,
        error_message=None,
        enqueue_no=1,
        attempt=0,
        suspicion=0,
        created_at=start_by - timedelta(seconds=spec.max_wait_s),
        start_by=start_by,
        finish_by=spec.deadline,
        started_at=None,
        ended_at=None,
        cancel_requested_at=None,
        retry_of=None,
        answer=None,
        engine=None,
        price_version=None,
        is_over=False,
        reasoning_effort=spec.sampling.reasoning_effort,
        cache="miss" if spec.is_cache_miss else None,
        tools=spec.sampling.tools,
        n=spec.sampling.n,
    )


def without_place(
    spec: JobSpec, state: JobState, queue: str, start_by: datetime, left: RatesLeft, cache: CacheUse | None = None
) -> Accepted:
    """Makes the accept of a job without a place in its queue: it has an answer, follows a job, or starts later."""
    return Accepted(
        job_id=spec.id,
        state=state,
        lane=spec.lane,
        queue=queue,
        start_by=start_by,
        max_tokens=spec.sampling.max_tokens,
        max_wait_s=spec.max_wait_s,
        rates_left=left,
        cache=cache,
    )


#: Before a job asks for its place, in no transaction: returns the job, the same or another, or answers in its place.
#: Raises: what `Submitter.submit` may raise.
BeforeBid: TypeAlias = Callable[[JobSpec, Draft, App, Sent], JobSpec | Accepted]
