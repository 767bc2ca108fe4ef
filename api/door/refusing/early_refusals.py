"""Early refusals: what a full queue told an app a moment ago holds for its next job too, before its body is validated.

A refusal is kept for as long as in `FullQueues`, and only where every job that looks alike would be refused: by a cap
in jobs, without a cache that could serve it, and without another queue that it may go to. Knows no HTTP.
"""

from collections.abc import Callable
from typing import Any, NamedTuple
from uuid import UUID

from pydantic_core import from_json

from api.door.cached.full_queues import FullQueues
from headrace.domain.fleet import RefusedDemand
from headrace.errors import QueueFull

#: Counts a refused job: its app, the queue that it wanted, the reason, and its tokens at most and likely.
Count = Callable[[UUID, str, str, int, int], object]


class Looks(NamedTuple):
    """What a body shows without being validated: enough to know its queue.

    Attributes:
        model, lane, overflow: as the body spells them, or their defaults.
    """

    app_id: UUID
    model: str | None
    lane: str
    overflow: str


class Examined(NamedTuple):
    """The last job of these looks that was examined and refused. It stands for those refused after it.

    Attributes:
        error: what it was told. It must not be raised again: it would keep the frames of both.
        queue: the one that it wanted.
        demand: one job, with its tokens.
    """

    error: QueueFull
    queue: str
    demand: RefusedDemand


class EarlyRefusals:
    """Refuses requests for all threads of one process."""

    def __init__(self, count: Count) -> None:
        """Refuse nothing yet."""
        self._count = count
        self._full: FullQueues[Looks, Examined] = FullQueues()

    @property
    def is_empty(self) -> bool:
        """True while no queue was full lately."""
        return self._full.is_empty

    def check(self, app_id: UUID, raw: bytes) -> QueueFull | None:
        """Refuse a request by the body of `POST /v1/jobs`; None if it must be examined.

        A refused job is counted with the tokens of the one examined.
        """
        if (looks := _looks(app_id, raw)) is None or (found := self._full.recall(looks)) is None:
            return None
        error, demand = found.error, found.demand
        self._count(app_id, found.queue, error.reason, demand.tokens, demand.expected_tokens)
        return error

    def remember(self, looks: Looks, refused: Examined, asked_at: float) -> None:
        """Refuse jobs of these looks from now on. Args: asked_at: when Redis was asked, on the monotonic clock."""
        self._full.remember(looks, refused, asked_at)

    def forget(self, looks: Looks) -> None:
        """The queue had room."""
        self._full.forget(looks)


def _looks(app_id: UUID, raw: bytes) -> Looks | None:
    """None for a body that must be examined: malformed, without a prompt, or with inputs, which go to another pool."""
    try:
        body: Any = from_json(raw)
    except ValueError:
        return None
    if not isinstance(body, dict) or "input" in body or not ("prompt" in body or "messages" in body):
        return None
    model, lane, overflow = body.get("model"), body.get("lane", "normal"), body.get("overflow", "allow")
    if not (isinstance(lane, str) and isinstance(overflow, str) and (model is None or isinstance(model, str))):
        return None
    return Looks(app_id, model, lane, overflow)
