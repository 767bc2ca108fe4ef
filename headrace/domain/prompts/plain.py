"""Plain prompts: a text, or token ids, that the model continues as it is, without a chat template.

Each is stored as a message, so that a job has it where another job has its conversation.
"""

from collections.abc import Sequence
from typing import get_args

from headrace.domain.prompts import Message, PlainKind

_KINDS = frozenset(get_args(PlainKind))


def plain_text(text: str) -> Message:
    """A text to be continued."""
    return Message("text", text)


def plain_tokens(ids: Sequence[int]) -> Message:
    """Token ids to be continued as they are."""
    return Message("text_tokens", " ".join(map(str, ids)))


def is_plain(messages: Sequence[Message]) -> bool:
    """True for a plain prompt, False for a conversation and for inputs."""
    return len(messages) == 1 and messages[0].role in _KINDS


def ids_of(message: Message) -> list[int] | None:
    """The ids that `plain_tokens` wrote; None for a text."""
    return [int(number) for number in message.content.split()] if message.role == "text_tokens" else None
