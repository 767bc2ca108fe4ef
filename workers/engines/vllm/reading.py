"""Reads an answer with vLLM's own parsers for its model: separates the reasoning, the text and the calls of tools."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Self

from headrace.config import PoolSettings
from headrace.domain.prompts import Message, has_calls, storable
from headrace.domain.prompts.tools import CallPlaces, ToolCallPiece
from headrace.errors import ConfigError, EngineFault, PromptRejected
from headrace.policies.tokens.chat_template import template_arguments
from workers.engines.base import Delta, GenerationRequest
from workers.engines.vllm.sampling import constraint


@dataclass(frozen=True, slots=True)
class Parsers:
    """The names of vLLM's parsers for a model; None: it does not reason, or its calls of tools are not read.

    Attributes:
        strict_level: what vLLM's grammars ask of calls at least.
    """

    reasoning: str | None = None
    tools: str | None = None
    strict_level: str = "auto"

    @classmethod
    def of(cls, pool: PoolSettings) -> Self:
        """Those of a pool's model."""
        return cls(pool.reasoning_parser, pool.tool_parser, pool.tool_strict_level or "auto")

    @property
    def is_empty(self) -> bool:
        """True if an answer is text as the model writes it."""
        return self.reasoning is None and self.tools is None


NO_PARSERS = Parsers()


def check_parsers(pool: PoolSettings, model_config: Any, where: str) -> None:
    """Make sure that vLLM has the pool's parsers, and that they suit the model's tokenizer and each other.

    Raises: ConfigError that names the setting below `where`.
    """
    # Import here, at the start: it takes seconds, which would block the engine's loop at the first request.
    from vllm.reasoning import ReasoningParserManager
    from vllm.tokenizers import cached_tokenizer_from_config
    from vllm.tool_parsers import ToolParserManager

    tokenizer = cached_tokenizer_from_config(model_config)
    named = {"reasoning_parser": pool.reasoning_parser, "tool_parser": pool.tool_parser}
    managers = {"reasoning_parser": ReasoningParserManager, "tool_parser": ToolParserManager}
    for setting, name in named.items():
        param, known = f"{where}.{setting}", managers[setting].list_registered()
        if name is not None and name not in known:
            raise ConfigError(f"{param}: vLLM has no parser '{name}'. It has: {', '.join(known)}.", param=param)
    single = [Parsers(reasoning=pool.reasoning_parser), Parsers(tools=pool.tool_parser)]
    for parsers in (*single, Parsers.of(pool)):
        name = parsers.reasoning or parsers.tools
        param = f"{where}.{'reasoning_parser' if parsers.tools is None else 'tool_parser'}"
        try:
            if name is not None:
                _parser_class(parsers)(tokenizer)
        except Exception as error:  # Each parser raises its own error for a tokenizer that lacks its tokens.
            message = f"{param}: the parser '{parsers.tools or name}' does not suit the model's tokenizer: {error!r}"
            raise ConfigError(message, param=param) from error


@cache
def _parser_class(parsers: Parsers) -> Any:
    """vLLM's class of a parser that does what both do."""
    from vllm.parser.parser_manager import ParserManager

    return ParserManager.get_parser(
        reasoning_parser_name=parsers.reasoning,
        tool_parser_name=parsers.tools,
        enable_auto_tools=True,
        tool_strict_level=parsers.strict_level,
    )


class Reading:
    """Reads one answer, from its first token on.

    Attributes:
        is_answering: True if the prompt itself turns reasoning off; None for a model that does not reason.
        skips_special_tokens: False if the parser must see special tokens in the text.
        parser_arguments: vLLM's core makes its own parser with them, for a model that reasons; else None.
        structure: vLLM's constraint on the answer: the response format, or a grammar of the calls; None for free text.
    """

    def __init__(self, parsers: Parsers, llm: Any, prompt: list[int], asked: GenerationRequest) -> None:
        """Prepare the parser. Raises: PromptRejected: an effort that the parser does not know, or bad tools."""
        sampling = asked.sampling
        self._tokenizer, self._prompt, self._tools = llm.get_tokenizer(), prompt, sampling.tools
        self._places = CallPlaces()
        effort, kwargs = sampling.reasoning_effort, sampling.template_kwargs
        arguments = {"chat_template_kwargs": template_arguments(effort, kwargs)}
        try:
            self._request = _as_vllm_s(asked)
        except ValueError as error:
            raise PromptRejected(f"vLLM refuses these tools: {error}", param="tools") from error
        try:
            make = _parser_class(parsers)
            self._parser = make(self._tokenizer, self._request.tools, model_config=llm.model_config, **arguments)
        except ValueError as error:  # `check_parsers` made it without either, so one of them is the cause.
            param = "chat_template_kwargs" if kwargs else "reasoning_effort"
            raise PromptRejected(str(error), param=param) from error
        try:
            self._request = self._parser.adjust_request(self._request)
        except ValueError as error:
            raise PromptRejected(f"vLLM refuses these tools: {error}", param="tools") from error
        reasons = parsers.reasoning is not None
        self.parser_arguments = arguments if reasons else None
        self.is_answering: bool | None = self._request.resolve_reasoning_ended(self._parser, prompt)
        self.skips_special_tokens: bool = self._request.skip_special_tokens
        self.structure: Any = self._request.structured_outputs

    def tokens_of(self, text: str, token_ids: Sequence[int]) -> int:
        """How many of the last tokens make up this text."""
        number = 0
        while number < len(token_ids) and len(self._text_of(token_ids[len(token_ids) - number :])) < len(text):
            number += 1
        return number

    def _text_of(self, token_ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(token_ids), skip_special_tokens=True))

    def read(self, completion: Any) -> Delta:
        """What vLLM's output since the last read adds; may be empty. Raises: EngineFault."""
        made = (completion.text, list(completion.token_ids), self._request, self._prompt)
        try:
            told = self._parser.parse_delta(*made, finished=completion.finish_reason is not None)
        except Exception as error:
            raise EngineFault(f"vLLM's parser could not read the answer: {error!r}") from error
        if told is None:
            return Delta("")
        pieces = [self._places.placed(_piece(call)) for call in told.tool_calls or ()]
        if self._tools is not None and not self._tools.parallel:
            # A grammar may not keep a model from a second call. vLLM's own server drops it likewise.
            pieces = [piece for piece in pieces if piece.index == 0]
        text, reasoning = storable(told.content or ""), storable(told.reasoning or "")
        return Delta(text, reasoning=reasoning, tool_calls=tuple(pieces))


def _piece(call: Any) -> ToolCallPiece:
    function = call.function
    arguments = storable((function and function.arguments) or "")
    return ToolCallPiece(call.index, call.id, function and function.name, arguments)


def _as_vllm_s(asked: GenerationRequest) -> Any:
    """The part of a request that vLLM's parsers read."""
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.sampling_params import StructuredOutputsParams

    sampling, tools = asked.sampling, asked.sampling.tools
    given: dict[str, Any] = {"messages": _calls(asked.messages), "reasoning_effort": sampling.reasoning_effort}
    is_forced = False
    if tools is not None:
        given |= {"tools": tools.specs, "tool_choice": tools.spelled_choice, "parallel_tool_calls": tools.parallel}
        is_forced = tools.choice in ("required", "function")
    # An answer that must be a call has no other shape.
    if not is_forced and (constrained := constraint(sampling.response_format)):
        given["structured_outputs"] = StructuredOutputsParams(**constrained)
    return ChatCompletionRequest(**given)


def _calls(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """The turns with calls: some parsers number the calls of a conversation."""
    return [message.to_fields() for message in messages if message.tool_calls] if has_calls(messages) else []
