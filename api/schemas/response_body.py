"""A job in the shape of OpenAI's Response: all fields that a strict SDK requires, with Headrace's own in `job`."""

from collections.abc import Mapping, Sequence
from typing import Literal, Self
from uuid import UUID

from pydantic import Field

from api.door.accepted import Accepted
from api.schemas.fields import Answer, Attempts, Cache, OriginalTokens, RunS, ServedBy, TimeOut, WaitS
from api.schemas.jobs import CostBody
from api.schemas.logprobs import TokenLogprobBody, TokenLogprobs
from api.schemas.openai_request import LANE_TIERS
from api.schemas.responses.tools import FunctionCallItem, FunctionToolBody, NamedToolBody, choice_of
from headrace.domain.ids import show_id
from headrace.domain.jobs import Job
from headrace.domain.logprobs import TokenLogprob
from headrace.domain.prompts import ReasoningEffort
from headrace.domain.queues import Lane
from headrace.domain.states import JobState

STATUSES: Mapping[JobState, str] = {
    JobState.WAITING: "queued",
    JobState.QUEUED: "queued",
    JobState.RUNNING: "in_progress",
    JobState.SUCCEEDED: "completed",
    JobState.FAILED: "failed",
    JobState.EXPIRED: "failed",
    JobState.CANCELLED: "cancelled",
}


class OutputText(Answer):
    """The answer's text, and its tokens' log probabilities where they were to be included."""

    type: Literal["output_text"] = "output_text"
    text: str
    annotations: tuple[()] = ()
    logprobs: TokenLogprobs = ()


class ReasoningText(Answer):
    """What the model thought."""

    type: Literal["reasoning_text"] = "reasoning_text"
    text: str


class ReasoningItem(Answer):
    """What came before the answer."""

    id: str
    type: Literal["reasoning"] = "reasoning"
    summary: tuple[()] = ()
    status: Literal["in_progress", "completed", "incomplete"]
    content: list[ReasoningText]

    @classmethod
    def of(cls, job_id: UUID, text: str, *, is_whole: bool) -> Self:
        """What a job's model thought; all of it, or as far as it got."""
        status: Literal["completed", "incomplete"] = "completed" if is_whole else "incomplete"
        return cls(id=show_id(job_id, "rs_"), status=status, content=[ReasoningText(text=text)])


class OutputMessage(Answer):
    """The answer."""

    id: str
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    status: Literal["completed", "incomplete"]
    content: list[OutputText]

    @classmethod
    def of(
        cls,
        job_id: UUID,
        text: str,
        logprobs: Sequence[TokenLogprob] | None,
        status: Literal["completed", "incomplete"],
    ) -> Self:
        """The text of a job's answer."""
        content = OutputText(text=text, logprobs=TokenLogprobBody.each_of(logprobs) or ())
        return cls(id=show_id(job_id, "msg_"), status=status, content=[content])


class InputTokens(Answer):
    """Of the prompt's tokens, those that need not be computed again."""

    cached_tokens: int
    cache_write_tokens: int = 0


class OutputTokens(Answer):
    """Of the output's tokens, those that came before the answer."""

    reasoning_tokens: int


class ResponseUsage(Answer):
    """Tokens as the engine counted them."""

    input_tokens: int
    input_tokens_details: InputTokens
    output_tokens: int
    output_tokens_details: OutputTokens
    total_tokens: int


class ResponseError(Answer):
    """Why there is no answer. `code` is one of OpenAI's, `type` is ours and says more."""

    code: Literal["server_error", "rate_limit_exceeded"] = "server_error"
    message: str
    type: str


class IncompleteDetails(Answer):
    """Why the answer stops short."""

    reason: Literal["max_output_tokens"] = "max_output_tokens"


class ReasoningSettings(Answer):
    """How much the model was to think, as it was asked for."""

    effort: ReasoningEffort | None
    summary: None = None


class JobView(Answer):
    """What OpenAI has no word for: the job behind one of its objects."""

    id: str
    status: JobState
    lane: Lane
    queue: str
    position: int | None = Field(None, description="In the accept only, like the two that follow.")
    depth: int | None = None
    expected_wait_s: float | None = None
    engine: str | None = Field(description="What answers: vllm, openai, or simulator, whose answers are made up.")
    model_served: str | None
    attempts: Attempts
    wait_s: WaitS
    run_s: RunS
    cost: CostBody
    cache: Cache
    served_by: ServedBy
    original_tokens: OriginalTokens
    max_tokens: int = Field(description="Bound of its answer: as asked for, or the default.")
    max_wait: float = Field(description="Seconds from its acceptance to start_by: as asked for, or the default.")
    start_by: TimeOut
    deadline: TimeOut | None

    @classmethod
    def of(cls, job: Job, accepted: Accepted | None = None) -> Self:
        """The job as its owner may see it; in the answer to its submission, with the facts of its accept."""
        return cls(
            id=show_id(job.id),
            status=job.state,
            lane=job.lane,
            queue=job.queue,
            position=accepted.position if accepted else None,
            depth=accepted.depth if accepted else None,
            expected_wait_s=accepted.expected_wait_s if accepted else None,
            engine=job.engine,
            model_served=job.model_served,
            attempts=job.attempt,
            wait_s=job.wait_s,
            run_s=job.run_s,
            cost=CostBody.of(job),
            cache=job.cache,
            served_by=None if job.served_by_job is None else show_id(job.served_by_job),
            original_tokens=job.original_tokens,
            max_tokens=job.max_tokens,
            max_wait=job.max_wait_s,
            start_by=job.start_by,
            deadline=job.finish_by,
        )


class ResponseBody(Answer):
    """A job, as OpenAI's SDK reads it."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    completed_at: int | None
    status: str
    background: bool
    error: ResponseError | None
    incomplete_details: IncompleteDetails | None
    model: str
    output: list[ReasoningItem | OutputMessage | FunctionCallItem]
    usage: ResponseUsage | None
    max_output_tokens: int
    reasoning: ReasoningSettings
    service_tier: str
    metadata: dict[str, str]
    safety_identifier: str | None
    parallel_tool_calls: bool
    tool_choice: str | NamedToolBody
    tools: list[FunctionToolBody]
    truncation: str = "disabled"
    previous_response_id: str | None = None
    job: JobView

    @classmethod
    def of(cls, job: Job, accepted: Accepted | None = None) -> Self:
        """The job as its owner may see it; in the answer to its submission, with the facts of its accept."""
        is_cut = job.state is JobState.SUCCEEDED and job.finish_reason == "length"
        succeeded_at = job.ended_at if job.state is JobState.SUCCEEDED else None
        return cls(
            id=show_id(job.id, "resp_"),
            created_at=int(job.created_at.timestamp()),
            completed_at=int(succeeded_at.timestamp()) if succeeded_at else None,
            status="incomplete" if is_cut else STATUSES[job.state],
            background=job.background,
            error=_error(job),
            incomplete_details=IncompleteDetails() if is_cut else None,
            model=job.model_requested,
            output=_output(job, is_cut),
            usage=_usage(job),
            max_output_tokens=job.max_tokens,
            reasoning=ReasoningSettings(effort=job.reasoning_effort),
            service_tier=LANE_TIERS[job.lane],
            metadata=dict(job.metadata),
            safety_identifier=job.end_user,
            parallel_tool_calls=job.tools is None or job.tools.parallel,
            tool_choice=choice_of(job.tools),
            tools=FunctionToolBody.each_of(job.tools),
            job=JobView.of(job, accepted),
        )


def _error(job: Job) -> ResponseError | None:
    if job.state not in (JobState.FAILED, JobState.EXPIRED):
        return None
    return ResponseError(message=job.error_message or "The job failed.", type=job.error_code or "internal_error")


def _output(job: Job, is_cut: bool) -> list[ReasoningItem | OutputMessage | FunctionCallItem]:
    if job.answer is None:
        return []
    is_whole = job.state is JobState.SUCCEEDED and not is_cut
    output: list[ReasoningItem | OutputMessage | FunctionCallItem] = []
    if job.reasoning is not None:
        output.append(ReasoningItem.of(job.id, job.reasoning, is_whole=bool(job.answer or job.tool_calls)))
    if job.answer or not job.tool_calls:
        status: Literal["completed", "incomplete"] = "completed" if is_whole or job.tool_calls else "incomplete"
        output.append(OutputMessage.of(job.id, job.answer, job.logprobs, status))
    return [*output, *FunctionCallItem.each_of(job.id, job.tool_calls, is_whole=is_whole)]


def _usage(job: Job) -> ResponseUsage | None:
    if job.output_tokens is None:
        return None
    return ResponseUsage(
        input_tokens=job.prompt_tokens,
        input_tokens_details=InputTokens(cached_tokens=job.cached_tokens or 0),
        output_tokens=job.output_tokens,
        output_tokens_details=OutputTokens(reasoning_tokens=job.reasoning_tokens or 0),
        total_tokens=job.prompt_tokens + job.output_tokens,
    )


class DeletedResponse(Answer):
    """What is left of it."""

    id: str
    object: Literal["response"] = "response"
    deleted: Literal[True] = True

    @classmethod
    def of(cls, job_id: UUID) -> Self:
        """The response of that job."""
        return cls(id=show_id(job_id, "resp_"))
