"""Finds the phrases of a prompt that can go, by an engine's own measure of surprise."""

from collections.abc import Sequence

from headrace.domain.compression import Compression, Cut
from headrace.domain.prompts import Message
from headrace.policies.compression import open_turns, surprising
from workers.engines.base import SurpriseMeter


def find_spare(
    engine: SurpriseMeter, request_id: str, messages: Sequence[Message], compression: Compression, priority: int
) -> list[Cut]:
    """What to cut of these messages. Raises: as `SurpriseMeter.surprise`."""
    turns = [number for number in open_turns(messages, compression) if messages[number].content]
    if not turns:
        return []
    measured = engine.surprise(request_id, [messages[number].content for number in turns], priority)
    return surprising(messages, dict(zip(turns, measured, strict=True)), compression.to)
