"""Log probabilities of an answer's tokens as they are stored: JSON that is sent as it is. Pure."""

import json
import math
import re
from collections.abc import Sequence
from functools import cached_property
from typing import TypedDict, overload

from headrace.domain.prompts import storable

#: What stands for the log probability of a token that is as good as impossible. Source: OpenAI's and vLLM's APIs.
LEAST_LOGPROB = -9999.0


#: The most alternatives to a token that can be asked for. Source: OpenAI's API; vLLM's own default.
MOST_LOGPROBS = 20


class Alternative(TypedDict):
    """A token that could have been made at some place, as JSON has it.

    Attributes:
        token: its text; empty for one that ends within a character, which belongs to the token that completes it.
        logprob: the natural logarithm of its probability; `LEAST_LOGPROB` where that is too small to tell.
        bytes: of its text in UTF-8.
    """

    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(Alternative):
    """A token that was made, and the most likely ones at its place, best first."""

    top_logprobs: list[Alternative]


_DECODER = json.JSONDecoder()
#: What stands between two items of a list.
_GAP = re.compile(r"[\s,]*")


class StoredLogprobs(Sequence[TokenLogprob]):
    """The tokens of an answer. They are read from their JSON only when one is asked for: all can be 40 MB.

    Attributes:
        json: a list.
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
        """A token, or some. All after the first few stay JSON."""
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
        """Where the next item begins, or the list ends."""
        gap = _GAP.match(self.json, at)
        assert gap is not None
        return gap.end()

    @cached_property
    def _tokens(self) -> list[TokenLogprob]:
        tokens: list[TokenLogprob] = json.loads(self.json)
        return tokens


def alternative(token: str, logprob: float) -> Alternative:
    """A token and its log probability, whatever an engine has computed, as JSON and Postgres can hold them."""
    if not LEAST_LOGPROB <= logprob < math.inf:  # Nor is anything that is no number.
        logprob = LEAST_LOGPROB
    token = storable(token)
    return {"token": token, "logprob": logprob, "bytes": list(token.encode())}
