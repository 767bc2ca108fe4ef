"""Log probabilities of an answer's tokens, in the format that OpenAI's two APIs and Headrace's share."""

import json
import secrets
from collections.abc import Sequence
from typing import Annotated, Any, cast

from pydantic import Field, SerializationInfo, SerializerFunctionWrapHandler, WrapSerializer, WrapValidator

from api.schemas.fields import Answer
from headrace.domain.answers import MOST_LOGPROBS, StoredLogprobs, TokenLogprob

TopLogprobs = Annotated[int, Field(ge=0, le=MOST_LOGPROBS)]


class Fragments:
    """Stored JSON of one answer, or of one stream, that is sent as it is.

    A mark holds each fragment's place, and `filled` replaces it. So no fragment is parsed and serialized again.
    """

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}

    def mark(self, text: str) -> str:
        """The mark for this JSON: a text that no caller can guess."""
        mark = secrets.token_hex(16)
        self._texts[mark] = text
        return mark

    def filled(self, written: str) -> str:
        """The serialized text, with the fragments in place of their marks."""
        for mark, text in self._texts.items():
            written = written.replace(f'"{mark}"', text)
        return written


class AlternativeBody(Answer):
    """A token that could have been made."""

    token: str = Field(description="Its text; empty for one that ends within a character.")
    logprob: float = Field(description="Natural logarithm; -9999 for what is as good as impossible.")
    bytes: list[int] = Field(description="The bytes of its text in UTF-8.")


class TokenLogprobBody(AlternativeBody):
    """A token that was made."""

    top_logprobs: list[AlternativeBody] = Field(description="The likeliest tokens at its place, best first.")

    @classmethod
    def each_of(cls, logprobs: Sequence[TokenLogprob] | None) -> "Sequence[TokenLogprobBody] | None":
        """A job's log probabilities. Stored ones stay unparsed, since none of their fields is read."""
        return cast("Sequence[TokenLogprobBody] | None", logprobs)


def _unread(value: Any, read: Any) -> Any:
    return value if isinstance(value, StoredLogprobs) else read(value)


def _as_stored(value: Any, write: SerializerFunctionWrapHandler, info: SerializationInfo) -> Any:
    """Stored log probabilities become marks in the answer's `Fragments`, if it has any."""
    if not isinstance(value, StoredLogprobs):
        return write(value)
    return info.context.mark(value.json) if isinstance(info.context, Fragments) else json.loads(value.json)


#: Of all tokens of an answer. The serializer must not declare its return type: `/openapi.json` would show that type.
TokenLogprobs = Annotated[
    Sequence[TokenLogprobBody],
    WrapValidator(_unread),
    WrapSerializer(lambda value, write, info: _as_stored(value, write, info)),
]
