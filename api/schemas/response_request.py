"""A request to `/v1/responses`: the items of its input, what is honoured, and what is refused by name.

Source: the request types of openai-python 3.57; a test holds the lists against them.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from api.door.drafts import Continuation, Draft, ItemReference, Spelling
from api.schemas.fields import JsonSchema, MaxTokens, QueryInt, Request, refusal, unsupported
from api.schemas.logprobs import TopLogprobs
from api.schemas.openai import TIER_LANES, OpenAIRequest
from api.schemas.tools import ID_LIMIT, CallId, ResponseToolsRequest
from headrace.domain.prompts import Message, ReasoningEffort
from headrace.domain.prompts.tools import ToolCall
from headrace.domain.queues import Lane


def _as_parts(content: Any) -> Any:
    return [{"type": "input_text", "text": content}] if isinstance(content, str) else content


class FunctionCallInput(Request):
    """A call that an earlier response made; it can be sent back as it came."""

    type: Literal["function_call"]
    call_id: CallId
    name: str = Field(min_length=1, max_length=ID_LIMIT)
    arguments: str
    parsed_arguments: Any = Field(None, description="Not acted on: what OpenAI's SDK reads from `arguments`.")
    id: str | None = None
    status: str | None = None

    @property
    def message(self) -> Message:
        """The call as a turn."""
        return Message("assistant", "", tool_calls=(ToolCall(self.call_id, self.name, self.arguments),))


class OutputPart(Request):
    """A piece of an output's text."""

    type: Literal["input_text"]
    text: str


class FunctionCallOutput(Request):
    """What a function gave for a call."""

    type: Literal["function_call_output"]
    call_id: CallId
    output: Annotated[list[OutputPart], BeforeValidator(_as_parts, json_schema_input_type=str | list[OutputPart])]
    id: str | None = None
    status: str | None = None
    name: str | None = None

    @property
    def message(self) -> Message:
        """The output as a turn; parts of its text are lines."""
        return Message("tool", "\n".join(part.text for part in self.output), tool_call_id=self.call_id)


def call_turn(item: dict[str, Any], number: int) -> Message | None:
    """The turn of an item that is a call, or the output of one; None for other items.

    Raises: PydanticCustomError that names the item's field.
    """
    # The SDK sends back each field that it knows, most of them null.
    given = {name: value for name, value in item.items() if value is not None}
    try:
        match item.get("type"):
            case "function_call":
                return FunctionCallInput.model_validate(given).message
            case "function_call_output":
                return FunctionCallOutput.model_validate(given).message
    except ValidationError as error:
        raise _refusal(error.errors()[0], f"input.{number}") from error
    return None


def _refusal(detail: ErrorDetails, place: str) -> PydanticCustomError:
    """The error of an item, with the place of its field in the request."""
    param = ".".join([place, *map(str, detail["loc"])])
    if detail["type"] == "literal_error" and detail["loc"][-1] == "type":
        message = f"Unsupported type '{str(detail['input'])[:80]}' in '{param.removesuffix('.type')}': {detail['msg']}."
        return refusal(message, "unsupported_parameter", param)
    code = detail["type"] if detail["type"] in ("missing", "extra_forbidden") else "invalid_value"
    return refusal(detail["msg"].rstrip("."), code, param)


#: References in one input. Each may cost two look-ups of a job.
REFERENCES_LIMIT = 256


class TextPart(Request):
    """A piece of a message's text. Annotations and log probabilities, as answers carry them, are not read."""

    type: Literal["input_text", "output_text"]
    text: str
    annotations: list[Any] | None = None
    logprobs: list[Any] | None = None
    parsed: Any = Field(None, description="Not acted on: what OpenAI's SDK reads from an earlier answer.")
    cache_control: Any = Field(None, description="Not acted on: prefixes are cached by themselves.")


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


class InputReference(Request):
    """A turn of an earlier response of the same app, by the id of its item."""

    type: Literal["item_reference"]
    id: str = Field(max_length=80)


def as_messages(given: Any) -> Any:
    """A text as a message."""
    return [{"role": "user", "content": given}] if isinstance(given, str) else given


def sorted_out(values: Any) -> tuple[Any, dict[int, ItemReference | Message]]:
    """The body without items that are no messages: reasoning, which is not read again, and the others by their places.

    These are references, calls and their outputs.
    """
    given = values.get("input") if isinstance(values, dict) else None
    if not isinstance(given, list):
        return values, {}
    turns: list[Any] = []
    placed: dict[int, ItemReference | Message] = {}
    for number, each in enumerate(given):
        kind = each.get("type") if isinstance(each, dict) else None
        if kind == "item_reference":
            placed[len(turns) + len(placed)] = _reference(each, number)
        elif isinstance(kind, str) and (called := call_turn(each, number)):
            placed[len(turns) + len(placed)] = called
        elif kind != "reasoning":
            turns.append(each)
    if sum(isinstance(each, ItemReference) for each in placed.values()) > REFERENCES_LIMIT:
        raise refusal(f"it may have at most {REFERENCES_LIMIT} items of type item_reference", param="input")
    return {**values, "input": turns}, placed


def _reference(item: dict[str, Any], number: int) -> ItemReference:
    param = f"input.{number}.id"
    if not isinstance(item.get("id"), str):
        raise refusal("Input should be the id of an item", param=param)
    if unknown := set(item) - {"type", "id"}:
        raise refusal(f"a reference has no '{min(unknown)[:80]}'", param=f"input.{number}")
    return ItemReference(item["id"], param)


#: The only value of `include` that adds anything.
LOGPROBS = "message.output_text.logprobs"
#: A value of `include` for which there is nothing: reasoning is shown as it is.
ENCRYPTED = "reasoning.encrypted_content"
WINDOWS_S: Mapping[str, float] = {"2h": 7200.0, "8h": 28_800.0}


class TextFormat(Request):
    """The shape of the answer."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    description: str | None = None
    json_schema: JsonSchema | None = Field(None, alias="schema")
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

    UNSUPPORTED: ClassVar[Mapping[str, str]] = {
        "context": "Leave it out: what came before an earlier answer is not read.",
        "generate_summary": "Reasoning is returned unchanged: leave it out.",
        "mode": "Leave it out.",
        "summary": "Reasoning is returned unchanged: leave it out.",
    }

    effort: ReasoningEffort | None = Field(None, description="How much it is to think.")


class BackgroundOptions(Request):
    """OpenAI's own word for a job that may wait."""

    completion_window: Literal["soonest", "2h", "8h"] | None = None


class ResponseRequest(OpenAIRequest, ResponseToolsRequest):
    """A prompt to be answered in the background, while the caller waits, or as a stream."""

    UNSUPPORTED: ClassVar[Mapping[str, str]] = {
        "access_programs": "Leave it out.",
        "context_management": "Leave it out, and shorten the input yourself.",
        "conversation": "Send the whole conversation as 'input'.",
        "image": "Only text is answered: leave it out.",
        "max_tool_calls": "It bounds hosted tools, of which there are none: leave it out.",
        "moderation": "Leave it out, and moderate the text yourself.",
        "prompt": "Send the text itself as 'input'.",
        "prompt_cache_options": "Leave it out: prefixes are cached by themselves.",
    }

    input: Annotated[
        list[InputMessage],
        Field(fail_fast=True),
        BeforeValidator(
            as_messages,
            json_schema_input_type=str | list[InputMessage | InputReference | FunctionCallInput | FunctionCallOutput],
        ),
    ]
    previous_response_id: str | None = Field(
        None, description="A stored response of yours, whose conversation comes before the input."
    )
    background: bool | None = Field(None, description="True: answer at once, with the response queued, to be polled.")
    instructions: str | None = Field(None, description="A system message before the input.")
    max_output_tokens: MaxTokens | None = None
    text: TextOptions | None = None
    reasoning: ReasoningOptions | None = None
    include: list[str] | None = Field(
        None, description=f"`{LOGPROBS}`, or nothing; `{ENCRYPTED}` is not acted on: reasoning is shown as it is."
    )
    top_logprobs: TopLogprobs | None = Field(
        None, description=f"The likeliest tokens at each place; with `{LOGPROBS}`."
    )
    background_options: BackgroundOptions | None = None
    store: bool | None = Field(
        None, description="False: nothing of its texts is kept once they are delivered. Not with background=true."
    )
    truncation: Literal["auto", "disabled"] | None = Field(
        None, description="Not acted on: an input that does not fit the model is refused."
    )
    stream_options: Any = Field(None, description="Not acted on: a stream is never obfuscated.")

    _placed: Mapping[int, ItemReference | Message] = PrivateAttr(default_factory=dict)

    @model_validator(mode="wrap")
    @classmethod
    def _with_placed(cls, values: Any, read: ModelWrapValidatorHandler[Self]) -> Self:
        turns, placed = sorted_out(values)
        made = read(turns)
        if not placed and not any(turn.text.strip() for turn in made.input):
            raise refusal("it must not be empty", param="input")
        made._placed = placed
        return made

    @model_validator(mode="after")
    def _refuse_modes(self) -> Self:
        if self.store is False:
            self._check_unstored()
        if set(self.include or ()) - {LOGPROBS, ENCRYPTED}:
            raise unsupported("include", f"Only '{LOGPROBS}' can be included: leave out the rest.")
        if self.top_logprobs and not self._has_logprobs:
            raise refusal(f"it needs include=['{LOGPROBS}']", param="top_logprobs")
        if self.background_options is not None:
            self._check_background_options()
        return self

    def _check_unstored(self) -> None:
        remedy = "Leave it out, and DELETE /v1/responses/{id} once you have the answer."
        if self.background:
            raise unsupported("store", f"A response in the background is stored until it is read. {remedy}")
        if self.job.webhook is not None:
            raise unsupported("store", f"A webhook comes once the answer is gone. {remedy}")
        if self.job.cache == "exact":
            raise refusal("a cache stores answers: leave it out with store=false", param="job.cache")

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
    def _has_logprobs(self) -> bool:
        return LOGPROBS in (self.include or ())

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
        turns = self._turns
        continuation = self._continuation(system, turns)
        shape = self.text.format if self.text else None
        shared = self.shared()
        shared["max_wait_s"] = shared["max_wait_s"] or self._window_s
        if self.store is False:
            shared |= {"is_stored": False, "cache": "never"}
        return Draft(
            **shared,
            spelling=Spelling("input", "max_output_tokens", "job.", self.lane_param, "reasoning.effort"),
            messages=() if continuation else (*system, *(turn for turn in turns if isinstance(turn, Message))),
            continuation=continuation,
            tools=self.offered,
            max_tokens=self.max_output_tokens,
            response_format=shape.to_response_format() if shape else None,
            top_logprobs=(self.top_logprobs or 0) if self._has_logprobs else None,
            reasoning_effort=self.reasoning.effort if self.reasoning else None,
            background=bool(self.background),
        )

    @property
    def _turns(self) -> tuple[Message | ItemReference, ...]:
        """The input, in its order."""
        rest = (Message(turn.role, turn.text) for turn in self.input)
        every = range(len(self.input) + len(self._placed))
        return tuple(self._placed.get(place) or next(rest) for place in every)

    def _continuation(self, system: list[Message], turns: tuple[Message | ItemReference, ...]) -> Continuation | None:
        """None for a conversation that is whole as it was sent. One with calls is put together, and checked."""
        if self.previous_response_id is None and not self._placed:
            return None
        return Continuation(self.previous_response_id, system[0] if system else None, turns)


class ResponseQuery(Request):
    """The query string of a retrieve."""

    stream: bool = Field(False, strict=False, description="Its events, if it was created with stream=true.")
    starting_after: QueryInt | None = Field(
        None, ge=0, le=2**63 - 1, description="The sequence_number after which the events begin."
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
