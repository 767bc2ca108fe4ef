"""The turns of a response's `input`: messages, references to stored items, and items that are sent back."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from api.door.drafts import ItemReference
from api.schemas.fields import Request, refusal
from api.schemas.responses.tools import call_turn
from headrace.domain.prompts import Message

#: References in one input. Each may cost two look-ups of a job.
REFERENCES_LIMIT = 256


class TextPart(Request):
    """A piece of a message's text. Annotations and log probabilities, as answers carry them, are not read."""

    type: Literal["input_text", "output_text"]
    text: str
    annotations: list[Any] | None = None
    logprobs: list[Any] | None = None
    parsed: Any = Field(None, description="Not acted on: what OpenAI's SDK reads from an earlier answer.")
    cache_control: Any = Field(None, description="Not acted on: prefixes are cached by themselves.")


def _as_parts(content: Any) -> Any:
    return [{"type": "input_text", "text": content}] if isinstance(content, str) else content


class InputMessage(Request):
    """One turn of a conversation; an earlier answer's message can be sent back as it came."""

    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[
        list[TextPart],
        Field(min_length=1, fail_fast=True),
        BeforeValidator(_as_parts, json_schema_input_type=str | list[TextPart]),
    ]
    id: str | None = None
    status: str | None = None
    phase: str | None = None

    @property
    def text(self) -> str:
        """All of its text; parts are lines, as in vLLM's own server."""
        return "\n".join(part.text for part in self.content)


class InputReference(Request):
    """A turn of an earlier response of the same app, by the id of its item."""

    type: Literal["item_reference"]
    id: str = Field(max_length=80)


def as_messages(given: Any) -> Any:
    """A text as a message."""
    return [{"role": "user", "content": given}] if isinstance(given, str) else given


def sorted_out(values: Any) -> tuple[Any, dict[int, ItemReference | Message]]:
    """The body without items that are no messages: reasoning, which is not read again, and the others by their places.

    These are references, calls and their outputs.
    """
    given = values.get("input") if isinstance(values, dict) else None
    if not isinstance(given, list):
        return values, {}
    turns: list[Any] = []
    placed: dict[int, ItemReference | Message] = {}
    for number, each in enumerate(given):
        kind = each.get("type") if isinstance(each, dict) else None
        if kind == "item_reference":
            placed[len(turns) + len(placed)] = _reference(each, number)
        elif isinstance(kind, str) and (called := call_turn(each, number)):
            placed[len(turns) + len(placed)] = called
        elif kind != "reasoning":
            turns.append(each)
    if sum(isinstance(each, ItemReference) for each in placed.values()) > REFERENCES_LIMIT:
        raise refusal(f"it may have at most {REFERENCES_LIMIT} items of type item_reference", param="input")
    return {**values, "input": turns}, placed


def _reference(item: dict[str, Any], number: int) -> ItemReference:
    param = f"input.{number}.id"
    if not isinstance(item.get("id"), str):
        raise refusal("Input should be the id of an item", param=param)
    if unknown := set(item) - {"type", "id"}:
        raise refusal(f"a reference has no '{min(unknown)[:80]}'", param=f"input.{number}")
    return ItemReference(item["id"], param)
