"""The native endpoints' JSON: `/v1/jobs` and `/v1/queues`."""

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import Field

from api.door.accepted import Accepted
from api.schemas.fields import (
    Answer,
    Attempts,
    Cache,
    OriginalTokens,
    Request,
    RunS,
    ServedBy,
    TimeOut,
    UsdOut,
    WaitS,
)
from api.schemas.logprobs import TokenLogprobBody, TokenLogprobs
from api.schemas.tools import ToolCallBody
from headrace.domain.choices import Choice
from headrace.domain.embeddings.vectors import of_answer
from headrace.domain.ids import show_id
from headrace.domain.jobs import Job
from headrace.domain.queues import Lane
from headrace.domain.states import JobState


class AcceptedBody(Answer):
    """The accept: the job is durable, and this is where it stands."""

    id: str
    object: Literal["job"] = "job"
    status: JobState
    lane: Lane
    queue: str = Field(description="Where it waits: its pool, or overflow for the paid API, and its lane.")
    position: int | None = Field(description="Place in the queue, from 1; null for a replay and a hit of the cache.")
    depth: int | None = Field(description="Jobs in the queue, this one included; null for these, too.")
    expected_wait_s: float | None = Field(description="Until its start; null while it is unknown.")
    start_by: TimeOut = Field(description="If it has not started by then, it expires.")
    max_tokens: int = Field(description="Bound of its answer: as asked for, or the default.")
    max_wait: float = Field(description="Seconds from its acceptance to start_by: as asked for, or the default.")
    cache: Cache

    @classmethod
    def of(cls, accepted: Accepted) -> Self:
        """The answer to an accept."""
        return cls(
            id=show_id(accepted.job_id),
            status=accepted.state,
            lane=accepted.lane,
            queue=accepted.queue,
            position=accepted.position,
            depth=accepted.depth,
            expected_wait_s=accepted.expected_wait_s,
            start_by=accepted.start_by,
            max_tokens=accepted.max_tokens,
            max_wait=accepted.max_wait_s,
            cache=accepted.cache,
        )


class UsageBody(Answer):
    """Tokens as the engine counted them. Cached ones are part of the prompt's, reasoning's of the output's."""

    prompt_tokens: int
    output_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    total_tokens: int
    original_tokens: OriginalTokens


class CostBody(Answer):
    """What the job cost its app."""

    usd: UsdOut
    currency: Literal["USD"] = "USD"
    price_version: str | None = Field(description="The price it was charged at; null while nothing is charged.")

    @classmethod
    def of(cls, job: Job) -> Self:
        """The bill so far."""
        return cls(usd=job.usd, price_version=job.price_version)


class JobError(Answer):
    """Why there is no answer."""

    code: str
    message: str


class JobChoice(Answer):
    """One of several answers. Its fields mean what those of the job mean."""

    text: str
    reasoning: str | None
    tool_calls: list[ToolCallBody] | None
    finish_reason: str | None
    logprobs: TokenLogprobs | None

    @classmethod
    def of(cls, choice: Choice) -> Self:
        """The answer as the job's owner may see it."""
        return cls(
            text=choice.text,
            reasoning=choice.reasoning or None,
            tool_calls=ToolCallBody.each_of(choice.tool_calls),
            finish_reason=choice.finish_reason,
            logprobs=TokenLogprobBody.each_of(choice.logprobs),
        )


class JobBody(Answer):
    """A job as it stands."""

    id: str
    object: Literal["job"] = "job"
    status: JobState
    lane: Lane
    queue: str
    route: str = Field(description="pool: our own GPUs; overflow: the paid API.")
    model_requested: str
    model_served: str | None
    engine: str | None = Field(description="What answers: vllm, openai, or simulator, whose answers are made up.")
    text: str | None
    embeddings: list[str] | None = Field(
        description="Of an embedding job, the vector of each input: 32-bit floats, little-endian, in base64; null in a "
        "list of jobs, and for every other job."
    )
    reasoning: str | None = Field(description="What the model thought first; null: nothing, and in a list of jobs.")
    tool_calls: list[ToolCallBody] | None = Field(description="The tools that the answer calls; null: none.")
    finish_reason: str | None = Field(
        description="stop: the model had said all; length: cut at max_tokens; tool_calls: it calls tools; abort: "
        "cancelled, or past its deadline."
    )
    logprobs: TokenLogprobs | None = Field(
        description="Of each token of the text, where 'top_logprobs' was given; null in a list of jobs."
    )
    n: int = Field(description="How many answers it asks for.")
    choices: list[JobChoice] | None = Field(
        description="All answers, where n is above 1; the first one's text is also the job's. Null in a list of jobs."
    )
    usage: UsageBody | None
    error: JobError | None
    cost: CostBody
    cache: Cache
    served_by: ServedBy
    attempts: Attempts
    wait_s: WaitS
    run_s: RunS
    max_tokens: int = Field(description="Bound of its answer: as asked for, or the default.")
    max_wait: float = Field(description="Seconds from its acceptance to start_by: as asked for, or the default.")
    metadata: dict[str, str]
    end_user: str | None
    cancel_requested: bool
    retry_of: str | None = Field(description="The failed job that this one is another try of, which operators ask for.")
    created_at: TimeOut = Field(description="When it was accepted.")
    start_by: TimeOut = Field(description="If it has not started by then, it expires.")
    deadline: TimeOut | None = Field(description="Past it the job is aborted; null: it has none.")
    started_at: TimeOut | None = Field(description="Its first start.")
    ended_at: TimeOut | None = Field(description="When it ended, however it did.")

    @classmethod
    def of(cls, job: Job) -> Self:
        """The job as its owner may see it."""
        return cls(
            id=show_id(job.id),
            status=job.state,
            lane=job.lane,
            queue=job.queue,
            route=job.route,
            model_requested=job.model_requested,
            model_served=job.model_served,
            engine=job.engine,
            text=None if job.is_embedding else job.answer,
            embeddings=of_answer(job.answer) if job.is_embedding and job.answer else None,
            reasoning=job.reasoning,
            tool_calls=ToolCallBody.each_of(job.tool_calls),
            finish_reason=job.finish_reason,
            logprobs=TokenLogprobBody.each_of(job.logprobs),
            n=job.n,
            choices=None if job.others is None else [JobChoice.of(each) for each in job.choices],
            usage=_usage(job),
            error=JobError(code=job.error_code, message=job.error_message or "") if job.error_code else None,
            cost=CostBody.of(job),
            cache=job.cache,
            served_by=None if job.served_by_job is None else show_id(job.served_by_job),
            attempts=job.attempt,
            wait_s=job.wait_s,
            run_s=job.run_s,
            max_tokens=job.max_tokens,
            max_wait=job.max_wait_s,
            metadata=dict(job.metadata),
            end_user=job.end_user,
            cancel_requested=job.cancel_requested_at is not None,
            retry_of=None if job.retry_of is None else show_id(job.retry_of),
            created_at=job.created_at,
            start_by=job.start_by,
            deadline=job.finish_by,
            started_at=job.started_at,
            ended_at=job.ended_at,
        )


def _usage(job: Job) -> UsageBody | None:
    """The job's tokens; None until an engine has counted them."""
    if job.output_tokens is None:
        return None
    return UsageBody(
        prompt_tokens=job.prompt_tokens,
        output_tokens=job.output_tokens,
        cached_tokens=job.cached_tokens or 0,
        reasoning_tokens=job.reasoning_tokens or 0,
        total_tokens=job.prompt_tokens + job.output_tokens,
        original_tokens=job.original_tokens,
    )


class JobList(Answer):
    """One page, newest first."""

    object: Literal["list"] = "list"
    data: list[JobBody]
    first_id: str | None
    last_id: str | None
    has_more: bool

    @classmethod
    def of(cls, found: Sequence[Job], limit: int) -> Self:
        """A page of `limit` jobs. `found` has one job more if another page follows."""
        data = [JobBody.of(job) for job in found[:limit]]
        ids = [body.id for body in data]
        first, last = (ids[0], ids[-1]) if ids else (None, None)
        return cls(data=data, first_id=first, last_id=last, has_more=len(found) > limit)


class DeletedJob(Answer):
    """What is left of it."""

    id: str
    object: Literal["job"] = "job"
    deleted: Literal[True] = True


class WaitQuery(Request):
    """The query string of a poll."""

    wait: float = Field(0, ge=0, strict=False, allow_inf_nan=False, description="Seconds to hold on for the end.")


class JobsQuery(Request):
    """The query string of a list."""

    status: Annotated[JobState | None, Field(strict=False, description="Only jobs in this state.")] = None
    after: str | None = Field(None, description="The id of a job: the page begins with the next older one.")
    limit: int = Field(20, ge=1, le=100, strict=False, description="Jobs on the page, at most.")
