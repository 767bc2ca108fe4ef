"""Embeddings: the inputs of an embedding job, and the vectors that it gets.

An input is a text, or token ids that the caller has made with the model's own tokenizer. Each is stored as a message,
so that a job has its inputs where another job has its conversation.

A packed vector is a base64 text of 32-bit floats, the least significant byte first: the `base64` of OpenAI's API. A
job's answer is one packed vector in each line, in the order of its inputs.
"""

import base64
import struct
from collections.abc import Iterable, Sequence
from typing import get_args

from headrace.domain.prompts import InputKind, Message

#: The most inputs of one job, and the most tokens of all together. Source: OpenAI's API of embeddings.
MOST_INPUTS = 2048
#: An embedding engine has room for as many tokens at once: every job that the door accepts fits into an empty engine.
MOST_TOKENS = 300_000

_INPUT_KINDS = frozenset(get_args(InputKind))


def text_input(text: str) -> Message:
    return Message("input", text)


def token_input(ids: Sequence[int]) -> Message:
    """Token ids to be embedded as they are."""
    return Message("tokens", " ".join(map(str, ids)))


def token_ids(message: Message) -> list[int]:
    """The ids that `token_input` wrote."""
    return [int(number) for number in message.content.split()]


def are_inputs(messages: Sequence[Message]) -> bool:
    """True for the inputs of an embedding job, False for a conversation."""
    return bool(messages) and all(message.role in _INPUT_KINDS for message in messages)


def pack(raw: bytes) -> str:
    """Pack the bytes of a vector's floats."""
    return base64.b64encode(raw).decode()


def pack_floats(numbers: Sequence[float]) -> str:
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
