"""Log probabilities of an answer's tokens as they are stored: JSON that is sent as it is. Pure."""

import json
import re
from collections.abc import Sequence
from functools import cached_property
from typing import overload

from headrace.domain.jobs import TokenLogprob

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
