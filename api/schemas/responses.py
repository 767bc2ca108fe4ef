"""OpenAI's Responses as JSON: what of a request is honoured, and what is refused by name.

Source: the request types of openai-python 3.57; a test holds the lists against them.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from api.door.drafts import Draft, Spelling
from api.schemas.fields import MaxTokens, Request, refusal, unsupported
from api.schemas.logprobs import TopLogprobs
from api.schemas.openai_request import TIER_LANES, OpenAIRequest, refuse_unsupported
from headrace.domain.prompts import Message, ReasoningEffort
from headrace.domain.queues import Lane

#: OpenAI's parameters that Headrace does not support, with what to do instead.
UNSUPPORTED: Mapping[str, str] = {
    "access_programs": "Leave it out.",
    "context_management": "Leave it out, and shorten the input yourself.",
    "conversation": "Send the whole conversation as 'input'.",
    "image": "Only text is answered: leave it out.",
    "max_tool_calls": "No tools are called here: leave it out.",
    "moderation": "Leave it out, and moderate the text yourself.",
    "previous_response_id": "Send the whole conversation as 'input'.",
    "prompt": "Send the text itself as 'input'.",
    "prompt_cache_options": "Leave it out: prefixes are cached by themselves.",
    "tools": "No tools are called here: leave it out.",
}
#: The same for `reasoning`.
UNSUPPORTED_IN_REASONING: Mapping[str, str] = {
    "context": "Leave it out: what came before an earlier answer is not read.",
    "generate_summary": "Leave it out: what is thought is told as it is.",
    "mode": "Leave it out.",
    "summary": "Leave it out: what is thought is told as it is.",
}
#: The only supported value of `include`.
LOGPROBS = "message.output_text.logprobs"
WINDOWS_S: Mapping[str, float] = {"2h": 7200.0, "8h": 28_800.0}


class TextPart(Request):
    """A piece of a message's text. Annotations and log probabilities, as answers carry them, are not read."""

    type: Literal["input_text", "output_text"]
    text: str
    annotations: list[Any] | None = None
    logprobs: list[Any] | None = None


def _as_parts(content: Any) -> Any:
    return [{"type": "input_text", "text": content}] if isinstance(content, str) else content


class InputMessage(Request):
    """One turn of a conversation; an earlier answer's message can be sent back as it came."""

    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[
        list[TextPart],
        Field(min_length=1, fail_fast=True),
        BeforeValidator(_as_parts, json_schema_input_type=str | list[TextPart]),
    ]
    id: str | None = None
    status: str | None = None
    phase: str | None = None

    @property
    def text(self) -> str:
        """All of its text; parts are lines, as in vLLM's own server."""
        return "\n".join(part.text for part in self.content)


def _as_messages(given: Any) -> Any:
    """A text as a message; items that are sent back, without the reasoning."""
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    if isinstance(given, list):
        return [each for each in given if not (isinstance(each, dict) and each.get("type") == "reasoning")]
    return given


class TextFormat(Request):
    """The shape of the answer."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    description: str | None = None
    json_schema: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None

    @model_validator(mode="after")
    def _schema_where_due(self) -> Self:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise refusal("it belongs to type 'json_schema', and must be there", param="schema")
        return self

    def to_response_format(self) -> dict[str, Any]:
        """Chat completions' spelling, which engines take."""
        if self.type != "json_schema":
            return {"type": self.type}
        named = {"name": self.name or "answer", "description": self.description}
        schema = {**named, "schema": self.json_schema, "strict": self.strict}
        return {
            "type": "json_schema",
            "json_schema": {key: value for key, value in schema.items() if value is not None},
        }


class TextOptions(Request):
    """`verbosity` is accepted and not acted on: no model here knows it."""

    format: TextFormat | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class ReasoningOptions(Request):
    """What the model thinks before it answers."""

    effort: ReasoningEffort | None = Field(None, description="How much it is to think.")

    @model_validator(mode="before")
    @classmethod
    def _refuse_unsupported(cls, values: Any) -> Any:
        return refuse_unsupported(values, UNSUPPORTED_IN_REASONING)


class BackgroundOptions(Request):
    """OpenAI's own word for a job that may wait."""

    completion_window: Literal["soonest", "2h", "8h"] | None = None


class ResponseRequest(OpenAIRequest):
    """A prompt to be answered in the background, while the caller waits, or as a stream."""

    UNSUPPORTED: ClassVar[Mapping[str, str]] = UNSUPPORTED
    IGNORED: ClassVar[frozenset[str]] = frozenset(
        {"parallel_tool_calls", "prompt_cache_key", "prompt_cache_retention", "stream_options"}
    )

    input: Annotated[
        list[InputMessage],
        Field(min_length=1, fail_fast=True),
        BeforeValidator(_as_messages, json_schema_input_type=str | list[InputMessage]),
    ]
    background: bool | None = Field(None, description="True: answer at once, with the response queued, to be polled.")
    instructions: str | None = Field(None, description="A system message before the input.")
    max_output_tokens: MaxTokens | None = None
    text: TextOptions | None = None
    reasoning: ReasoningOptions | None = None
    include: list[str] | None = Field(None, description=f"`{LOGPROBS}`, or nothing.")
    top_logprobs: TopLogprobs | None = Field(
        None, description=f"The likeliest tokens at each place; with `{LOGPROBS}`."
    )
    background_options: BackgroundOptions | None = None
    store: bool | None = Field(None, description="Not false: an answer is stored until it is deleted.")
    truncation: Literal["auto", "disabled"] | None = None
    stream_options: Any = Field(None, description="Not acted on: a stream is never obfuscated.")

    @field_validator("input")
    @classmethod
    def _not_empty(cls, turns: list[InputMessage]) -> list[InputMessage]:
        if not any(turn.text.strip() for turn in turns):
            raise refusal("it must not be empty")
        return turns

    @model_validator(mode="after")
    def _refuse_modes(self) -> Self:
        if self.store is False:
            raise unsupported("store", "Leave it out, and DELETE /v1/responses/{id} once you have the answer.")
        if self.truncation == "auto":
            raise unsupported("truncation", "Leave it out, and shorten the input yourself.")
        if set(self.include or ()) - {LOGPROBS}:
            raise unsupported("include", f"Only '{LOGPROBS}' can be included: leave out the rest.")
        if self.top_logprobs and not self.include:
            raise refusal(f"it needs include=['{LOGPROBS}']", param="top_logprobs")
        if self.background_options is not None:
            self._check_background_options()
        return self

    def _check_background_options(self) -> None:
        if not self.background:
            raise refusal("it needs background=true", param="background_options")
        if self.stream:
            raise unsupported("background_options", "A stream cannot wait: leave out one of the two.")
        if self._window_s is None:
            return
        param = "background_options.completion_window"
        if self.job.max_wait is not None:
            raise refusal("job.max_wait says the same: give one of the two", param=param)
        if self.service_tier and TIER_LANES[self.service_tier] is Lane.HIGH:
            raise refusal(f"a job of service_tier '{self.service_tier}' does not wait that long", param=param)

    @property
    def _window_s(self) -> float | None:
        options = self.background_options
        return WINDOWS_S.get(options.completion_window or "") if options else None

    @property
    def lane(self) -> Lane:
        """The lane that `job.lane`, the window, or else the tier, asks for."""
        return Lane.LOW if self._window_s is not None and not self.job.lane else super().lane

    @property
    def lane_param(self) -> str:
        """The field that chose the lane."""
        has_window = self._window_s is not None and not self.job.lane
        return "background_options.completion_window" if has_window else super().lane_param

    def to_draft(self) -> Draft:
        """The request in the core's terms."""
        system = [Message("system", self.instructions)] if self.instructions else []
        turns = [Message(turn.role, turn.text) for turn in self.input]
        shape = self.text.format if self.text else None
        shared = self.shared()
        return Draft(
            **{**shared, "max_wait_s": shared["max_wait_s"] or self._window_s},
            spelling=Spelling("input", "max_output_tokens", "job.", self.lane_param, "reasoning.effort"),
            messages=(*system, *turns),
            max_tokens=self.max_output_tokens,
            response_format=shape.to_response_format() if shape else None,
            top_logprobs=(self.top_logprobs or 0) if self.include else None,
            reasoning_effort=self.reasoning.effort if self.reasoning else None,
            background=bool(self.background),
        )


class ResponseQuery(Request):
    """The query string of a retrieve."""

    stream: bool = Field(False, strict=False, description="Its events, if it was created with stream=true.")
    starting_after: int | None = Field(
        None, ge=0, le=2**63 - 1, strict=False, description="The sequence_number after which the events begin."
    )
    wait: float = Field(0, ge=0, strict=False, allow_inf_nan=False, description="Seconds to hold on for the end.")
    include_obfuscation: bool | None = Field(None, strict=False, description="Not acted on: nothing is obfuscated.")

    @model_validator(mode="after")
    def _one_way_to_hold_on(self) -> Self:
        if self.stream and self.wait:
            raise refusal("a stream holds on by itself", param="wait")
        if self.starting_after is not None and not self.stream:
            raise refusal("it needs stream=true", param="starting_after")
        return self
