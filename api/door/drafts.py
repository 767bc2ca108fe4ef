"""The draft: a checked request in the core's terms, before its model is looked up and its prompt counted. Pure.

`specify` turns it into a JobSpec, which then bids for a place. Knows neither HTTP nor the spellings of a request.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from headrace.domain.apps import App
from headrace.domain.compression import NO_CHOICE, CompressChoice
from headrace.domain.jobs import JobSpec
from headrace.domain.places import Ask
from headrace.domain.prompts import CacheChoice, Message, Quality, ReasoningEffort
from headrace.domain.prompts.extra_sampling import ExtraSampling
from headrace.domain.prompts.tools import Tools
from headrace.domain.queues import Lane, Overflow


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

    @property
    def chars(self) -> int:
        """The length of all its texts, tools and calls included, in characters."""
        tools = 0 if self.tools is None else len(json.dumps(self.tools.specs))
        calls = (call for message in self.messages for call in message.tool_calls)
        return tools + sum(len(each.content) for each in self.messages) + sum(len(call.arguments) for call in calls)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bid(Ask):
    """A job that asks to be accepted: what admission control must know of it, and what its caller is told by.

    Attributes:
        request_id: of the HTTP request, for the log.
    """

    spec: JobSpec
    draft: Draft
    app: App
    request_id: str = ""
