"""A model's own chat template: turns a conversation into the text that the model was trained on."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
import jinja2.ext
import jinja2.meta
import jinja2.nodes
import jinja2.parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from headrace.domain.prompts import Message, ReasoningEffort
from headrace.domain.prompts.tools import ToolCall
from headrace.errors import InvalidRequest

#: Variables of a chat template that a request sets, by name.
Kwargs = Mapping[str, Any]


def template_arguments(effort: ReasoningEffort | None, kwargs: Kwargs | None = None) -> dict[str, Any]:
    """The chat template's arguments for an effort, by the two names that vLLM's own server uses, and `kwargs`."""
    by_effort = {} if effort is None else {"reasoning_effort": effort, "enable_thinking": effort != "none"}
    return {**by_effort, **(kwargs or {})}


class ChatTemplate:
    """A model's chat template. Safe to use from many threads.

    Attributes:
        reads_effort: False if the reasoning effort does not change the prompt.
        reads_tools: False if it has no word for tools, so that a model would never know of them.
    """

    def __init__(self, folder: Path, file: Path | None = None) -> None:
        """Read a model's folder. Args: file: has a template in place of the model's own.

        Raises: OSError. ValueError: it has no template, or none that can be read.
        """
        try:
            template = _template_text(folder) if file is None else file.read_text(encoding="utf-8")
            environment = _environment()
            self._template = environment.from_string(template)
            read = jinja2.meta.find_undeclared_variables(environment.parse(template))
        except jinja2.TemplateError as error:
            raise ValueError(str(error)) from error
        self._special_tokens = _special_tokens(folder)
        # A model trained without this role would take it for noise.
        self._knows_developer = "developer" in template
        self.reads_effort = not read.isdisjoint(template_arguments("none"))
        self.reads_tools = "tools" in read

    def render(
        self, messages: Sequence[Message], effort: ReasoningEffort | None = None, kwargs: Kwargs | None = None
    ) -> str:
        """The whole prompt as text. Raises: InvalidRequest when the template refuses the conversation or the rest."""
        turns = list(map(self._turn, messages))
        given = {"messages": turns, "tools": None, "documents": None, "add_generation_prompt": True}
        try:
            return self._template.render({**given, **self._special_tokens, **template_arguments(effort, kwargs)})
        # The last two: a template that does not expect the value of one of `kwargs`.
        except (jinja2.TemplateError, TypeError, ValueError, LookupError, ArithmeticError) as error:
            ours = {"tools": kwargs["tools"]} if kwargs and "tools" in kwargs else {}
            if kwargs and kwargs.keys() - ours.keys():
                self.render(messages, effort, ours)  # Raises if the others are at fault.
                message = f"The model's chat template refuses 'chat_template_kwargs': {error}"
                raise InvalidRequest(message, param="chat_template_kwargs") from error
            if ours:
                self.render(messages, effort)
                message = f"The model's chat template refuses these tools: {error}"
                raise InvalidRequest(message, param="tools") from error
            if effort is not None:
                self.render(messages)  # Raises if the messages are at fault, not the effort.
                raise InvalidRequest(
                    f"The model's chat template refuses the effort '{effort}': {error}", param="reasoning_effort"
                ) from error
            raise InvalidRequest(
                f"The model's chat template refuses these messages: {error}", param="messages"
            ) from error

    def _turn(self, message: Message) -> dict[str, Any]:
        fields = {**message.to_fields(), "role": self._role(message)}
        if message.tool_calls:
            # Templates write the arguments themselves, so they get objects.
            for call, fields_of_call in zip(message.tool_calls, fields["tool_calls"], strict=True):
                fields_of_call["function"]["arguments"] = _read_arguments(call)
        return fields

    def _role(self, message: Message) -> str:
        return "system" if message.role == "developer" and not self._knows_developer else message.role


def _read_arguments(call: ToolCall) -> Any:
    """A call's arguments as an object, as in vLLM's own server: an empty one if a model wrote them badly."""
    try:
        value = json.loads(call.arguments)
        # The template writes them again: too deep ones, and lone surrogates, would fail there.
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return {}
    return value


def _template_text(folder: Path) -> str:
    """The chat template: its own file, or, in older models, an entry of the tokenizer's configuration."""
    path = folder / "chat_template.jinja"
    if path.exists():
        return path.read_text(encoding="utf-8")
    template = _read_json(folder / "tokenizer_config.json").get("chat_template")
    if isinstance(template, list):
        template = {entry["name"]: entry["template"] for entry in template}.get("default")
    if not isinstance(template, str):
        raise ValueError("it has no chat template")
    return template


def _special_tokens(folder: Path) -> dict[str, str]:
    """`bos_token`, `eos_token` and the others, by the names that templates use."""
    entries = _read_json(folder / "special_tokens_map.json") | _read_json(folder / "tokenizer_config.json")
    named = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
    found = {name: entries[name] for name in named if entries.get(name) is not None}
    return {name: token["content"] if isinstance(token, dict) else token for name, token in found.items()}


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


class _GenerationTag(jinja2.ext.Extension):
    """`{% generation %}` marks the assistant's turns for training; it does not change a prompt."""

    tags = {"generation"}  # noqa: RUF012 (jinja2 reads a plain set)

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        return jinja2.nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


def _environment() -> ImmutableSandboxedEnvironment:
    """The environment that chat templates expect: that of transformers' `utils/chat_template_utils.py`."""

    def raise_exception(message: str) -> None:
        raise jinja2.TemplateError(message)

    def tojson(
        value: Any,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    # The local date, as in transformers.
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)  # noqa: DTZ005
    return environment
