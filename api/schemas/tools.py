"""Function tools in requests and answers, in the formats of chat completions and of Responses."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PlainValidator, model_validator

from api.schemas.fields import Answer, JsonSchema, Request, refusal
from headrace.domain.prompts import Message
from headrace.domain.prompts.tools import ToolCall, ToolChoice, Tools

#: Functions of one request. Source: OpenAI's API.
TOOLS_LIMIT = 128
#: Calls of one turn.
CALLS_LIMIT = 128
#: The choices that name no function.
CHOICES: Mapping[str, ToolChoice] = {"auto": "auto", "none": "none", "required": "required"}
#: Characters of an id, which names a call.
ID_LIMIT = 256

FunctionName = Annotated[str, Field(pattern="^[a-zA-Z0-9_-]{1,64}$")]
CallId = Annotated[str, Field(min_length=1, max_length=ID_LIMIT)]


class FunctionDefinition(Request):
    """A function that the model may call."""

    name: FunctionName
    description: str | None = Field(None, description="When and how to call it.")
    parameters: JsonSchema | None = Field(None, description="A JSON schema of its arguments; none: it has none.")
    strict: bool | None = Field(None, description="True: own models' arguments are made to match the schema.")

    def to_fields(self) -> dict[str, Any]:
        """What is given, by its names."""
        return {name: value for name, value in dict(self).items() if value is not None}


class FunctionTool(Request):
    """A tool: a function that the caller runs. Other types of tools are refused by name."""

    type: Literal["function"]
    function: FunctionDefinition
    cache_control: Any = Field(None, description="Not acted on: prefixes are cached by themselves.")


class NamedFunction(Request):
    """A function, by its name."""

    name: FunctionName


class NamedTool(Request):
    """The choice of one function, for the reference; `_choice` reads it."""

    type: Literal["function"]
    function: NamedFunction


class CalledFunction(Request):
    """The function that was called. `arguments` is JSON, as the model wrote it."""

    name: str = Field(min_length=1, max_length=ID_LIMIT)
    arguments: str
    parsed_arguments: Any = Field(None, description="Not acted on: what OpenAI's SDK reads from `arguments`.")


class CallRequest(Request):
    """A call that an earlier answer made; it can be sent back as it came."""

    id: CallId
    type: Literal["function"] = "function"
    function: CalledFunction
    index: Any = Field(None, description="Not acted on: its place in a stream.")

    @property
    def call(self) -> ToolCall:
        """The call in the core's terms."""
        return ToolCall(self.id, self.function.name, self.function.arguments)


Calls = Annotated[
    list[CallRequest],
    Field(max_length=CALLS_LIMIT, description="The calls that the role assistant made."),
]
OutputOf = Annotated[CallId, Field(description="The id of the call whose output a message of the role tool is.")]


def check_turn(role: str, calls: Sequence[CallRequest] | None, tool_call_id: str | None) -> None:
    """Raises: PydanticCustomError: the turn has calls, or a call's id, where its role has none, or lacks it."""
    if calls and role != "assistant":
        raise refusal("only the role 'assistant' makes calls", param="tool_calls")
    if (tool_call_id is not None) != (role == "tool"):
        why = "the role 'tool' needs it" if role == "tool" else "only the role 'tool' has it"
        raise refusal(why, param="tool_call_id")


def check_outputs(messages: Sequence[Message], prefix: str = "") -> None:
    """Raises: PydanticCustomError: a turn is the output of a call that no earlier turn made.

    Args: prefix: of the field to blame, before the turn's number.
    """
    made = set[str]()
    for number, message in enumerate(messages):
        made.update(call.id for call in message.tool_calls)
        if message.tool_call_id is not None and message.tool_call_id not in made:
            raise refusal("no earlier turn made this call", param=f"{prefix}{number}.tool_call_id")


def check_offer(names: Sequence[str], choice: ToolChoice, named: str | None) -> None:
    """Raises: PydanticCustomError: a function is offered twice, or one must be called that is not offered."""
    if not names and choice not in ("auto", "none"):
        raise refusal("it needs 'tools'", param="tool_choice")
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise refusal(f"the function '{twice}' is there twice", param="tools")
    if choice == "function" and named not in names:
        raise refusal(f"no function '{(named or '')[:80]}' is among the tools", param="tool_choice")


def _choice(value: Any) -> tuple[ToolChoice, str | None]:
    """The choice, and the function that it names."""
    if isinstance(value, str) and value in CHOICES:
        return CHOICES[value], None
    kind = value.get("type") if isinstance(value, dict) else None
    if kind == "function" and set(value) == {"type", "function"} and _is_named(value["function"]):
        return "function", value["function"]["name"]
    if isinstance(kind, str) and kind != "function":
        message = f"Unsupported type '{kind[:80]}' in 'tool_choice': only a function can be named."
        raise refusal(message, "unsupported_parameter")
    raise refusal("it should be 'auto', 'none', 'required' or {'type': 'function', 'function': {'name': ...}}")


def _is_named(function: Any) -> bool:
    return isinstance(function, dict) and set(function) == {"name"} and isinstance(function["name"], str)


ToolChoiceField = Annotated[
    tuple[ToolChoice, str | None],
    PlainValidator(_choice, json_schema_input_type=Literal["auto", "none", "required"] | NamedTool),
]


class ToolsRequest(Request):
    """The part of a request that offers tools."""

    tools: list[FunctionTool] | None = Field(
        None, max_length=TOOLS_LIMIT, description="Functions that the model may call. The caller runs them."
    )
    tool_choice: ToolChoiceField | None = Field(
        None,
        description="auto: the model decides; none: it calls none; required: at least one; or the one that is named. "
        "By default auto.",
    )
    parallel_tool_calls: bool | None = Field(None, description="False: the answer has one call at most.")

    @model_validator(mode="after")
    def _only_what_is_offered(self) -> Self:
        names = [tool.function.name for tool in self.tools or ()]
        check_offer(names, *(self.tool_choice or ("auto", None)))
        return self

    @property
    def offered(self) -> Tools | None:
        """The tools in the core's terms; None without any."""
        if not self.tools:
            return None
        functions = tuple(tool.function.to_fields() for tool in self.tools)
        return Tools(functions, *(self.tool_choice or ("auto", None)), parallel=self.parallel_tool_calls is not False)


class FunctionBody(Answer):
    """The function to call. `arguments` is JSON, as the model wrote it: check it before you use it."""

    name: str
    arguments: str


class ToolCallBody(Answer):
    """A call that the model makes."""

    id: str
    type: Literal["function"] = "function"
    function: FunctionBody

    @classmethod
    def each_of(cls, calls: Sequence[ToolCall]) -> list[Self] | None:
        """These calls; None without any."""
        made = (FunctionBody(name=call.name, arguments=call.arguments) for call in calls)
        return [cls(id=call.id, function=function) for call, function in zip(calls, made, strict=True)] or None


class ResponseFunction(Request):
    """A tool: a function that the caller runs. Other types of tools are refused by name."""

    type: Literal["function"]
    name: FunctionName
    description: str | None = Field(None, description="When and how to call it.")
    parameters: JsonSchema | None = Field(None, description="A JSON schema of its arguments; none: it has none.")
    strict: bool | None = Field(None, description="True: own models' arguments are made to match the schema.")

    def to_fields(self) -> dict[str, Any]:
        """What is given, in the format of chat completions."""
        return {name: value for name, value in dict(self).items() if value is not None and name != "type"}


class NamedResponseFunction(NamedFunction):
    """The choice of one function, for the reference; `_response_choice` reads it."""

    type: Literal["function"]


def _response_choice(value: Any) -> tuple[ToolChoice, str | None]:
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
            PlainValidator(
                _response_choice, json_schema_input_type=Literal["auto", "none", "required"] | NamedResponseFunction
            ),
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
