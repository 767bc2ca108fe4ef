"""OpenAI's Responses as JSON: what of it is honoured, what is refused by name, and what an answer looks like.

Source: the request and response types of openai-python 3.57; a test holds the two lists against them.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from api.drafts import Draft, Spelling
from api.schemas.fields import (
    Deadline,
    EndUser,
    MaxTokens,
    MaxWait,
    Metadata,
    Request,
    Temperature,
    TopP,
    Usd,
    WebhookUrl,
    refusal,
    unsupported,
)
from api.schemas.jobs import LaneName, OverflowName
from headrace.jobs import JobState, Lane, Message, Overflow

#: Parameters that OpenAI has and this service has not, with what to do instead.
UNSUPPORTED: Mapping[str, str] = {
    "access_programs": "Leave it out.",
    "context_management": "Shorten the input yourself.",
    "conversation": "Send the whole conversation as 'input'.",
    "image": "Only text is answered.",
    "include": "Leave it out.",
    "max_tool_calls": "No tools are called here.",
    "moderation": "Moderate the text yourself.",
    "previous_response_id": "Send the whole conversation as 'input'.",
    "prompt": "Send the text itself as 'input'.",
    "prompt_cache_options": "Prefixes are cached by themselves.",
    "reasoning": "Leave it out.",
    "tools": "No tools are called here.",
    "top_logprobs": "Leave it out.",
}
#: Accepted and not acted on, because every answer already is what they ask for, or they are hints.
IGNORED = frozenset({"parallel_tool_calls", "prompt_cache_key", "prompt_cache_retention", "stream_options"})

TIER_LANES: Mapping[str, Lane] = {
    "priority": Lane.HIGH,
    "fast": Lane.HIGH,
    "ultrafast": Lane.HIGH,
    "auto": Lane.NORMAL,
    "default": Lane.NORMAL,
    "scale": Lane.NORMAL,
    "flex": Lane.LOW,
}
LANE_TIERS: Mapping[Lane, str] = {Lane.HIGH: "priority", Lane.NORMAL: "default", Lane.LOW: "flex", Lane.BATCH: "flex"}
WINDOWS_S: Mapping[str, float] = {"2h": 7200.0, "8h": 28_800.0}

STATUSES: Mapping[JobState, str] = {
    JobState.WAITING: "queued",
    JobState.QUEUED: "queued",
    JobState.RUNNING: "in_progress",
    JobState.SUCCEEDED: "completed",
    JobState.FAILED: "failed",
    JobState.EXPIRED: "failed",
    JobState.CANCELLED: "cancelled",
}

POLL = "Send background=true and poll GET /v1/responses/{id}; add ?wait=30 to hold on for the end."


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
        BeforeValidator(_as_parts, json_schema_input_type=str | list[TextPart]),
        Field(min_length=1),
    ]
    id: str | None = None
    status: str | None = None
    phase: str | None = None

    @property
    def text(self) -> str:
        """All of its text; parts are lines, as in vLLM's own server."""
        return "\n".join(part.text for part in self.content)


def _as_messages(given: Any) -> Any:
    return [{"role": "user", "content": given}] if isinstance(given, str) else given


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
        schema = {"name": self.name or "answer", "schema": self.json_schema, "strict": self.strict}
        return {
            "type": "json_schema",
            "json_schema": {key: value for key, value in schema.items() if value is not None},
        }


class TextOptions(Request):
    """`verbosity` is accepted and not acted on: no model here knows it."""

    format: TextFormat | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class BackgroundOptions(Request):
    """OpenAI's own word for a job that may wait."""

    completion_window: Literal["soonest", "2h", "8h"] | None = None


class JobOptions(Request):
    """What OpenAI has no word for; the SDK sends it with `extra_body={"job": {...}}`."""

    lane: LaneName | None = Field(None, description="Wins over service_tier.")
    max_wait: MaxWait | None = None
    deadline: Deadline | None = None
    webhook: WebhookUrl | None = None
    overflow: OverflowName = "allow"
    max_cost_usd: Usd | None = None


class ResponseRequest(Request):
    """A prompt to be answered in the background, as OpenAI's SDK sends it."""

    model: str | None = Field(None, description="A model of GET /v1/models; the first one by default.")
    input: Annotated[
        list[InputMessage],
        BeforeValidator(_as_messages, json_schema_input_type=str | list[InputMessage]),
        Field(min_length=1),
    ]
    background: bool | None = Field(None, description="Must be true.")
    instructions: str | None = None
    max_output_tokens: MaxTokens | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    text: TextOptions | None = None
    metadata: Metadata | None = None
    service_tier: Literal["auto", "default", "flex", "scale", "priority", "fast", "ultrafast"] | None = None
    background_options: BackgroundOptions | None = None
    safety_identifier: EndUser | None = None
    user: EndUser | None = None
    store: bool | None = None
    stream: bool | None = None
    truncation: Literal["auto", "disabled"] | None = None
    tool_choice: Literal["auto", "none"] | None = None
    job: JobOptions = Field(default_factory=lambda: JobOptions(lane=None))
    parallel_tool_calls: Any = None
    prompt_cache_key: Any = None
    prompt_cache_retention: Any = None
    stream_options: Any = None

    @model_validator(mode="before")
    @classmethod
    def _refuse_unsupported(cls, values: dict[str, Any]) -> dict[str, Any]:
        for name, remedy in UNSUPPORTED.items():
            # An empty list asks for nothing, so leaving it out is no loss.
            if values.get(name) not in (None, []):
                raise unsupported(name, remedy)
        return {name: value for name, value in values.items() if name not in UNSUPPORTED}

    @field_validator("input")
    @classmethod
    def _not_empty(cls, turns: list[InputMessage]) -> list[InputMessage]:
        if not any(turn.text.strip() for turn in turns):
            raise refusal("it must not be empty")
        return turns

    @model_validator(mode="after")
    def _refuse_modes(self) -> Self:
        if self.stream:
            raise unsupported("stream", POLL)
        if not self.background:
            raise unsupported("background", f"Answers are made in the background only. {POLL}")
        if self.store is False:
            raise unsupported("store", "A background response is stored until it is fetched: leave it out.")
        if self.truncation == "auto":
            raise unsupported("truncation", "Shorten the input yourself.")
        if self._window_s is not None:
            self._check_window()
        return self

    def _check_window(self) -> None:
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
    def _lane(self) -> Lane:
        if self.job.lane is not None:
            return Lane(self.job.lane)
        return Lane.LOW if self._window_s is not None else TIER_LANES[self.service_tier or "auto"]

    def to_draft(self) -> Draft:
        """The request in the core's words."""
        system = [Message("system", self.instructions)] if self.instructions else []
        turns = [Message(turn.role, turn.text) for turn in self.input]
        shape = self.text.format if self.text else None
        return Draft(
            spelling=Spelling("input", "max_output_tokens", "job."),
            messages=(*system, *turns),
            model=self.model,
            max_tokens=self.max_output_tokens,
            lane=self._lane,
            max_wait_s=self.job.max_wait or self._window_s,
            deadline=self.job.deadline,
            overflow=Overflow(self.job.overflow),
            max_cost_usd=self.job.max_cost_usd,
            temperature=self.temperature,
            top_p=self.top_p,
            response_format=shape.to_response_format() if shape else None,
            metadata=self.metadata or {},
            webhook_url=self.job.webhook,
            end_user=self.safety_identifier or self.user,
        )
