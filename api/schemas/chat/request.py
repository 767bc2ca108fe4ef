"""A chat completion's request: what of it is honoured, and what is refused by name.

Source: the request types of openai-python 3.57; a test holds the lists against them.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from api.door.drafts import Draft, Spelling
from api.schemas.chat.body import UsageIn
from api.schemas.fields import Choices, MaxTokens, Request, ResponseFormat, Seed, Speaker, Stop, refusal, unsupported
from api.schemas.logprobs import TopLogprobs
from api.schemas.openai_request import OpenAIRequest, refuse_unsupported
from api.schemas.tools import Calls, OutputOf, ToolsRequest, check_outputs, check_turn
from headrace.domain.prompts import Message, ReasoningEffort

OLD_TOOLS = "Send 'tools', 'tool_choice' and turns with 'tool_calls', which have taken its place."

#: OpenAI's parameters that Headrace does not support, with what to do instead.
UNSUPPORTED: Mapping[str, str] = {
    "audio": "Only text is answered: leave it out.",
    "function_call": OLD_TOOLS,
    "functions": OLD_TOOLS,
    "moderation": "Leave it out, and moderate the text yourself.",
    "prediction": "Leave it out.",
    "prompt_cache_options": "Leave it out: prefixes are cached by themselves.",
    "web_search_options": "Nothing is searched here: leave it out.",
}
#: The same for one message.
UNSUPPORTED_IN_MESSAGES: Mapping[str, str] = {
    "annotations": "Leave them out.",
    "audio": "Only text is read: leave it out.",
    "function_call": OLD_TOOLS,
    "refusal": "Send it as 'content'.",
}


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
    def _refuse_unsupported(cls, values: Any) -> Any:
        values = refuse_unsupported(values, UNSUPPORTED_IN_MESSAGES)
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

    UNSUPPORTED: ClassVar[Mapping[str, str]] = UNSUPPORTED
    IGNORED: ClassVar[frozenset[str]] = frozenset({"prompt_cache_key", "prompt_cache_retention", "verbosity"})

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
