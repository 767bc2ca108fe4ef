"""A job in the shape of OpenAI's chat completion, with Headrace's own fields in `job`."""

from typing import Literal, Self

from pydantic import Field

from api.door.accepted import Accepted
from api.schemas.fields import Answer
from api.schemas.logprobs import TokenLogprobBody, TokenLogprobs
from api.schemas.openai_request import LANE_TIERS
from api.schemas.response_body import JobView
from api.schemas.tools import ToolCallBody
from headrace.domain.choices import Choice
from headrace.domain.ids import show_id
from headrace.domain.jobs import Job

ChatFinishReason = Literal["stop", "length", "tool_calls"]
#: Where a stream has its usage: in one more chunk at its end, or so far in each chunk too.
UsageIn = Literal["end", "chunks"]


class ChatMessageBody(Answer):
    """The answer."""

    role: Literal["assistant"] = "assistant"
    content: str | None = Field(description="Its text; null where it only calls tools.")
    tool_calls: list[ToolCallBody] | None = Field(description="The tools that it calls; null: none.")
    reasoning: str | None = Field(description="What the model thought before it answered; null: nothing, or not told.")
    refusal: None = None
    annotations: tuple[()] = ()


class ChatLogprobs(Answer):
    """Of each token of the answer."""

    content: TokenLogprobs
    refusal: None = None


class ChatChoice(Answer):
    """An answer, of `n`. `length`: it was cut at its limit; `tool_calls`: the model chose to call tools."""

    index: int
    message: ChatMessageBody
    finish_reason: ChatFinishReason
    logprobs: ChatLogprobs | None = Field(description="Where they were asked for.")

    @classmethod
    def of(cls, number: int, answer: Choice) -> Self:
        """One of a job's answers."""
        content, calls = TokenLogprobBody.each_of(answer.logprobs), ToolCallBody.each_of(answer.tool_calls)
        # One that only calls tools has no text.
        text = answer.text or (None if answer.tool_calls else "")
        return cls(
            index=number,
            message=ChatMessageBody(content=text, tool_calls=calls, reasoning=answer.reasoning or None),
            finish_reason=finish_reason_of(answer),
            logprobs=None if content is None else ChatLogprobs(content=content),
        )


class PromptTokensDetails(Answer):
    """Of the prompt's tokens, those that need not be computed again."""

    cached_tokens: int


class CompletionTokensDetails(Answer):
    """Of the completion's tokens, those that came before the answer."""

    reasoning_tokens: int


class ChatUsage(Answer):
    """Tokens as the engine counted them."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails

    @classmethod
    def of(cls, job: Job) -> Self:
        """What an ended job used."""
        output_tokens = job.output_tokens or 0
        return cls(
            prompt_tokens=job.prompt_tokens,
            completion_tokens=output_tokens,
            total_tokens=job.prompt_tokens + output_tokens,
            prompt_tokens_details=PromptTokensDetails(cached_tokens=job.cached_tokens or 0),
            completion_tokens_details=CompletionTokensDetails(reasoning_tokens=job.reasoning_tokens or 0),
        )


def usage_so_far(job: Job, output_tokens: int) -> dict[str, int]:
    """What a job has used while it runs, for one of its answers."""
    prompt_tokens = job.prompt_tokens
    total_tokens = prompt_tokens + output_tokens
    return {"prompt_tokens": prompt_tokens, "completion_tokens": output_tokens, "total_tokens": total_tokens}


class ChatCompletionBody(Answer):
    """A job that succeeded, as OpenAI's SDK reads it."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: ChatUsage
    service_tier: str
    system_fingerprint: None = None
    metadata: dict[str, str]
    job: JobView

    @classmethod
    def of(cls, job: Job, accepted: Accepted | None = None) -> Self:
        """A job that succeeded, with the facts of its accept if this is the answer to its submission."""
        return cls(
            id=show_id(job.id, "chatcmpl-"),
            created=int(job.created_at.timestamp()),
            model=job.model_requested,
            choices=[ChatChoice.of(number, each) for number, each in enumerate(job.choices)],
            usage=ChatUsage.of(job),
            service_tier=LANE_TIERS[job.lane],
            metadata=dict(job.metadata),
            job=JobView.of(job, accepted),
        )


def finish_reason_of(answer: Choice) -> ChatFinishReason:
    """Why the answer ends, as OpenAI's `finish_reason`."""
    match answer.finish_reason:
        case "length" | "tool_calls" as reason:
            return reason
    return "stop"
