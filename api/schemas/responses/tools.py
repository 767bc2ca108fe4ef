"""Function tools of a response: in requests, as items of its input, and as items of its output."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import BeforeValidator, Field, PlainValidator, ValidationError, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from api.schemas.fields import Answer, Request, refusal
from api.schemas.tools import (
    CHOICES,
    ID_LIMIT,
    TOOLS_LIMIT,
    CallId,
    FunctionName,
    NamedFunction,
    check_offer,
)
from headrace.domain.ids import show_id
from headrace.domain.prompts import Message
from headrace.domain.prompts.tools import ToolCall, ToolChoice, Tools


class ResponseFunction(Request):
    """A tool: a function that the caller runs. Other types of tools are refused by name."""

    type: Literal["function"]
    name: FunctionName
    description: str | None = Field(None, description="When and how to call it.")
    parameters: dict[str, Any] | None = Field(None, description="A JSON schema of its arguments; none: it has none.")
    strict: bool | None = Field(None, description="True: own models' arguments are made to match the schema.")

    def to_fields(self) -> dict[str, Any]:
        """What is given, in the format of chat completions."""
        return {name: value for name, value in dict(self).items() if value is not None and name != "type"}


class NamedResponseFunction(NamedFunction):
    """The choice of one function, for the reference; `_choice` reads it."""

    type: Literal["function"]


def _choice(value: Any) -> tuple[ToolChoice, str | None]:
    """The choice, and the function that it names."""
    if isinstance(value, str) and value in CHOICES:
        return CHOICES[value], None
    kind = value.get("type") if isinstance(value, dict) else None
    if kind == "function" and set(value) == {"type", "name"} and isinstance(value["name"], str):
        return "function", value["name"]
    if isinstance(kind, str) and kind != "function":
        message = f"Unsupported type '{kind[:80]}' in 'tool_choice': only a function can be named."
        raise refusal(message, "unsupported_parameter")
    raise refusal("it should be 'auto', 'none', 'required' or {'type': 'function', 'name': ...}")


class ResponseToolsRequest(Request):
    """The part of a response's request that offers tools."""

    tools: list[ResponseFunction] | None = Field(
        None, max_length=TOOLS_LIMIT, description="Functions that the model may call. The caller runs them."
    )
    tool_choice: (
        Annotated[
            tuple[ToolChoice, str | None],
            PlainValidator(_choice, json_schema_input_type=Literal["auto", "none", "required"] | NamedResponseFunction),
        ]
        | None
    ) = Field(None, description="As in chat completions.")
    parallel_tool_calls: bool | None = Field(None, description="False: the answer has one call at most.")

    @model_validator(mode="after")
    def _only_what_is_offered(self) -> Self:
        check_offer([tool.name for tool in self.tools or ()], *(self.tool_choice or ("auto", None)))
        return self

    @property
    def offered(self) -> Tools | None:
        """The tools in the core's terms; None without any."""
        if not self.tools:
            return None
        functions = tuple(tool.to_fields() for tool in self.tools)
        return Tools(functions, *(self.tool_choice or ("auto", None)), parallel=self.parallel_tool_calls is not False)


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


def _as_parts(output: Any) -> Any:
    return [{"type": "input_text", "text": output}] if isinstance(output, str) else output


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


class FunctionCallItem(Answer):
    """A call that the model makes, or made. `arguments` is JSON, as the model wrote it: check it before you use it."""

    id: str
    type: Literal["function_call"] = "function_call"
    status: Literal["in_progress", "completed", "incomplete"] = "completed"
    call_id: str
    name: str
    arguments: str

    @classmethod
    def each_of(
        cls, job_id: UUID, calls: Sequence[ToolCall], *, turn: int | None = None, is_whole: bool = True
    ) -> list[Self]:
        """The calls of a job's answer, or of a turn of its input. Args: is_whole: the last one is."""
        last = len(calls) - 1
        return [
            cls(
                id=call_item_id(job_id, number, turn),
                status="completed" if is_whole or number < last else "incomplete",
                call_id=call.id,
                name=call.name,
                arguments=call.arguments,
            )
            for number, call in enumerate(calls)
        ]


def call_item_id(job_id: UUID, number: int, turn: int | None = None) -> str:
    """The id of a call's item: of a job's answer, or of a turn of its input. Both are numbered from 0."""
    return f"{show_id(job_id, 'fc_')}{'' if turn is None else f'_{turn}'}_{number}"


class FunctionCallOutputItem(Answer):
    """What a function gave for a call."""

    id: str
    type: Literal["function_call_output"] = "function_call_output"
    status: Literal["completed"] = "completed"
    call_id: str
    output: str


class FunctionToolBody(Answer):
    """A function as it was offered."""

    type: Literal["function"] = "function"
    name: str
    description: str | None
    parameters: dict[str, Any] | None
    strict: bool | None

    @classmethod
    def each_of(cls, tools: Tools | None) -> list[Self]:
        """The functions of these tools."""
        names = ("name", "description", "parameters", "strict")
        offered = tools.functions if tools else ()
        return [cls.model_validate({name: each.get(name) for name in names}) for each in offered]


class NamedToolBody(Answer):
    """The function that had to be called."""

    type: Literal["function"] = "function"
    name: str


def choice_of(tools: Tools | None) -> str | NamedToolBody:
    """The choice as OpenAI writes it."""
    if tools is None:
        return "auto"
    return NamedToolBody(name=tools.name or "") if tools.choice == "function" else tools.choice
