"""`/v1/completions`: a plain prompt, which the model continues without a chat template, and its answer.

Source: the request types of openai-python 3.57, and vLLM's own server; a test holds the fields against the first.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, PlainValidator, model_validator

from api.door.drafts import Accepted, Draft, Spelling
from api.schemas.chat import ChatUsage, StreamOptions, UsageIn
from api.schemas.fields import INT4_MAX, Answer, Choices, MaxTokens, ResponseFormat, Seed, Stop, refusal
from api.schemas.logprobs import TopLogprobs
from api.schemas.openai import JobView, OpenAIRequest
from headrace.domain.answers import Choice, TokenLogprob
from headrace.domain.ids import show_id
from headrace.domain.jobs import Job
from headrace.domain.prompts import Message, plain_text, plain_tokens

#: What an answer may have at most unless the request says so. Source: OpenAI's API; vLLM's own server.
DEFAULT_MAX_TOKENS = 16


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

    UNSUPPORTED: ClassVar[Mapping[str, str]] = {"suffix": "Nothing is inserted before a text here: leave it out."}

    prompt: Prompt = Field(description="A text, or token ids of the model's own tokenizer; one of them.")
    best_of: Literal[1] | None = None
    echo: bool | None = Field(None, description="The text comes again before the answer. Not with token ids.")
    logprobs: TopLogprobs | None = Field(None, description="Log probabilities, with this many alternatives each.")
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


#: The prefix of its id.
PREFIX = "cmpl-"


class CompletionLogprobs(Answer):
    """Of each token of the answer, in the format of completions."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]] = Field(description="The likeliest tokens at each place.")
    text_offset: list[int] = Field(description="Where each token begins in the answer.")

    @classmethod
    def of(cls, logprobs: Sequence[TokenLogprob], offset: int = 0) -> Self:
        """Args: offset: where the first of them begins."""
        made = cls(tokens=[], token_logprobs=[], top_logprobs=[], text_offset=[])
        for each in logprobs:
            made.tokens.append(each["token"])
            made.token_logprobs.append(each["logprob"])
            made.top_logprobs.append({other["token"]: other["logprob"] for other in each["top_logprobs"]})
            made.text_offset.append(offset)
            offset += len(each["token"])
        return made


class CompletionChoice(Answer):
    """An answer; `n` says how many there are. `length`: it was cut at its limit."""

    index: int
    text: str
    finish_reason: Literal["stop", "length"]
    logprobs: CompletionLogprobs | None = Field(description="Where they were asked for.")

    @classmethod
    def of(cls, number: int, answer: Choice, echoed: str) -> Self:
        """One of a job's answers."""
        return cls(
            index=number,
            text=f"{echoed}{answer.text}",
            finish_reason="length" if answer.finish_reason == "length" else "stop",
            logprobs=None if answer.logprobs is None else CompletionLogprobs.of(answer.logprobs),
        )


class CompletionBody(Answer):
    """A job that succeeded, as OpenAI's SDK reads it."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: ChatUsage
    system_fingerprint: None = None
    job: JobView

    @classmethod
    def of(cls, job: Job, accepted: Accepted | None, echoed: str = "") -> Self:
        """A job that succeeded, with the facts of its accept. Args: echoed: comes before the answer."""
        return cls(
            id=show_id(job.id, PREFIX),
            created=int(job.created_at.timestamp()),
            model=job.model_requested,
            choices=[CompletionChoice.of(number, each, echoed) for number, each in enumerate(job.choices)],
            usage=ChatUsage.of(job),
            job=JobView.of(job, accepted),
        )
