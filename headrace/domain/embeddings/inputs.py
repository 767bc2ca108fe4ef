"""The inputs of an embedding job: texts, or token ids that the caller has made with the model's own tokenizer.

Each is stored as a message, so that a job has its inputs where another job has its conversation.
"""

from collections.abc import Sequence
from typing import get_args

from headrace.domain.prompts import InputKind, Message

#: The most inputs of one job, and the most tokens of all together. Source: OpenAI's API of embeddings.
MOST_INPUTS = 2048
#: An embedding engine has room for as many tokens at once: every job that the door accepts fits into an empty engine.
MOST_TOKENS = 300_000

_KINDS = frozenset(get_args(InputKind))


def text_input(text: str) -> Message:
    """A text to be embedded."""
    return Message("input", text)


def token_input(ids: Sequence[int]) -> Message:
    """Token ids to be embedded as they are."""
    return Message("tokens", " ".join(map(str, ids)))


def token_ids(message: Message) -> list[int]:
    """The ids that `token_input` wrote."""
    return [int(number) for number in message.content.split()]


def are_inputs(messages: Sequence[Message]) -> bool:
    """True for the inputs of an embedding job, False for a conversation."""
    return bool(messages) and all(message.role in _KINDS for message in messages)
