"""The request of `POST /v1/jobs`."""

from typing import Literal, Self

from pydantic import Field, model_validator

from api.door.drafts import Draft, Spelling
from api.schemas.fields import (
    CacheField,
    Choices,
    Compress,
    CompressAlso,
    CompressTo,
    Deadline,
    Dimensions,
    EndUser,
    Inputs,
    MaxTokens,
    MaxWait,
    Metadata,
    QualityField,
    Request,
    ResponseFormat,
    Seed,
    Speaker,
    Stop,
    Temperature,
    TopP,
    Usd,
    WebhookUrl,
    refusal,
)
from api.schemas.fields.extra_sampling import ExtraSamplingRequest
from api.schemas.logprobs import TopLogprobs
from api.schemas.tools import Calls, OutputOf, ToolsRequest, check_outputs, check_turn
from headrace.domain.compression import compress_choice
from headrace.domain.prompts import Message, ReasoningEffort
from headrace.domain.prompts.extra_sampling import NEUTRAL
from headrace.domain.queues import Lane, Overflow

LaneName = Literal["high", "normal", "low", "batch"]
OverflowName = Literal["allow", "never", "only"]

#: Fields that say how a prompt is answered: an embedding job has no use for them.
OF_PROMPTS = (
    *("max_tokens", "n", "temperature", "top_p", "stop", "seed"),
    *("response_format", "top_logprobs", "reasoning_effort"),
    *("tools", "tool_choice", "parallel_tool_calls"),
    *NEUTRAL,
    *("compress", "compress_to", "compress_also"),
)


class ChatMessage(Request):
    """One turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | None = Field(None, description="Its text; null or left out only where the turn has calls.")
    name: Speaker | None = Field(None, description="Who speaks, where several share a role.")
    tool_calls: Calls | None = None
    tool_call_id: OutputOf | None = None

    @model_validator(mode="after")
    def _check_calls(self) -> Self:
        check_turn(self.role, self.tool_calls, self.tool_call_id)
        if self.content is None and not self.tool_calls:
            raise refusal("Field required", "missing", param="content")
        return self

    @property
    def message(self) -> Message:
        """The turn in the core's terms."""
        calls = tuple(each.call for each in self.tool_calls or ())
        return Message(self.role, self.content or "", self.name or None, calls, self.tool_call_id)


class JobRequest(ExtraSamplingRequest, ToolsRequest):
    """A prompt to be answered, or inputs to be embedded. Give one of `prompt`, `messages` and `input`."""

    model: str | None = Field(None, description="A model of GET /v1/models; the first one by default.")
    prompt: str | None = Field(None, description="One user message.")
    messages: list[ChatMessage] | None = Field(
        None, min_length=1, fail_fast=True, description="A conversation, oldest turn first."
    )
    input: Inputs | None = Field(
        None, description="A text, token ids, or a list of either, for an embedding model: each gets a vector."
    )
    dimensions: Dimensions | None = Field(
        None, description="With `input`: shortens the vectors, where the model was trained for it (Matryoshka)."
    )
    max_tokens: MaxTokens | None = Field(
        None,
        description="Bound of the answer. Default: the pool's, 1,024 as shipped, or less where the prompt leaves less.",
    )
    lane: LaneName = Field("normal", description="The priority class, best first: high, normal, low, batch.")
    max_wait: MaxWait | None = Field(
        None, description="Seconds within which the job must start, or it expires unpaid. The lane's own by default."
    )
    deadline: Deadline | None = Field(
        None, description="Unix seconds or ISO 8601. Past it the job is aborted, and pays for what it produced."
    )
    overflow: OverflowName = Field("allow", description="Whether a paid API may answer when the own GPUs are behind.")
    max_cost_usd: Usd | None = Field(None, description="A paid API is used only if it cannot cost more than this.")
    n: Choices | None = Field(None, description="How many answers to make, each of `max_tokens` at most.")
    temperature: Temperature | None = None
    top_p: TopP | None = None
    stop: Stop | None = None
    seed: Seed | None = None
    response_format: ResponseFormat | None = Field(
        None, description='`{"type": "text" | "json_object"}` or `{"type": "json_schema", "json_schema": {...}}`.'
    )
    top_logprobs: TopLogprobs | None = Field(None, description="Asks for log probabilities, and so many alternatives.")
    reasoning_effort: ReasoningEffort | None = Field(None, description="How much the model is to think first.")
    metadata: Metadata | None = Field(None, description="Up to 16 pairs of your own; returned with the job.")
    webhook: WebhookUrl | None = Field(None, description="Called once the job has ended, signed with the app's secret.")
    end_user: EndUser | None = Field(None, description="Who caused this, in your own words: costs can be split by it.")
    cache: CacheField = None
    compress: Compress = None
    compress_to: CompressTo = None
    compress_also: CompressAlso = None
    quality: QualityField = None

    @model_validator(mode="after")
    def _one_prompt(self) -> Self:
        if sum(given is not None for given in (self.prompt, self.messages, self.input)) != 1:
            raise refusal("give one of 'prompt', 'messages' and 'input'", param="prompt")
        if self.prompt is not None and not self.prompt.strip():
            raise refusal("it must not be empty", param="prompt")
        if self.messages is not None and not any(turn.message.has_content for turn in self.messages):
            raise refusal("at least one message must have content", param="messages")
        check_outputs([turn.message for turn in self.messages or ()], "messages.")
        return self

    @model_validator(mode="after")
    def _only_what_applies(self) -> Self:
        if self.input is None and self.dimensions is not None:
            raise refusal("it needs 'input': a prompt gets no vector", param="dimensions")
        for name in OF_PROMPTS if self.input is not None else ():
            if getattr(self, name) is not None:
                raise refusal("an 'input' is embedded, not answered: leave it out", param=name)
        return self

    @property
    def _turns(self) -> tuple[Message, ...]:
        """The conversation, or the inputs."""
        if self.input is not None:
            return self.input
        if self.messages is None:
            return (Message("user", self.prompt or ""),)
        return tuple(turn.message for turn in self.messages)

    @property
    def _spelling(self) -> Spelling:
        given = {"prompt": self.prompt, "messages": self.messages, "input": self.input}
        return Spelling(prompt=next(name for name, value in given.items() if value is not None))

    def to_draft(self) -> Draft:
        """The request in the core's terms."""
        return Draft(
            spelling=self._spelling,
            messages=self._turns,
            is_embedding=self.input is not None,
            dimensions=self.dimensions,
            model=self.model,
            max_tokens=self.max_tokens,
            n=self.n or 1,
            lane=Lane(self.lane),
            max_wait_s=self.max_wait,
            deadline=self.deadline,
            overflow=Overflow(self.overflow),
            max_cost_usd=self.max_cost_usd,
            temperature=self.temperature,
            top_p=self.top_p,
            stop=tuple(self.stop or ()),
            seed=self.seed,
            response_format=self.response_format,
            top_logprobs=self.top_logprobs,
            reasoning_effort=self.reasoning_effort,
            metadata=self.metadata or {},
            webhook_url=self.webhook,
            end_user=self.end_user,
            cache=self.cache,
            extra_sampling=self.extra_sampling,
            compress=compress_choice(self.compress, self.compress_to, self.compress_also),
            quality=self.quality,
            tools=self.offered,
        )
