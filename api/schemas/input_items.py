"""`/v1/responses/{id}/input_items`: what the model was given, in the shapes of OpenAI's SDK."""

from collections.abc import Sequence
from typing import Literal, Self
from uuid import UUID

from pydantic import Field

from api.schemas.fields import Answer, Request
from api.schemas.response_body import OutputText
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
        """Turn `number` of a job, counted from 0."""
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
    data: list[InputItem]
    first_id: str
    last_id: str
    has_more: bool

    @classmethod
    def of(cls, job_id: UUID, turns: Sequence[Message], asked: InputItemsQuery) -> Self:
        """The page that was asked for. Raises: InvalidRequest: `after` is none of its items."""
        items = [InputItem.of(job_id, number, turn) for number, turn in enumerate(turns)]
        if asked.order == "desc":
            items.reverse()
        start = _after(items, asked.after) if asked.after is not None else 0
        data = items[start : start + asked.limit]
        ids = [item.id for item in data]
        first, last = (ids[0], ids[-1]) if ids else ("", "")
        return cls(data=data, first_id=first, last_id=last, has_more=len(items) > start + asked.limit)


def _after(items: Sequence[InputItem], after: str) -> int:
    ids = [item.id for item in items]
    if after not in ids:
        raise InvalidRequest("Invalid 'after': it is not the id of one of these items.", param="after")
    return ids.index(after) + 1
