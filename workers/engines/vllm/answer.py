"""An answer as it grows: vLLM's outputs, read with its own parsers for the model. Imports vllm only in functions."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Self

from headrace.config import PoolSettings
from headrace.domain.answers import Choice, TokenLogprob
from headrace.domain.attempts import Usage
from headrace.domain.prompts import Message, has_calls, storable
from headrace.domain.prompts.tools import CallPlaces, ToolCall, ToolCallPiece, joined
from headrace.errors import ConfigError, EngineFault, PromptRejected
from headrace.policies.tokens.chat_template import template_arguments
from workers.engines.base import Delta, FinishReason, Generation, GenerationRequest, OnDelta
from workers.engines.vllm.options import constraint, token_logprobs


@dataclass(frozen=True, slots=True)
class Parsers:
    """The names of vLLM's parsers for a model; None: it does not reason, or its calls of tools are not read.

    Attributes: strict_level: what vLLM's grammars ask of calls at least.
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


class AnswerReading:
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
            # A grammar may not keep a model from a second call. vLLM's own server drops it too.
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


class GrowingAnswer:
    """An answer as it grows.

    Attributes:
        tokens: made by now, without the request's prefix.
        reasoning_tokens: tokens before the first one of the text; 0 without reasoning.
    """

    def __init__(
        self,
        request: GenerationRequest,
        on_delta: OnDelta | None,
        reading: AnswerReading | None,
        choice: int = 0,
        prefix_tokens: int = 0,
    ) -> None:
        """Begin an answer.

        Args:
            reading: separates the reasoning and the calls from the text; None if all of it is text.
            choice: the answer's number, where the request asks for several.
            prefix_tokens: those of the request's prefix.
        """
        self._choice, self._prefix_tokens = choice, prefix_tokens
        self._ended_by: FinishReason = "abort"
        self._wanted, self._on_delta, self._reading = request.sampling.top_logprobs, on_delta, reading
        self._pieces, self._thoughts = [request.prefix], list[str]()
        self._tools = request.sampling.tools
        self._calls: list[ToolCallPiece] = []
        self._logprobs: list[TokenLogprob] = []
        self._told = self.tokens = self._tokens_before = 0
        self._has_begun = False

    @property
    def text(self) -> str:
        return "".join(self._pieces)

    @property
    def reasoning(self) -> str:
        return "".join(self._thoughts)

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        return joined(self._calls)

    @property
    def reasoning_tokens(self) -> int:
        return self._tokens_before if self._thoughts else 0

    @property
    def logprobs(self) -> tuple[TokenLogprob, ...] | None:
        """Log probabilities of the text's tokens; None if the request did not ask for them."""
        if self._wanted is None:
            return None
        return tuple(self._logprobs)

    @property
    def finish_reason(self) -> FinishReason:
        """vLLM's own reason, unless the model chose to call tools; `abort` until it has ended."""
        chose = self._tools is not None and self._tools.choice != "function" and bool(self._calls)
        return "tool_calls" if chose and self._ended_by == "stop" else self._ended_by

    def add(self, output: Any) -> None:
        """Add vLLM's next output, and pass the new piece to the listener."""
        read = self._reading.read(output) if self._reading else Delta(storable(output.text))
        self.tokens += len(output.token_ids)
        self._thoughts += [read.reasoning] if read.reasoning else []
        self._calls += read.tool_calls
        self._ended_by = output.finish_reason or self._ended_by
        if self._wanted is not None:
            self._logprobs += token_logprobs(output.token_ids, output.logprobs, self._wanted)
        if self._reading and not self._has_begun:
            self._has_begun = bool(read.text or read.tool_calls)
            # Several tokens come at once when they are not fetched in time. The last of them are the text's.
            of_text = self._reading.tokens_of(read.text, output.token_ids)
            self._tokens_before += len(output.token_ids) - of_text
            if self._thoughts:
                del self._logprobs[: max(0, len(self._logprobs) - of_text)]
        # The token that ends the answer has no text. It may come by itself, or with the last ones that have.
        has_end = output.finish_reason == "stop" and not isinstance(output.stop_reason, str)
        self._tell(read, len(self._logprobs) - has_end)

    def _tell(self, read: Delta, until: int) -> None:
        """Pass on a piece, with the log probabilities up to this one."""
        self._pieces += [read.text] if read.text else []
        if self._on_delta and (read.reasoning or read.text or read.tool_calls):
            logprobs = tuple(self._logprobs[self._told : until]) if read.text else ()
            tokens = self._prefix_tokens + self.tokens
            self._on_delta(replace(read, logprobs=logprobs, choice=self._choice, tokens=tokens))
            self._told += len(logprobs)

    def as_choice(self) -> Choice:
        """The answer as one after the first."""
        return Choice(self.text, self.finish_reason, self.logprobs, self.reasoning, self.tool_calls)


class GrowingAnswers:
    """All answers to one request."""

    def __init__(
        self,
        request: GenerationRequest,
        on_delta: OnDelta | None,
        readings: Sequence[AnswerReading | None],
        prompt_tokens: int,
        prefix_tokens: int,
    ) -> None:
        """Args: readings: one for each answer; see `GrowingAnswer`."""
        self._each = [
            GrowingAnswer(request, on_delta, reading, number, prefix_tokens) for number, reading in enumerate(readings)
        ]
        self._prompt_tokens, self._cached_tokens = prompt_tokens, prompt_tokens
        self._prefix_tokens = prefix_tokens

    def __len__(self) -> int:
        return len(self._each)

    @property
    def tokens(self) -> int:
        """Those that all of them have by now, without the request's prefix."""
        return sum(each.tokens for each in self._each)

    def add(self, output: Any) -> None:
        """Add vLLM's next output, with news of one answer or more."""
        for completion in output.outputs:
            self._each[completion.index].add(completion)
        cached_tokens = min(output.num_cached_tokens or 0, self._prompt_tokens)  # The prefix counts as output.
        # The first of several answers reads the prompt for the others.
        self._cached_tokens = min(cached_tokens, self._cached_tokens) if len(self) > 1 else cached_tokens

    def generation(self, model: str) -> Generation:
        """The answers as they stand. They are aborted if one of them did not end."""
        first, *others = self._each
        reasons = [each.finish_reason for each in self._each]
        made, thought = self._prefix_tokens + self.tokens, sum(each.reasoning_tokens for each in self._each)
        return Generation(
            text=first.text,
            logprobs=first.logprobs,
            reasoning=first.reasoning,
            tool_calls=first.tool_calls,
            usage=Usage(self._prompt_tokens, made, self._cached_tokens, thought),
            finish_reason="abort" if "abort" in reasons else reasons[0],
            model_served=model,
            others=tuple(each.as_choice() for each in others),
        )
