"""Function tools: what a request offers a model, and the calls that the model makes. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

#: `auto`: the model decides. `none`: it calls none. `required`: it calls at least one. `function`: it calls that one.
ToolChoice = Literal["auto", "none", "required", "function"]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that a model makes, or made in an earlier turn. Attributes: arguments: JSON, as the model wrote it."""

    id: str
    name: str
    arguments: str

    def to_fields(self) -> dict[str, Any]:
        """The call as JSON, in the format of chat completions."""
        return {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": self.arguments}}

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Self:
        """Read what `to_fields` wrote."""
        return cls(fields["id"], fields["function"]["name"], fields["function"]["arguments"])


@dataclass(frozen=True, slots=True)
class ToolCallPiece:
    """A piece of a call, as a model writes it. The first piece of a call has its id and its name.

    Attributes:
        index: the call's place among those of the answer, from 0.
        arguments: the text that this piece adds to the call's arguments; may be empty.
    """

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Self:
        """Read what `dataclasses.asdict` wrote, of this release or of another."""
        return cls(fields["index"], fields.get("id"), fields.get("name"), fields.get("arguments", ""))


@dataclass(frozen=True, slots=True)
class Tools:
    """The functions that a request offers.

    Attributes:
        functions: each with `name`, and perhaps `description`, `parameters` (a JSON schema) and `strict`.
        name: the function to call, with the choice `function`.
        parallel: False: the answer has one call at most.
    """

    functions: tuple[Mapping[str, Any], ...]
    choice: ToolChoice = "auto"
    name: str | None = None
    parallel: bool = True

    @property
    def specs(self) -> list[dict[str, Any]]:
        """The functions in the format of chat completions, as chat templates read them."""
        return [{"type": "function", "function": dict(function)} for function in self.functions]

    @property
    def spelled_choice(self) -> str | dict[str, Any]:
        """The choice in the format of chat completions."""
        return {"type": "function", "function": {"name": self.name}} if self.choice == "function" else self.choice

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Self:
        """Read what `dataclasses.asdict` wrote, of this release or of another."""
        given = {name: fields[name] for name in ("choice", "name", "parallel") if name in fields}
        return cls(tuple(fields["functions"]), **given)


class CallPlaces:
    """Numbers the calls of one answer from 0, in the order in which they begin.

    An engine may leave numbers out, or give several calls one number and different ids.
    """

    def __init__(self) -> None:
        self._places: dict[int, int] = {}
        self._ids: list[str | None] = []

    def placed(self, piece: ToolCallPiece) -> ToolCallPiece:
        """The piece with its call's place."""
        place = self._places.get(piece.index)
        if place is None or (piece.id and self._ids[place] not in (None, piece.id)):
            place = self._places[piece.index] = len(self._ids)
            self._ids.append(piece.id)
        return replace(piece, index=place)


def merged(pieces: Iterable[ToolCallPiece]) -> list[ToolCallPiece]:
    """One piece for each call that these are of, in the order of the calls."""
    of_call: dict[int, list[ToolCallPiece]] = {}
    for piece in pieces:
        of_call.setdefault(piece.index, []).append(piece)
    return [_merged(of_call[index]) for index in sorted(of_call)]


def _merged(pieces: Sequence[ToolCallPiece]) -> ToolCallPiece:
    call_id = next((piece.id for piece in pieces if piece.id), None)
    name = next((piece.name for piece in pieces if piece.name), None)
    return ToolCallPiece(pieces[0].index, call_id, name, "".join(piece.arguments for piece in pieces))


def joined(pieces: Iterable[ToolCallPiece]) -> tuple[ToolCall, ...]:
    """The calls that these pieces make up."""
    return tuple(ToolCall(piece.id or "", piece.name or "", piece.arguments) for piece in merged(pieces))


def rest_of(calls: Sequence[ToolCall], begun: Sequence[ToolCall]) -> list[ToolCallPiece] | None:
    """What these beginnings lack of the calls; None if they are not the beginnings of them."""
    if len(begun) > len(calls):
        return None
    rest: list[ToolCallPiece] = []
    for index, call in enumerate(calls):
        if index >= len(begun):
            rest.append(ToolCallPiece(index, call.id, call.name, call.arguments))
            continue
        start = begun[index]
        if (start.id, start.name) != (call.id, call.name) or not call.arguments.startswith(start.arguments):
            return None
        if arguments := call.arguments.removeprefix(start.arguments):
            rest.append(ToolCallPiece(index, arguments=arguments))
    return rest
