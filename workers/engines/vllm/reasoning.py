"""Tells what a model thinks from what it answers, by vLLM's own parser for that model."""

from collections.abc import Sequence
from typing import Any

from headrace.config import PoolSettings
from headrace.domain.prompts import ReasoningEffort
from headrace.errors import ConfigError, EngineFault, PromptRejected
from headrace.policies.tokens import template_arguments


def check_parser(pool: PoolSettings, model_config: Any, where: str) -> None:
    """Make sure that vLLM has the pool's parser, and that it suits the model's tokenizer.

    Raises: ConfigError that names the setting below `where`.
    """
    # Importing this takes seconds, in which a loop that did so at its first request would stand still.
    from vllm.parser.parser_manager import ParserManager
    from vllm.reasoning import ReasoningParserManager
    from vllm.tokenizers import cached_tokenizer_from_config

    name, param = pool.reasoning_parser or "", f"{where}.reasoning_parser"
    known = ReasoningParserManager.list_registered()
    if name not in known:
        raise ConfigError(f"{param}: vLLM has no parser '{name}'. It has: {', '.join(known)}.", param=param)
    try:
        ParserManager.get_parser(reasoning_parser_name=name)(cached_tokenizer_from_config(model_config))
    except Exception as error:  # Each parser misses what it needs in a way of its own.
        message = f"{param}: the parser '{name}' does not suit the model's tokenizer: {error!r}"
        raise ConfigError(message, param=param) from error


class Reading:
    """One answer as it is read, from its first token on.

    Attributes:
        is_answering: True where the prompt says itself that nothing is thought first.
        skips_special_tokens: False where the parser must see them in the text.
        parser_arguments: with which vLLM's core makes a parser of its own for a shape that is asked for.
    """

    def __init__(self, name: str, llm: Any, prompt: list[int], effort: ReasoningEffort | None) -> None:
        """Read nothing yet. Raises: PromptRejected for an effort that the parser does not know."""
        from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
        from vllm.parser.parser_manager import ParserManager

        make = ParserManager.get_parser(reasoning_parser_name=name)
        self._tokenizer = llm.get_tokenizer()
        self.parser_arguments = {"chat_template_kwargs": template_arguments(effort)}
        try:
            self._parser = make(self._tokenizer, None, model_config=llm.model_config, **self.parser_arguments)
        except ValueError as error:  # With no effort it has been made before.
            raise PromptRejected(str(error), param="reasoning_effort") from error
        self._request = self._parser.adjust_request(ChatCompletionRequest(messages=[], reasoning_effort=effort))
        self._prompt = prompt
        self.is_answering: bool = self._parser.is_reasoning_end(prompt)
        self.skips_special_tokens: bool = self._request.skip_special_tokens

    def tokens_of(self, text: str, token_ids: Sequence[int]) -> int:
        """How many of the last tokens have become this text."""
        number = 0
        while number < len(token_ids) and len(self._text_of(token_ids[len(token_ids) - number :])) < len(text):
            number += 1
        return number

    def _text_of(self, token_ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(token_ids), skip_special_tokens=True))

    def read(self, completion: Any) -> tuple[str, str]:
        """The thought and the text in what vLLM has made since it was last read. Raises: EngineFault."""
        made = (completion.text, list(completion.token_ids), self._request, self._prompt)
        try:
            told = self._parser.parse_delta(*made, finished=completion.finish_reason is not None)
        except Exception as error:
            raise EngineFault(f"vLLM's parser could not read the answer: {error!r}") from error
        return (told.reasoning or "", told.content or "") if told else ("", "")
