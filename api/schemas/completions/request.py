"""A completion's request: a plain prompt, which the model continues without a chat template.

Source: the request types of openai-python 3.57, and vLLM's own server; a test holds the fields against the first.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, PlainValidator, model_validator

from api.door.drafts import Draft, Spelling
from api.schemas.chat.body import UsageIn
from api.schemas.chat.request import StreamOptions
from api.schemas.fields import INT4_MAX, Choices, MaxTokens, ResponseFormat, Seed, Stop, refusal
from api.schemas.logprobs import TopLogprobs
from api.schemas.openai_request import OpenAIRequest
from headrace.domain.prompts import Message
from headrace.domain.prompts.plain import plain_text, plain_tokens

#: What an answer may have at most unless the request says so. Source: OpenAI's API; vLLM's own server.
DEFAULT_MAX_TOKENS = 16
#: OpenAI's parameters that Headrace does not support, with what to do instead.
UNSUPPORTED: Mapping[str, str] = {
    "suffix": "Nothing is inserted before a text here: leave it out.",
}


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= INT4_MAX


def _prompt(value: Any) -> Message:
    """A text, token ids, or a list of one of these."""
    if isinstance(value, list) and value and not isinstance(value[0], int):
        if len(value) > 1:
            raise refusal("it may have one prompt: send a request for each")
        value = value[0]
    if isinstance(value, str) and value:
        return plain_text(value)
    if isinstance(value, list) and value and all(map(_is_id, value)):
        return plain_tokens(value)
    raise refusal("it should be a text or token ids, and not empty")


Prompt = Annotated[
    Message, PlainValidator(_prompt, json_schema_input_type=str | list[str] | list[int] | list[list[int]])
]


class CompletionRequest(OpenAIRequest):
    """A text to be continued while the caller waits, or as a stream."""

    UNSUPPORTED: ClassVar[Mapping[str, str]] = UNSUPPORTED
    IGNORED: ClassVar[frozenset[str]] = frozenset({"parallel_tool_calls", "prompt_cache_key", "prompt_cache_retention"})

    prompt: Prompt = Field(description="A text, or token ids of the model's own tokenizer; one of them.")
    best_of: Literal[1] | None = None
    echo: bool | None = Field(None, description="The text comes again before the answer. Not with token ids.")
    logprobs: TopLogprobs | None = Field(None, description="Log probabilities, and so many alternatives to each token.")
    max_tokens: MaxTokens | None = Field(
        None,
        description=f"Bound of the answer; by default {DEFAULT_MAX_TOKENS}, or what the prompt leaves of the context.",
    )
    n: Choices | None = Field(None, description="How many answers to make, each of `max_tokens` at most.")
    tool_choice: Literal["auto", "none"] | None = None
    parallel_tool_calls: Any = Field(None, description="Not acted on: no tools are called here.")
    response_format: ResponseFormat | None = None
    seed: Seed | None = None
    stop: Stop | None = None
    stream_options: StreamOptions | None = None

    @model_validator(mode="after")
    def _refuse_modes(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise refusal("it needs stream=true", param="stream_options")
        if self.echo and self.prompt.role != "text":
            raise refusal("it needs a text as 'prompt'", param="echo")
        if self.echo and self.logprobs is not None:
            raise refusal("a prompt's tokens have no log probabilities here: leave out one of the two", param="echo")
        if self.chat_template_kwargs:
            raise refusal("no template is applied: leave it out", param="chat_template_kwargs")
        return self

    @property
    def usage_in(self) -> UsageIn | None:
        """Which chunks of a stream have the usage."""
        return self.stream_options.usage_in if self.stream_options else None

    @property
    def echoed(self) -> str:
        """The text that comes before the answer."""
        return self.prompt.content if self.echo else ""

    def to_draft(self) -> Draft:
        """The request in the core's terms."""
        return Draft(
            **self.shared(),
            spelling=Spelling("prompt", "max_tokens", "job.", self.lane_param),
            messages=(self.prompt,),
            is_plain=True,
            max_tokens=self.max_tokens,
            default_max_tokens=DEFAULT_MAX_TOKENS,
            stop=tuple(self.stop or ()),
            seed=self.seed,
            response_format=self.response_format,
            top_logprobs=self.logprobs,
            n=self.n or 1,
            background=False,
        )
