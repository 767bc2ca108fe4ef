"""Answers: the log probabilities of their tokens, stored as the JSON that clients receive, and the choices. Pure."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self, TypedDict, overload

from headrace.domain.prompts import storable
from headrace.domain.prompts.tools import ToolCall

#: The log probability of a practically impossible token. Source: OpenAI's and vLLM's APIs.
LEAST_LOGPROB = -9999.0


#: The most alternatives per token that a request may ask for. Source: OpenAI's API; vLLM's own default.
MOST_LOGPROBS = 20


class Alternative(TypedDict):
    """A token that could have been generated at some position, as JSON.

    Attributes:
        token: its text; empty if the token ends inside a character: the token that completes it has the character.
        logprob: the natural logarithm of its probability; `LEAST_LOGPROB` if the probability is too small.
        bytes: its text in UTF-8.
    """

    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(Alternative):
    """A generated token, and the most likely tokens at its position, best first."""

    top_logprobs: list[Alternative]


_DECODER = json.JSONDecoder()
#: Separates two items of a list.
_GAP = re.compile(r"[\s,]*")


class StoredLogprobs(Sequence[TokenLogprob]):
    """The tokens of an answer, decoded from their JSON only on access: it can have 40 MB.

    Attributes:
        json: a JSON list of `TokenLogprob`.
    """

    def __init__(self, text: str) -> None:
        self.json = text

    def __bool__(self) -> bool:
        return self.json[self._next(1)] != "]"

    def __len__(self) -> int:
        return len(self._tokens)

    @overload
    def __getitem__(self, at: int) -> TokenLogprob: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[TokenLogprob]: ...
    def __getitem__(self, at: int | slice) -> TokenLogprob | Sequence[TokenLogprob]:
        """A token or a slice. A slice that only skips the first tokens stays JSON."""
        if isinstance(at, slice) and (at.stop, at.step) == (None, None) and (at.start or 0) >= 0:
            return self._after(at.start) if at.start else self
        return self._tokens[at]

    def _after(self, count: int) -> "StoredLogprobs":
        at = self._next(1)
        for _ in range(count):
            if self.json[at] == "]":
                break
            _, end = _DECODER.raw_decode(self.json, at)
            at = self._next(end)
        return StoredLogprobs("[" + self.json[at:])

    def _next(self, at: int) -> int:
        """The position of the next item, or of the list's end."""
        gap = _GAP.match(self.json, at)
        assert gap is not None
        return gap.end()

    @cached_property
    def _tokens(self) -> list[TokenLogprob]:
        tokens: list[TokenLogprob] = json.loads(self.json)
        return tokens


def alternative(token: str, logprob: float) -> Alternative:
    """A token and its log probability as JSON and Postgres can store them, whatever the engine computed."""
    if not LEAST_LOGPROB <= logprob < math.inf:  # Also true for NaN.
        logprob = LEAST_LOGPROB
    token = storable(token)
    return {"token": token, "logprob": logprob, "bytes": list(token.encode())}


#: The most answers that a job may ask for. Source: OpenAI's API.
MOST_CHOICES = 128


@dataclass(frozen=True, slots=True)
class Choice:
    """An answer after the first. The first one is in the fields that a job with a single answer has.

    Attributes:
        logprobs: of the answer's tokens; None if not requested.
        reasoning: the model's reasoning before the answer; empty if it gave none.
        tool_calls: the answer's calls of tools. It may have no text then.
    """

    text: str
    finish_reason: str | None
    logprobs: Sequence[TokenLogprob] | None = None
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()

    def to_fields(self) -> dict[str, Any]:
        logprobs = None if self.logprobs is None else list(self.logprobs)
        return {
            "text": self.text,
            "finish_reason": self.finish_reason,
            "logprobs": logprobs,
            "reasoning": self.reasoning,
            "tool_calls": [call.to_fields() for call in self.tool_calls],
        }

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Self:
        """Read `to_fields`."""
        calls = tuple(map(ToolCall.of, fields["tool_calls"]))
        return cls(fields["text"], fields["finish_reason"], fields["logprobs"], fields["reasoning"], calls)
