"""`/v1/chat/completions`: its request, with what is honoured and what is refused by name, and its answer.

Source: the request types of openai-python 3.57; a test holds the lists against them.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from api.door.drafts import Accepted, Draft, Spelling
from api.schemas.fields import (
    Answer,
    Choices,
    MaxTokens,
    Request,
    ResponseFormat,
    Seed,
    Speaker,
    Stop,
    refusal,
    unsupported,
)
from api.schemas.logprobs import TokenLogprobBody, TokenLogprobs, TopLogprobs
from api.schemas.openai import LANE_TIERS, JobView, OpenAIRequest
from api.schemas.tools import Calls, OutputOf, ToolCallBody, ToolsRequest, check_outputs, check_turn
from headrace.domain.answers import Choice
from headrace.domain.ids import show_id
from headrace.domain.jobs import Job
from headrace.domain.prompts import Message, ReasoningEffort

ChatFinishReason = Literal["stop", "length", "tool_calls"]
#: Where a stream has its usage: in one more chunk at its end, or so far in each chunk too.
UsageIn = Literal["end", "chunks"]

OLD_TOOLS = "Send 'tools', 'tool_choice' and turns with 'tool_calls', which have taken its place."


class ChatTextPart(Request):
    """A piece of a message's text."""

    type: Literal["text"]
    text: str
    cache_control: Any = Field(None, description="Not acted on: prefixes are cached by themselves.")


def _as_parts(content: Any) -> Any:
    """A text, or null as in an earlier answer without text, as parts."""
    return [{"type": "text", "text": content or ""}] if content is None or isinstance(content, str) else content


class ChatTurn(Request):
    """One turn of a conversation; an earlier answer's message can be sent back as it came."""

    UNSUPPORTED: ClassVar[Mapping[str, str]] = {
        "annotations": "Leave them out.",
        "audio": "Only text is read: leave it out.",
        "function_call": OLD_TOOLS,
        "refusal": "Send it as 'content'.",
    }

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Annotated[
        list[ChatTextPart],
        Field(min_length=1, fail_fast=True),
        BeforeValidator(_as_parts, json_schema_input_type=str | list[ChatTextPart] | None),
    ]
    name: Speaker | None = Field(None, description="Who speaks, where several share a role.")
    tool_calls: Calls | None = None
    tool_call_id: OutputOf | None = None
    reasoning: str | None = Field(None, description="Not acted on: what came before an earlier answer.")
    reasoning_content: Any = Field(None, description="Not acted on: another name of `reasoning`.")
    cache_control: Any = Field(None, description="Not acted on: prefixes are cached by themselves.")
    parsed: Any = Field(None, description="Not acted on: what OpenAI's SDK reads from an earlier answer.")
    provider_specific_fields: Any = Field(None, description="Not acted on: LiteLLM's notes on an earlier answer.")

    @model_validator(mode="before")
    @classmethod
    def _with_content(cls, values: Any) -> Any:
        # A turn that only calls tools may have no content, or null.
        if isinstance(values, dict) and values.get("tool_calls") and "content" not in values:
            return {**values, "content": None}
        return values

    @model_validator(mode="after")
    def _check_calls(self) -> Self:
        check_turn(self.role, self.tool_calls, self.tool_call_id)
        return self

    @property
    def message(self) -> Message:
        """The turn in the core's terms; parts of its text are lines, as in vLLM's own server."""
        text = "\n".join(part.text for part in self.content)
        calls = tuple(each.call for each in self.tool_calls or ())
        return Message(self.role, text, self.name or None, calls, self.tool_call_id)


class StreamOptions(Request):
    """`include_obfuscation` is accepted and not acted on: a stream is never obfuscated."""

    include_usage: bool | None = Field(None, description="One more chunk at the end, with the usage.")
    include_obfuscation: bool | None = None
    continuous_usage_stats: bool | None = Field(
        None, description="The tokens so far with each chunk too, where the engine counts them, as vLLM's does."
    )

    @property
    def usage_in(self) -> UsageIn | None:
        """Which chunks have the usage."""
        if self.continuous_usage_stats:
            return "chunks"
        return "end" if self.include_usage else None


class ChatRequest(OpenAIRequest, ToolsRequest):
    """A conversation to be continued while the caller waits, or as a stream."""

    UNSUPPORTED: ClassVar[Mapping[str, str]] = {
        "audio": "Only text is answered: leave it out.",
        "function_call": OLD_TOOLS,
        "functions": OLD_TOOLS,
        "moderation": "Leave it out, and moderate the text yourself.",
        "prediction": "Leave it out.",
        "prompt_cache_options": "Leave it out: prefixes are cached by themselves.",
        "web_search_options": "Nothing is searched here: leave it out.",
    }

    messages: list[ChatTurn] = Field(
        min_length=1, fail_fast=True, description="A conversation, oldest turn first; text only."
    )
    max_completion_tokens: MaxTokens | None = None
    max_tokens: MaxTokens | None = Field(None, description="The older name of max_completion_tokens.")
    logprobs: bool | None = Field(None, description="The log probability of each token of the answer.")
    top_logprobs: TopLogprobs | None = Field(None, description="The likeliest tokens at each place; with `logprobs`.")
    modalities: list[Literal["text"]] | None = None
    n: Choices | None = Field(None, description="How many answers to make, each of `max_completion_tokens` at most.")
    reasoning_effort: ReasoningEffort | None = Field(None, description="How much the model is to think first.")
    response_format: ResponseFormat | None = None
    seed: Seed | None = None
    service_tier: Literal["auto", "default", "flex", "scale", "priority", "fast"] | None = None
    stop: Stop | None = None
    store: bool | None = Field(None, description="Not true: the job can be read at /v1/jobs/{id} until it is deleted.")
    stream_options: StreamOptions | None = None
    verbosity: Literal["low", "medium", "high"] | None = Field(None, description="Not acted on.")

    @field_validator("messages")
    @classmethod
    def _not_empty(cls, turns: list[ChatTurn]) -> list[ChatTurn]:
        messages = [turn.message for turn in turns]
        if not any(message.has_content for message in messages):
            raise refusal("at least one message must have content")
        check_outputs(messages)
        return turns

    @model_validator(mode="after")
    def _refuse_modes(self) -> Self:
        if self.store:
            raise unsupported("store", "Read the job at GET /v1/jobs/{id}, whose id is in the header x-job-id.")
        if self.stream_options is not None and not self.stream:
            raise refusal("it needs stream=true", param="stream_options")
        if self.top_logprobs and not self.logprobs:
            raise refusal("it needs logprobs=true", param="top_logprobs")
        both = {self.max_completion_tokens, self.max_tokens} - {None}
        if len(both) > 1:
            raise refusal("max_completion_tokens says otherwise: give one of the two", param="max_tokens")
        return self

    @property
    def usage_in(self) -> UsageIn | None:
        """Whether a stream ends with its usage."""
        return self.stream_options.usage_in if self.stream_options else None

    def to_draft(self) -> Draft:
        """The request in the core's terms."""
        is_old = self.max_completion_tokens is None and self.max_tokens is not None
        return Draft(
            **self.shared(),
            spelling=Spelling("messages", "max_tokens" if is_old else "max_completion_tokens", "job.", self.lane_param),
            messages=tuple(turn.message for turn in self.messages),
            tools=self.offered,
            max_tokens=self.max_tokens if is_old else self.max_completion_tokens,
            stop=tuple(self.stop or ()),
            seed=self.seed,
            response_format=self.response_format,
            top_logprobs=(self.top_logprobs or 0) if self.logprobs else None,
            reasoning_effort=self.reasoning_effort,
            n=self.n or 1,
            background=False,
        )


class ChatMessageBody(Answer):
    """The answer."""

    role: Literal["assistant"] = "assistant"
    content: str | None = Field(description="Its text; null where it only calls tools.")
    tool_calls: list[ToolCallBody] | None = Field(description="The tools that it calls; null: none.")
    reasoning: str | None = Field(description="What the model thought before it answered; null: nothing, or not told.")
    refusal: None = None
    annotations: tuple[()] = ()


class ChatLogprobs(Answer):
    """Of each token of the answer."""

    content: TokenLogprobs
    refusal: None = None


class ChatChoice(Answer):
    """An answer, of `n`. `length`: it was cut at its limit; `tool_calls`: the model chose to call tools."""

    index: int
    message: ChatMessageBody
    finish_reason: ChatFinishReason
    logprobs: ChatLogprobs | None = Field(description="Where they were asked for.")

    @classmethod
    def of(cls, number: int, answer: Choice) -> Self:
        """One of a job's answers."""
        content, calls = TokenLogprobBody.each_of(answer.logprobs), ToolCallBody.each_of(answer.tool_calls)
        # One that only calls tools has no text.
        text = answer.text or (None if answer.tool_calls else "")
        return cls(
            index=number,
            message=ChatMessageBody(content=text, tool_calls=calls, reasoning=answer.reasoning or None),
            finish_reason=finish_reason_of(answer),
            logprobs=None if content is None else ChatLogprobs(content=content),
        )


class PromptTokensDetails(Answer):
    """Of the prompt's tokens, those that need not be computed again."""

    cached_tokens: int


class CompletionTokensDetails(Answer):
    """Of the completion's tokens, those that came before the answer."""

    reasoning_tokens: int


class ChatUsage(Answer):
    """Tokens as the engine counted them."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails

    @classmethod
    def of(cls, job: Job) -> Self:
        """What an ended job used."""
        output_tokens = job.output_tokens or 0
        return cls(
            prompt_tokens=job.prompt_tokens,
            completion_tokens=output_tokens,
            total_tokens=job.prompt_tokens + output_tokens,
            prompt_tokens_details=PromptTokensDetails(cached_tokens=job.cached_tokens or 0),
            completion_tokens_details=CompletionTokensDetails(reasoning_tokens=job.reasoning_tokens or 0),
        )


def usage_so_far(job: Job, output_tokens: int) -> dict[str, int]:
    """What a job has used while it runs, for one of its answers."""
    prompt_tokens = job.prompt_tokens
    total_tokens = prompt_tokens + output_tokens
    return {"prompt_tokens": prompt_tokens, "completion_tokens": output_tokens, "total_tokens": total_tokens}


class ChatCompletionBody(Answer):
    """A job that succeeded, as OpenAI's SDK reads it."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: ChatUsage
    service_tier: str
    system_fingerprint: None = None
    metadata: dict[str, str]
    job: JobView

    @classmethod
    def of(cls, job: Job, accepted: Accepted | None = None) -> Self:
        """A job that succeeded, with the facts of its accept if this is the answer to its submission."""
        return cls(
            id=show_id(job.id, "chatcmpl-"),
            created=int(job.created_at.timestamp()),
            model=job.model_requested,
            choices=[ChatChoice.of(number, each) for number, each in enumerate(job.choices)],
            usage=ChatUsage.of(job),
            service_tier=LANE_TIERS[job.lane],
            metadata=dict(job.metadata),
            job=JobView.of(job, accepted),
        )


def finish_reason_of(answer: Choice) -> ChatFinishReason:
    """Why the answer ends, as OpenAI's `finish_reason`."""
    match answer.finish_reason:
        case "length" | "tool_calls" as reason:
            return reason
    return "stop"
