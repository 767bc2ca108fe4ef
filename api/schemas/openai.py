"""What OpenAI's APIs share: the tier that chooses a lane, `job` in requests and answers, and unsupported parameters.

Also the error for a job that ended without an answer. Knows none of the APIs by itself.
"""

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field

from api.door.drafts import Accepted
from api.schemas.fields import (
    Answer,
    Attempts,
    Cache,
    CacheField,
    Compress,
    CompressAlso,
    Deadline,
    EndUser,
    ExtraSamplingRequest,
    MaxWait,
    Metadata,
    OriginalTokens,
    QualityField,
    Request,
    RunS,
    ServedBy,
    Temperature,
    TimeOut,
    TopP,
    Unserved,
    Usd,
    WaitS,
    WebhookUrl,
    WorkerIn,
    unserved,
)
from api.schemas.jobs import CostBody, LaneName, OverflowName
from headrace.domain.fleet import Vacancy
from headrace.domain.ids import show_id
from headrace.domain.jobs import Job
from headrace.domain.prompts.compression import CompressChoice, compress_choice
from headrace.domain.queues import Lane, Overflow
from headrace.domain.states import JobState
from headrace.errors import (
    InvalidRequest,
    JobCancelled,
    JobExpired,
    JobHeld,
    JobOverdue,
    JobUnserved,
    PromptRejected,
    Unanswered,
)

TIER_LANES: Mapping[str, Lane] = {
    "priority": Lane.HIGH,
    "fast": Lane.HIGH,
    "ultrafast": Lane.HIGH,
    "auto": Lane.NORMAL,
    "default": Lane.NORMAL,
    "scale": Lane.NORMAL,
    "flex": Lane.LOW,
}
LANE_TIERS: Mapping[Lane, str] = {Lane.HIGH: "priority", Lane.NORMAL: "default", Lane.LOW: "flex", Lane.BATCH: "flex"}


class JobOptions(Request):
    """What OpenAI has no word for; the SDK sends it with `extra_body={"job": {...}}`."""

    lane: LaneName | None = Field(None, description="Wins over service_tier.")
    max_wait: MaxWait | None = Field(None, description="Seconds within which it must start, or it expires unpaid.")
    deadline: Deadline | None = Field(None, description="Unix seconds or ISO 8601. Past it the job is aborted.")
    not_before: Deadline | None = Field(
        None, description="Unix seconds or ISO 8601. The job does not start before; its max_wait begins then."
    )
    webhook: WebhookUrl | None = Field(None, description="Called once the job has ended, signed with the app's secret.")
    overflow: OverflowName = Field("allow", description="Whether a paid API may answer when the own GPUs are behind.")
    max_cost_usd: Usd | None = Field(None, description="A paid API is used only if it cannot cost more than this.")
    cache: CacheField = None
    compress: Compress = None
    compress_also: CompressAlso = None
    quality: QualityField = None

    @property
    def compression(self) -> CompressChoice:
        """What it says of compression."""
        return compress_choice(self.compress, self.compress_also)


class OpenAIRequest(ExtraSamplingRequest):
    """A prompt, as OpenAI's SDK sends it."""

    model: str | None = Field(None, description="A model of GET /v1/models; the first one by default.")
    temperature: Temperature | None = None
    top_p: TopP | None = None
    metadata: Metadata | None = Field(None, description="Up to 16 pairs of your own; returned with the answer.")
    service_tier: Literal["auto", "default", "flex", "scale", "priority", "fast", "ultrafast"] | None = Field(
        None, description="Chooses the lane: priority and fast are high, flex is low, the others are normal."
    )
    safety_identifier: EndUser | None = Field(None, description="Who caused this: costs can be split by it.")
    user: EndUser | None = Field(None, description="The older name of safety_identifier.")
    stream: bool | None = Field(None, description="Server-sent events instead of one answer.")
    job: JobOptions = Field(
        default_factory=lambda: JobOptions.model_validate({}), description="What OpenAI has no word for."
    )
    prompt_cache_key: Any = Field(None, description="Not acted on: prefixes are cached by themselves.")
    prompt_cache_retention: Any = Field(None, description="Not acted on.")

    @property
    def lane(self) -> Lane:
        """The lane that `job.lane`, or else the tier, asks for."""
        return Lane(self.job.lane) if self.job.lane else TIER_LANES[self.service_tier or "auto"]

    @property
    def lane_param(self) -> str:
        """The field that chose the lane."""
        return "job.lane" if self.job.lane else "service_tier"

    def shared(self) -> dict[str, Any]:
        """The fields of a Draft that both APIs share."""
        return {
            "model": self.model,
            "lane": self.lane,
            "max_wait_s": self.job.max_wait,
            "deadline": self.job.deadline,
            "not_before": self.job.not_before,
            "overflow": Overflow(self.job.overflow),
            "max_cost_usd": self.job.max_cost_usd,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "metadata": self.metadata or {},
            "webhook_url": self.job.webhook,
            "end_user": self.safety_identifier or self.user,
            "stream": bool(self.stream),
            "cache": self.job.cache,
            "extra_sampling": self.extra_sampling,
            "compress": self.job.compression,
            "quality": self.job.quality,
        }


class JobView(Answer):
    """What OpenAI has no word for: the job behind one of its objects."""

    id: str
    status: JobState
    lane: Lane
    queue: str
    position: int | None = Field(None, description="In the accept only, like the four that follow.")
    depth: int | None = None
    expected_wait_s: float | None = None
    reason: Unserved = None
    worker_in_s: WorkerIn = None
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
    max_wait: float = Field(
        description="Seconds to start_by from its acceptance, or from its not_before: as asked for, or the default."
    )
    not_before: TimeOut | None = Field(description="It does not start before; null: it may start at once.")
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
            **(unserved(accepted.vacancy) if accepted and not job.state.is_terminal else {}),
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
            not_before=job.start_after,
            start_by=job.start_by,
            deadline=job.finish_by,
        )


def job_error(job: Job, vacancy: Vacancy | None = None) -> InvalidRequest | Unanswered:
    """The error for a job that ended and did not succeed. Args: vacancy: of its pool, if it expired."""
    message = job.error_message or "The job failed."
    if job.state is JobState.CANCELLED:
        return JobCancelled("The job was cancelled before it had an answer.", job.id)
    if job.state is JobState.EXPIRED:
        if job.error_code == JobHeld.code:
            return JobHeld(message, job.id)
        if vacancy is None:
            return JobExpired(f"{message.rstrip('.')}. It cost nothing; try again.", job.id)
        return JobUnserved(
            f"{message.rstrip('.')}. It cost nothing. {vacancy}",
            job.id,
            retry_after_s=vacancy.retry_after_s,
            worker_in_s=vacancy.worker_in_s,
        )
    if job.error_code == JobOverdue.code:
        return JobOverdue(message, job.id)
    if job.error_code == PromptRejected.code:
        rejected = InvalidRequest(message, code=job.error_code)
        rejected.job_id = job.id
        return rejected
    return Unanswered(message, job.id, code=job.error_code)
