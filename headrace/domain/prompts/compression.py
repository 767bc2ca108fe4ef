"""Compression: how a prompt is made shorter before an engine gets it, and what is cut away.

Compression only deletes. What is left is in its old order.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

#: `plain` cuts repeated paragraphs and sentences, and white space.
CompressMethod = Literal["plain"]
#: Parts of a conversation that are left alone unless a request names them.
CompressPart = Literal["system", "last_turn"]


@dataclass(frozen=True, slots=True)
class Compression:
    """How a job's prompt is compressed.

    Attributes:
        also: parts that are compressed too: the system prompt, or the last turn of the user.
    """

    method: CompressMethod = "plain"
    also: tuple[CompressPart, ...] = ()

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Self:
        """Read what `dataclasses.asdict` wrote, of this release or of another. Every method is read as `plain`.

        Older jobs may name another method, which cut more. A method of a newer release raises the payload's version.
        """
        return cls(also=tuple(fields.get("also", ())))


@dataclass(frozen=True, slots=True)
class CompressChoice:
    """What a request says of compression; None where it leaves that to its pool. See Compression."""

    method: Literal["off"] | CompressMethod | None = None
    also: tuple[CompressPart, ...] | None = None


#: The choice of a request that says nothing.
NO_CHOICE = CompressChoice()


def compress_choice(
    method: Literal["off"] | CompressMethod | None, also: Iterable[CompressPart] | None
) -> CompressChoice:
    """The choice in a request's two fields."""
    return CompressChoice(method, None if also is None else tuple(also))


@dataclass(frozen=True, slots=True)
class Cut:
    """A piece of a message to be deleted: from `start` to before `end`, in characters."""

    message: int
    start: int
    end: int
