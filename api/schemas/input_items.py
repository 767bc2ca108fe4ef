"""`/v1/responses/{id}/input_items`: what the model was given, in the shapes of OpenAI's SDK."""

from collections.abc import Iterator, Sequence
from typing import Literal, Self
from uuid import UUID

from pydantic import Field

from api.schemas.fields import Answer, Request
from api.schemas.response_body import OutputText
from api.schemas.responses.tools import FunctionCallItem, FunctionCallOutputItem
from headrace.domain.ids import show_id
from headrace.domain.prompts import Message
from headrace.domain.prompts import Role as SpokenRole
from headrace.errors import InvalidRequest


class InputItemsQuery(Request):
    """The query string of the list."""

    limit: int = Field(20, ge=1, le=100, strict=False, description="Items on the page, at most.")
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
