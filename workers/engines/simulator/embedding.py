"""The simulator's embeddings: bags of tokens, of length 1. Texts that share tokens are alike, whatever their order."""

import hashlib
import math
from collections.abc import Sequence
from functools import lru_cache

from headrace.domain.embeddings.vectors import pack_floats, to_answer
from headrace.errors import PromptRejected

#: The numbers of a vector: as many as all-MiniLM-L6-v2 makes.
DIMENSIONS = 384
#: Of them, those that one token changes.
_PLACES = 8


def vectors(inputs: Sequence[Sequence[int]], dimensions: int | None) -> str:
    """The answer to these inputs, given as token ids. Raises: PromptRejected for more dimensions than a vector has."""
    if dimensions is not None and dimensions > DIMENSIONS:
        message = f"A vector has {DIMENSIONS} dimensions here: ask for fewer."
        raise PromptRejected(message, param="dimensions")
    return to_answer(pack_floats(_vector(each, dimensions or DIMENSIONS)) for each in inputs)


def _vector(tokens: Sequence[int], dimensions: int) -> list[float]:
    # Tokens may cancel each other out. This little keeps a length.
    numbers = [0.01] * DIMENSIONS
    for token in tokens:
        for place, sign in _places(token):
            numbers[place] += sign
    numbers = numbers[:dimensions]
    length = math.hypot(*numbers)
    return [number / length for number in numbers]


@lru_cache(maxsize=65_536)
def _places(token: int) -> tuple[tuple[int, float], ...]:
    """Where a token adds to the vector, and what: a few places, so that two tokens seldom share one."""
    raw = hashlib.shake_256(str(token).encode()).digest(3 * _PLACES)
    return tuple(
        (int.from_bytes(raw[at : at + 2]) % DIMENSIONS, 1.0 if raw[at + 2] % 2 else -1.0)
        for at in range(0, len(raw), 3)
    )
