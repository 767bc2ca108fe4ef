"""Separates a model's reasoning from its answer, with vLLM's own parser for that model."""

from collections.abc import Sequence
from typing import Any

from headrace.config import PoolSettings
from headrace.domain.prompts import Sampling
from headrace.errors import ConfigError, EngineFault, PromptRejected
from headrace.policies.tokens.chat_template import template_arguments


def check_parser(pool: PoolSettings, model_config: Any, where: str) -> None:
    """Make sure that vLLM has the pool's parser, and that it suits the model's tokenizer.

    Raises: ConfigError that names the setting below `where`.
    """
    # Import here, at the start: it takes seconds, which would block the engine's loop at the first request.
    from vllm.parser.parser_manager import ParserManager
    from vllm.reasoning import ReasoningParserManager
    from vllm.tokenizers import cached_tokenizer_from_config

    name, param = pool.reasoning_parser or "", f"{where}.reasoning_parser"
    known = ReasoningParserManager.list_registered()
    if name not in known:
        raise ConfigError(f"{param}: vLLM has no parser '{name}'. It has: {', '.join(known)}.", param=param)
    try:
        ParserManager.get_parser(reasoning_parser_name=name)(cached_tokenizer_from_config(model_config))
    except Exception as error:  # Each parser raises its own error for a tokenizer that lacks its tokens.
        message = f"{param}: the parser '{name}' does not suit the model's tokenizer: {error!r}"
        raise ConfigError(message, param=param) from error


class Reading:
    """Reads one answer, from its first token on.

    Attributes:
        is_answering: True if the prompt itself turns reasoning off.
        skips_special_tokens: False if the parser must see special tokens in the text.
        parser_arguments: vLLM's core makes its own parser with them, for a request with a response format.
    """

    def __init__(self, name: str, llm: Any, prompt: list[int], sampling: Sampling) -> None:
        """Prepare the parser. Raises: PromptRejected for an effort that the parser does not know."""
        from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
        from vllm.parser.parser_manager import ParserManager

        make = ParserManager.get_parser(reasoning_parser_name=name)
        self._tokenizer = llm.get_tokenizer()
        effort, kwargs = sampling.reasoning_effort, sampling.template_kwargs
        self.parser_arguments = {"chat_template_kwargs": template_arguments(effort, kwargs)}
        try:
            self._parser = make(self._tokenizer, None, model_config=llm.model_config, **self.parser_arguments)
        except ValueError as error:  # `check_parser` made it without either, so one of them is the cause.
            param = "chat_template_kwargs" if kwargs else "reasoning_effort"
            raise PromptRejected(str(error), param=param) from error
        self._request = self._parser.adjust_request(ChatCompletionRequest(messages=[], reasoning_effort=effort))
        self._prompt = prompt
        self.is_answering: bool = self._parser.is_reasoning_end(prompt)
        self.skips_special_tokens: bool = self._request.skip_special_tokens

    def tokens_of(self, text: str, token_ids: Sequence[int]) -> int:
        """How many of the last tokens make up this text."""
        number = 0
        while number < len(token_ids) and len(self._text_of(token_ids[len(token_ids) - number :])) < len(text):
            number += 1
        return number

    def _text_of(self, token_ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(token_ids), skip_special_tokens=True))

    def read(self, completion: Any) -> tuple[str, str]:
        """The reasoning and the text in vLLM's output since the last read. Raises: EngineFault."""
        made = (completion.text, list(completion.token_ids), self._request, self._prompt)
        try:
            told = self._parser.parse_delta(*made, finished=completion.finish_reason is not None)
        except Exception as error:
            raise EngineFault(f"vLLM's parser could not read the answer: {error!r}") from error
        return (told.reasoning or "", told.content or "") if told else ("", "")
