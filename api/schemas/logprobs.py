"""Log probabilities of an answer's tokens, which OpenAI's two ways and ours spell alike."""

import json
import secrets
from collections.abc import Sequence
from typing import Annotated, Any, cast

from pydantic import Field, SerializationInfo, SerializerFunctionWrapHandler, WrapSerializer, WrapValidator

from api.schemas.fields import Answer
from headrace.domain.logprobs import MOST_LOGPROBS, StoredLogprobs, TokenLogprob

TopLogprobs = Annotated[int, Field(ge=0, le=MOST_LOGPROBS)]


class Fragments:
    """Pieces of one answer, or of one stream, that are JSON already, and are sent as they are stored.

    Each is marked where it belongs, and filled in at the end. Nothing is read and written anew.
    """

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}

    def mark(self, text: str) -> str:
        """What stands for this JSON until then: a text that no caller can know."""
        mark = secrets.token_hex(16)
        self._texts[mark] = text
        return mark

    def filled(self, written: str) -> str:
        """What was written, with the pieces in it."""
        for mark, text in self._texts.items():
            written = written.replace(f'"{mark}"', text)
        return written


class AlternativeBody(Answer):
    """A token that could have been made."""

    token: str = Field(description="Its text; empty for one that ends within a character.")
    logprob: float = Field(description="Natural logarithm; -9999 for what is as good as impossible.")
    bytes: list[int] = Field(description="Of its text in UTF-8.")


class TokenLogprobBody(AlternativeBody):
    """A token that was made."""

    top_logprobs: list[AlternativeBody] = Field(description="The likeliest tokens at its place, best first.")

    @classmethod
    def each_of(cls, logprobs: Sequence[TokenLogprob] | None) -> "Sequence[TokenLogprobBody] | None":
        """Those of a job; stored ones stay as they are, since no field of theirs is looked at."""
        return cast("Sequence[TokenLogprobBody] | None", logprobs)


def _unread(value: Any, read: Any) -> Any:
    return value if isinstance(value, StoredLogprobs) else read(value)


def _as_stored(value: Any, write: SerializerFunctionWrapHandler, info: SerializationInfo) -> Any:
    """Those that are stored as they are to be sent go by the answer's `Fragments`, if it has some."""
    if not isinstance(value, StoredLogprobs):
        return write(value)
    return info.context.mark(value.json) if isinstance(info.context, Fragments) else json.loads(value.json)


#: Of all tokens of an answer. The serializer names no type that it returns, or `/openapi.json` would show that.
TokenLogprobs = Annotated[
    Sequence[TokenLogprobBody],
    WrapValidator(_unread),
    WrapSerializer(lambda value, write, info: _as_stored(value, write, info)),
]
