"""Log probabilities of an answer's tokens, which OpenAI's two ways and ours spell alike."""

from collections.abc import Sequence
from typing import Annotated, Self

from pydantic import Field

from api.schemas.fields import Answer
from headrace.jobs import MOST_LOGPROBS, TokenLogprob

TopLogprobs = Annotated[int, Field(ge=0, le=MOST_LOGPROBS)]


class AlternativeBody(Answer):
    """A token that could have been made."""

    token: str = Field(description="Its text; empty for one that ends within a character.")
    logprob: float = Field(description="Natural logarithm; -9999 for what is as good as impossible.")
    bytes: list[int] = Field(description="Of its text in UTF-8.")


class TokenLogprobBody(AlternativeBody):
    """A token that was made."""

    top_logprobs: list[AlternativeBody] = Field(description="The likeliest tokens at its place, best first.")

    @classmethod
    def each_of(cls, logprobs: Sequence[TokenLogprob] | None) -> tuple[Self, ...] | None:
        """As they are stored; None for none."""
        return None if logprobs is None else tuple(map(cls.model_validate, logprobs))
