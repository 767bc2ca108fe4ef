"""A job in the shape of OpenAI's completion, with Headrace's own fields in `job`."""

from collections.abc import Sequence
from typing import Literal, Self

from pydantic import Field

from api.door.accepted import Accepted
from api.schemas.chat.body import ChatUsage
from api.schemas.fields import Answer
from api.schemas.response_body import JobView
from headrace.domain.choices import Choice
from headrace.domain.ids import show_id
from headrace.domain.jobs import Job
from headrace.domain.logprobs import TokenLogprob

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
    def of(cls, job: Job, accepted: Accepted, echoed: str = "") -> Self:
        """A job that succeeded, with the facts of its accept. Args: echoed: comes before the answer."""
        return cls(
            id=show_id(job.id, PREFIX),
            created=int(job.created_at.timestamp()),
            model=job.model_requested,
            choices=[CompletionChoice.of(number, each, echoed) for number, each in enumerate(job.choices)],
            usage=ChatUsage.of(job),
            job=JobView.of(job, accepted),
        )
