"""The simulator's embeddings: the same tokens always get the same vector, whose length is 1. It means nothing."""

import hashlib
import math
from collections.abc import Sequence

from headrace.domain.embeddings.vectors import pack_floats, to_answer
from headrace.errors import PromptRejected

#: The numbers of a vector: as many as all-MiniLM-L6-v2 makes.
DIMENSIONS = 384


def vectors(inputs: Sequence[Sequence[int]], dimensions: int | None) -> str:
    """The answer to these inputs, given as token ids. Raises: PromptRejected for more dimensions than a vector has."""
    if dimensions is not None and dimensions > DIMENSIONS:
        message = f"A vector has {DIMENSIONS} dimensions here: ask for fewer."
        raise PromptRejected(message, param="dimensions")
    return to_answer(pack_floats(_vector(each, dimensions or DIMENSIONS)) for each in inputs)


def _vector(tokens: Sequence[int], dimensions: int) -> list[float]:
    raw = hashlib.shake_256(" ".join(map(str, tokens)).encode()).digest(dimensions)
    # No byte becomes 0, so the vector has a length.
    numbers = [byte - 127.5 for byte in raw]
    length = math.hypot(*numbers)
    return [number / length for number in numbers]
