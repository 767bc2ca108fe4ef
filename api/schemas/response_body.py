"""A job in the shape of OpenAI's Response, with all fields that a strict SDK requires, and the items of its input."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, Self
from uuid import UUID

from pydantic import Field

from api.door.drafts import Accepted
from api.schemas.fields import Answer, QueryInt, Request
from api.schemas.logprobs import TokenLogprobBody, TokenLogprobs
from api.schemas.openai import LANE_TIERS, JobView
from headrace.domain.answers import TokenLogprob
from headrace.domain.ids import show_id
from headrace.domain.jobs import Job
from headrace.domain.prompts import Message, ReasoningEffort
from headrace.domain.prompts import Role as SpokenRole
from headrace.domain.prompts.tools import ToolCall, Tools
from headrace.domain.states import JobState
from headrace.errors import InvalidRequest


class FunctionCallItem(Answer):
    """A call that the model makes, or made. `arguments` is JSON, as the model wrote it: check it before you use it."""

    id: str
    type: Literal["function_call"] = "function_call"
    status: Literal["in_progress", "completed", "incomplete"] = "completed"
    call_id: str
    name: str
    arguments: str

    @classmethod
    def each_of(
        cls, job_id: UUID, calls: Sequence[ToolCall], *, turn: int | None = None, is_whole: bool = True
    ) -> list[Self]:
        """The calls of a job's answer, or of a turn of its input. Args: is_whole: the last one is."""
        last = len(calls) - 1
        return [
            cls(
                id=call_item_id(job_id, number, turn),
                status="completed" if is_whole or number < last else "incomplete",
                call_id=call.id,
                name=call.name,
                arguments=call.arguments,
            )
            for number, call in enumerate(calls)
        ]


def call_item_id(job_id: UUID, number: int, turn: int | None = None) -> str:
    """The id of a call's item: of a job's answer, or of a turn of its input. Both are numbered from 0."""
    return f"{show_id(job_id, 'fc_')}{'' if turn is None else f'_{turn}'}_{number}"


class FunctionCallOutputItem(Answer):
    """What a function gave for a call."""

    id: str
    type: Literal["function_call_output"] = "function_call_output"
    status: Literal["completed"] = "completed"
    call_id: str
    output: str


class FunctionToolBody(Answer):
    """A function as it was offered."""

    type: Literal["function"] = "function"
    name: str
    description: str | None
    parameters: dict[str, Any] | None
    strict: bool | None

    @classmethod
    def each_of(cls, tools: Tools | None) -> list[Self]:
        """The functions of these tools."""
        names = ("name", "description", "parameters", "strict")
        offered = tools.functions if tools else ()
        return [cls.model_validate({name: each.get(name) for name in names}) for each in offered]


class NamedToolBody(Answer):
    """The function that had to be called."""

    type: Literal["function"] = "function"
    name: str


def choice_of(tools: Tools | None) -> str | NamedToolBody:
    """The choice as OpenAI writes it."""
    if tools is None:
        return "auto"
    return NamedToolBody(name=tools.name or "") if tools.choice == "function" else tools.choice


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


class InputItemsQuery(Request):
    """The query string of the list."""

    limit: QueryInt = Field(20, ge=1, le=100, description="Items on the page, at most.")
    after: str | None = Field(None, description="The id of an item: the page begins with the next one.")
    order: Literal["asc", "desc"] = Field("desc", description="desc: the newest turn first.")


class InputText(Answer):
    """The text of one turn."""

    type: Literal["input_text"] = "input_text"
    text: str


class InputItem(Answer):
    """One turn of the conversation; `instructions` are its first, with the role system."""

    id: str
    type: Literal["message"] = "message"
    role: SpokenRole
    status: Literal["completed"] = "completed"
    content: list[InputText | OutputText]

    @classmethod
    def of(cls, job_id: UUID, number: int, turn: Message) -> Self:
        """The text of turn `number` of a job, counted from 0."""
        is_answer = turn.role == "assistant"
        part = OutputText(text=turn.content) if is_answer else InputText(text=turn.content)
        # OpenAI has no word for what an embedding job embeds, or a completion continues.
        role: SpokenRole = "user"
        if turn.role == "system" or turn.role == "developer" or turn.role == "assistant":
            role = turn.role
        return cls(id=f"{show_id(job_id, 'msg_')}_{number}", role=role, content=[part])


class InputItemList(Answer):
    """One page."""

    object: Literal["list"] = "list"
    data: list[InputItem | FunctionCallItem | FunctionCallOutputItem]
    first_id: str
    last_id: str
    has_more: bool

    @classmethod
    def of(cls, job_id: UUID, turns: Sequence[Message], asked: InputItemsQuery) -> Self:
        """The page that was asked for. Raises: InvalidRequest: `after` is none of its items."""
        items = [item for number, turn in enumerate(turns) for item in _items(job_id, number, turn)]
        if asked.order == "desc":
            items.reverse()
        start = _after(items, asked.after) if asked.after is not None else 0
        data = items[start : start + asked.limit]
        ids = [item.id for item in data]
        first, last = (ids[0], ids[-1]) if ids else ("", "")
        return cls(data=data, first_id=first, last_id=last, has_more=len(items) > start + asked.limit)


def _items(job_id: UUID, number: int, turn: Message) -> Iterator[InputItem | FunctionCallItem | FunctionCallOutputItem]:
    """The items of turn `number`: its text, its calls, or the output of a call."""
    if turn.tool_call_id is not None:
        item_id = f"{show_id(job_id, 'fco_')}_{number}"
        yield FunctionCallOutputItem(id=item_id, call_id=turn.tool_call_id, output=turn.content)
        return
    if turn.content or not turn.tool_calls:
        yield InputItem.of(job_id, number, turn)
    yield from FunctionCallItem.each_of(job_id, turn.tool_calls, turn=number)


def _after(items: Sequence[InputItem | FunctionCallItem | FunctionCallOutputItem], after: str) -> int:
    ids = [item.id for item in items]
    if after not in ids:
        raise InvalidRequest("Invalid 'after': it is not the id of one of these items.", param="after")
    return ids.index(after) + 1
