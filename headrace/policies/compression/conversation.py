"""A conversation under compression: the turns that may change, and the cuts applied to them. Pure."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace

from headrace.domain.compression import Compression, Cut
from headrace.domain.prompts import Message


def open_turns(messages: Sequence[Message], compression: Compression) -> list[int]:
    """The messages that may be compressed, by number: no inputs of an embedding, no calls of tools, no outputs."""
    last_turn = max((number for number, each in enumerate(messages) if each.role == "user"), default=-1)

    def is_open(number: int, message: Message) -> bool:
        match message.role:
            case "system" | "developer":
                return "system" in compression.also
            case "user":
                return number != last_turn or "last_turn" in compression.also
            case "assistant":
                return not message.tool_calls
        return False

    return [number for number, message in enumerate(messages) if is_open(number, message)]


def apply(messages: Sequence[Message], cuts: Iterable[Cut]) -> tuple[Message, ...]:
    """The messages without what is cut away. The cuts of a message do not overlap."""
    of_message: dict[int, list[Cut]] = {}
    for cut in cuts:
        of_message.setdefault(cut.message, []).append(cut)
    return tuple(
        replace(message, content=_without(message.content, of_message[number])) if number in of_message else message
        for number, message in enumerate(messages)
    )


def digest(messages: Sequence[Message]) -> str:
    """Tells whether two processes cut the same text."""
    hashed = hashlib.sha256()
    for message in messages:
        hashed.update(f"{message.role} {len(message.content)} ".encode())
        hashed.update(message.content.encode(errors="surrogatepass"))
    return hashed.hexdigest()


def _without(text: str, cuts: Iterable[Cut]) -> str:
    pieces, at = [], 0
    for cut in sorted(cuts, key=lambda each: each.start):
        pieces.append(text[at : cut.start])
        at = max(at, cut.end)
    return "".join([*pieces, text[at:]])
