"""`/v1/jobs`: requests and answers in Headrace's own format."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from api.door.drafts import Accepted, Draft, Spelling
from api.schemas.fields import (
    Answer,
    Attempts,
    Cache,
    CacheField,
    Choices,
    Compress,
    CompressAlso,
    Deadline,
    Dimensions,
    EndUser,
    ExtraSamplingRequest,
    Inputs,
    MaxTokens,
    MaxWait,
    Metadata,
    OriginalTokens,
    Page,
    QualityField,
    QueryInt,
    Request,
    ResponseFormat,
    RunS,
    Seed,
    ServedBy,
    Speaker,
    Stop,
    Temperature,
    TimeOut,
    TopP,
    Unserved,
    Usd,
    UsdOut,
    WaitS,
    WebhookUrl,
    WorkerIn,
    refusal,
    unserved,
)
from api.schemas.logprobs import TokenLogprobBody, TokenLogprobs, TopLogprobs
from api.schemas.tools import Calls, OutputOf, ToolCallBody, ToolsRequest, check_outputs, check_turn
from headrace.domain.answers import Choice
from headrace.domain.ids import show_id
from headrace.domain.jobs import Job
from headrace.domain.prompts import NEUTRAL_EXTRA, Message, ReasoningEffort
from headrace.domain.prompts.compression import compress_choice
from headrace.domain.prompts.embeddings import of_answer
from headrace.domain.queues import Lane, Overflow
from headrace.domain.states import JobState

LaneName = Literal["high", "normal", "low", "batch"]
OverflowName = Literal["allow", "never", "only"]

#: Fields that say how a prompt is answered: an embedding job has no use for them.
OF_PROMPTS = (
    *("max_tokens", "n", "temperature", "top_p", "stop", "seed"),
    *("response_format", "top_logprobs", "reasoning_effort"),
    *("tools", "tool_choice", "parallel_tool_calls"),
    *NEUTRAL_EXTRA,
    *("compress", "compress_also"),
)


class ChatMessage(Request):
    """One turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | None = Field(None, description="Its text; null or left out only where the turn has calls.")
    name: Speaker | None = Field(None, description="Who speaks, where several share a role.")
    tool_calls: Calls | None = None
    tool_call_id: OutputOf | None = None

    @model_validator(mode="after")
    def _check_calls(self) -> Self:
        check_turn(self.role, self.tool_calls, self.tool_call_id)
        if self.content is None and not self.tool_calls:
            raise refusal("Field required", "missing", param="content")
        return self

    @property
    def message(self) -> Message:
        """The turn in the core's terms."""
        calls = tuple(each.call for each in self.tool_calls or ())
        return Message(self.role, self.content or "", self.name or None, calls, self.tool_call_id)


class JobRequest(ExtraSamplingRequest, ToolsRequest):
    """A prompt to be answered, or inputs to be embedded. Give one of `prompt`, `messages` and `input`."""

    model: str | None = Field(None, description="A model of GET /v1/models; the first one by default.")
    prompt: str | None = Field(None, description="One user message.")
    messages: list[ChatMessage] | None = Field(
        None, min_length=1, fail_fast=True, description="A conversation, oldest turn first."
    )
    input: Inputs | None = Field(
        None, description="A text, token ids, or a list of either, for an embedding model: each gets a vector."
    )
    dimensions: Dimensions | None = Field(
        None, description="With `input`: shortens the vectors, where the model was trained for it (Matryoshka)."
    )
    max_tokens: MaxTokens | None = Field(
        None,
        description="Bound of the answer. Default: the pool's, 1,024 as shipped, or less where the prompt leaves less.",
    )
    lane: LaneName = Field("normal", description="The priority class, best first: high, normal, low, batch.")
    max_wait: MaxWait | None = Field(
        None, description="Seconds within which the job must start, or it expires unpaid. The lane's own by default."
    )
    deadline: Deadline | None = Field(
        None, description="Unix seconds or ISO 8601. Past it the job is aborted, and pays for what it produced."
    )
    not_before: Deadline | None = Field(
        None, description="Unix seconds or ISO 8601. The job does not start before; its max_wait begins then."
    )
    overflow: OverflowName = Field("allow", description="Whether a paid API may answer when the own GPUs are behind.")
    max_cost_usd: Usd | None = Field(None, description="A paid API is used only if it cannot cost more than this.")
    n: Choices | None = Field(None, description="How many answers to make, each of `max_tokens` at most.")
    temperature: Temperature | None = None
    top_p: TopP | None = None
    stop: Stop | None = None
    seed: Seed | None = None
    response_format: ResponseFormat | None = Field(
        None, description='`{"type": "text" | "json_object"}` or `{"type": "json_schema", "json_schema": {...}}`.'
    )
    top_logprobs: TopLogprobs | None = Field(
        None, description="Asks for log probabilities, with this many alternatives."
    )
    reasoning_effort: ReasoningEffort | None = Field(None, description="How much the model is to think first.")
    metadata: Metadata | None = Field(None, description="Up to 16 pairs of your own; returned with the job.")
    webhook: WebhookUrl | None = Field(None, description="Called once the job has ended, signed with the app's secret.")
    end_user: EndUser | None = Field(None, description="Who caused this, in your own words: costs can be split by it.")
    cache: CacheField = None
    compress: Compress = None
    compress_also: CompressAlso = None
    quality: QualityField = None

    @model_validator(mode="after")
    def _one_prompt(self) -> Self:
        if sum(given is not None for given in (self.prompt, self.messages, self.input)) != 1:
            raise refusal("give one of 'prompt', 'messages' and 'input'", param="prompt")
        if self.prompt is not None and not self.prompt.strip():
            raise refusal("it must not be empty", param="prompt")
        if self.messages is not None and not any(turn.message.has_content for turn in self.messages):
            raise refusal("at least one message must have content", param="messages")
        check_outputs([turn.message for turn in self.messages or ()], "messages.")
        return self

    @model_validator(mode="after")
    def _only_what_applies(self) -> Self:
        if self.input is None and self.dimensions is not None:
            raise refusal("it needs 'input': a prompt gets no vector", param="dimensions")
        for name in OF_PROMPTS if self.input is not None else ():
            if getattr(self, name) is not None:
                raise refusal("an 'input' is embedded, not answered: leave it out", param=name)
        return self

    @property
    def _turns(self) -> tuple[Message, ...]:
        """The conversation, or the inputs."""
        if self.input is not None:
            return self.input
        if self.messages is None:
            return (Message("user", self.prompt or ""),)
        return tuple(turn.message for turn in self.messages)

    @property
    def _spelling(self) -> Spelling:
        given = {"prompt": self.prompt, "messages": self.messages, "input": self.input}
        return Spelling(prompt=next(name for name, value in given.items() if value is not None))

    def to_draft(self) -> Draft:
        """The request in the core's terms."""
        return Draft(
            spelling=self._spelling,
            messages=self._turns,
            is_embedding=self.input is not None,
            dimensions=self.dimensions,
            model=self.model,
            max_tokens=self.max_tokens,
            n=self.n or 1,
            lane=Lane(self.lane),
            max_wait_s=self.max_wait,
            deadline=self.deadline,
            not_before=self.not_before,
            overflow=Overflow(self.overflow),
            max_cost_usd=self.max_cost_usd,
            temperature=self.temperature,
            top_p=self.top_p,
            stop=tuple(self.stop or ()),
            seed=self.seed,
            response_format=self.response_format,
            top_logprobs=self.top_logprobs,
            reasoning_effort=self.reasoning_effort,
            metadata=self.metadata or {},
            webhook_url=self.webhook,
            end_user=self.end_user,
            cache=self.cache,
            extra_sampling=self.extra_sampling,
            compress=compress_choice(self.compress, self.compress_also),
            quality=self.quality,
            tools=self.offered,
        )


class AcceptedBody(Answer):
    """The accept: the job is durable, and this is where it stands."""

    id: str
    object: Literal["job"] = "job"
    status: JobState
    lane: Lane
    queue: str = Field(description="Where it waits: its pool, or overflow for the paid API, and its lane.")
    position: int | None = Field(
        description="Place in the queue, from 1; null for a replay, a hit of the cache and a delayed start."
    )
    depth: int | None = Field(description="Jobs in the queue, this one included; null for these, too.")
    expected_wait_s: float | None = Field(description="Until its start; null while it is unknown.")
    reason: Unserved
    worker_in_s: WorkerIn
    start_by: TimeOut = Field(description="If it has not started by then, it expires.")
    max_tokens: int = Field(description="Bound of its answer: as asked for, or the default.")
    max_wait: float = Field(
        description="Seconds to start_by from its acceptance, or from its not_before: as asked for, or the default."
    )
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
            **unserved(accepted.vacancy),
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
        description="The vector of each input of an embedding job: 32-bit floats, little-endian, in base64; null in a "
        "list of jobs, and for every other job."
    )
    reasoning: str | None = Field(description="What the model thought first; null: nothing, and in a list of jobs.")
    tool_calls: list[ToolCallBody] | None = Field(description="The tools that the answer calls; null: none.")
    finish_reason: str | None = Field(
        description="stop: the model had said all; length: cut at max_tokens; tool_calls: it calls tools; abort: "
        "cancelled, or past its deadline."
    )
    logprobs: TokenLogprobs | None = Field(
        description="Those of each token of the text, where 'top_logprobs' was given; null in a list of jobs."
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
    max_wait: float = Field(
        description="Seconds to start_by from its acceptance, or from its not_before: as asked for, or the default."
    )
    metadata: dict[str, str]
    end_user: str | None
    cancel_requested: bool
    retry_of: str | None = Field(description="The failed job that this one is another try of, which operators ask for.")
    created_at: TimeOut = Field(description="When it was accepted.")
    not_before: TimeOut | None = Field(description="It does not start before; null: it may start at once.")
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
            not_before=job.start_after,
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


class JobList(Page):
    """One page of jobs, newest first."""

    data: list[JobBody]


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
    limit: QueryInt = Field(20, ge=1, le=100, description="Jobs on the page, at most.")
