"""Compression: how a prompt is made shorter before an engine gets it, and what is cut away.

Compression only deletes. What is left is in its old order.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

#: `plain` cuts repeated paragraphs and sentences, and white space. `surprise` then also cuts the phrases that a small
#: model finds least surprising.
CompressMethod = Literal["plain", "surprise"]
#: Parts of a conversation that are left alone unless a request names them.
CompressPart = Literal["system", "last_turn"]
#: The share of tokens that is kept where neither the request nor its pool says otherwise.
KEPT_SHARE = 0.75


@dataclass(frozen=True, slots=True)
class Compression:
    """How a job's prompt is compressed.

    Attributes:
        to: with `surprise`, the share of the tokens of running text that is kept.
        also: parts that are compressed too: the system prompt, or the last turn of the user.
    """

    method: CompressMethod
    to: float = KEPT_SHARE
    also: tuple[CompressPart, ...] = ()

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Self:
        """Read what `dataclasses.asdict` wrote, of this release or of another."""
        return cls(fields["method"], fields.get("to", KEPT_SHARE), tuple(fields.get("also", ())))


@dataclass(frozen=True, slots=True)
class CompressChoice:
    """What a request says of compression; None where it leaves that to its pool. See Compression."""

    method: Literal["off"] | CompressMethod | None = None
    to: float | None = None
    also: tuple[CompressPart, ...] | None = None


#: The choice of a request that says nothing.
NO_CHOICE = CompressChoice()


def compress_choice(
    method: Literal["off"] | CompressMethod | None, to: float | None, also: Iterable[CompressPart] | None
) -> CompressChoice:
    """The choice in a request's three fields."""
    return CompressChoice(method, to, None if also is None else tuple(also))


@dataclass(frozen=True, slots=True)
class TokenSurprise:
    """How little a model expected one token.

    Attributes:
        end: where the token ends in its text, in characters.
        nats: its negative log probability, given the text before it; None for a token that was not predicted.
    """

    end: int
    nats: float | None


@dataclass(frozen=True, slots=True)
class Cut:
    """A piece of a message to be deleted: from `start` to before `end`, in characters."""

    message: int
    start: int
    end: int
