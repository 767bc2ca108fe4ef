"""The vectors of an embedding job, in the form in which they are stored and sent.

A packed vector is a base64 text of 32-bit floats, the least significant byte first: the `base64` of OpenAI's API. A
job's answer is one packed vector in each line, in the order of its inputs.
"""

import base64
import struct
from collections.abc import Iterable, Sequence


def pack(raw: bytes) -> str:
    """Pack the bytes of a vector's floats."""
    return base64.b64encode(raw).decode()


def pack_floats(numbers: Sequence[float]) -> str:
    """Pack a vector's numbers."""
    return pack(struct.pack(f"<{len(numbers)}f", *numbers))


def floats(packed: str) -> list[float]:
    """The numbers of a packed vector."""
    raw = base64.b64decode(packed)
    return list(struct.unpack(f"<{len(raw) // 4}f", raw))


def to_answer(packed: Iterable[str]) -> str:
    """A job's answer from its packed vectors."""
    return "\n".join(packed)


def of_answer(answer: str) -> list[str]:
    """The packed vectors of a job's answer."""
    return answer.split("\n")
