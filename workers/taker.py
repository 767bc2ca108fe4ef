"""Which job a worker takes next: the first, in the order of the lanes' turns, for which its engine has room.

Nothing that can be lost is between the queue and the worker. A job that was taken keeps its place in the queue's books
until it is claimed, which is at once; one whose worker dies in between is published again by `publish_due`.
"""

import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import UUID

from redis import Redis

from headrace.broker import list_key
from headrace.errors import NotFound
from headrace.jobs import Lane, parse_id
from headrace.queues import bell_key
from headrace.transport import Taker
from workers.room import Room

log = logging.getLogger(__name__)

#: How long a job that does not fit is passed over, while others behind it do. After that the room gathers for it.
PASSED_OVER_S = 1.0
#: How long, in seconds, what was seen at a removal is good for the next one. Whatever comes meanwhile waits as long.
JUST_SEEN_S = 0.01
#: How often a look at the queues is repeated when another worker was faster.
TRIES = 8


class _Asked(NamedTuple):
    """What `Room.enter` asks of a job, as `ExecuteMessage` wrote it."""

    job_id: UUID
    lane: Lane
    prompt_tokens: int
    max_tokens: int
    alone: bool


@dataclass(frozen=True, slots=True)
class _Head:
    """The next message of a queue.

    Attributes:
        raw: as it is in the list.
        message: decoded.
        job: None in a message that is none of ours, which needs no room.
    """

    queue: str
    raw: str
    message: dict[str, Any]
    job: _Asked | None

    @classmethod
    def of(cls, queue: str, raw: str) -> "_Head":
        message = json.loads(raw)
        headers = message["headers"]
        job = None
        if (routing := headers.get("headrace")) is not None:
            tokens = routing["prompt_tokens"], routing["max_tokens"]
            job = _Asked(parse_id(headers["id"]), Lane(routing["lane"]), *tokens, routing["alone"])
        return cls(queue, raw, message, job)


class RoomTaker(Taker):
    """Takes what fits. `take` is for one thread."""

    def __init__(self, redis: Redis, pool: str, clock: Callable[[], float] = time.monotonic) -> None:
        """Take nothing before `open`."""
        super().__init__(bell_key(pool))
        self._redis = redis
        self._clock = clock
        self._room: Room | None = None
        self._is_ready: Callable[[], bool] = lambda: False
        #: Of each queue whose head does not fit, that head, and since when.
        self._blocked: dict[str, tuple[str, float]] = {}
        self._seen: dict[str, _Head] = {}
        self._seen_until = 0.0

    def open(self, room: Room, is_ready: Callable[[], bool]) -> None:
        """Begin to take. Args: is_ready: False while the engine is down, or the worker leaves."""
        self._room, self._is_ready = room, is_ready

    def take(self, queues: Sequence[str]) -> tuple[str, dict[str, Any]] | None:
        """Take the message of the next job that fits."""
        room = self._room
        if room is None or not self._is_ready():
            return None
        head = self._choose(room, self._just_seen(queues)) or self._choose(room, self._heads(queues))
        for _ in range(TRIES):
            if head is None:
                return None
            if self._remove(head, queues):
                return head.queue, head.message
            if head.job is not None:
                room.leave(head.job.job_id)
            head = self._choose(room, self._just_seen(queues))
        # Others take one after the other: this one's turn comes.
        self.is_due = True
        return None

    def _just_seen(self, queues: Sequence[str]) -> list[_Head]:
        """The heads as they were a moment ago, when the last message was removed; none when that was longer ago."""
        if self._clock() > self._seen_until:
            return []
        return [self._seen[queue] for queue in queues if queue in self._seen]

    def _heads(self, queues: Sequence[str]) -> list[_Head]:
        """The heads as they are, in this order."""
        pipeline = self._redis.pipeline(transaction=False)
        for queue in queues:
            pipeline.lindex(list_key(queue), -1)
        return self._read(queues, pipeline.execute())

    def _remove(self, head: _Head, queues: Sequence[str]) -> bool:
        """Remove a head, and see what comes after it, in one round trip. False when another worker has removed it."""
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.lrem(list_key(head.queue), -1, head.raw)
        for queue in queues:
            pipeline.lindex(list_key(queue), -1)
        removed, *raws = pipeline.execute()
        self._seen = {each.queue: each for each in self._read(queues, raws)}
        self._seen_until = self._clock() + JUST_SEEN_S
        return bool(removed)

    def _read(self, queues: Sequence[str], raws: Sequence[str | None]) -> list[_Head]:
        heads = []
        for queue, raw in zip(queues, raws, strict=True):
            if raw is None:
                continue
            try:
                heads.append(_Head.of(queue, raw))
            except (ValueError, KeyError, TypeError, AttributeError, NotFound) as error:
                log.error("message_not_readable", extra={"queue": queue, "error": repr(error)})
                self._redis.lrem(list_key(queue), -1, raw)
        return heads

    def _choose(self, room: Room, heads: list[_Head]) -> _Head | None:
        """The first that fits, which has its room from now on. What was passed over for too long has all to itself."""
        if not heads:
            return None
        now = self._clock()
        self._blocked = {head.queue: self._blocked[head.queue] for head in heads if self._is_blocked(head)}
        # One that lacks a slot of its lane waits for no room, and keeps it from nobody.
        heads = [head for head in heads if head.job is None or room.has_slot(head.job.lane)]
        for head in self._overdue(heads, now) or heads:
            if head.job is None or room.enter(*head.job):
                self._blocked.pop(head.queue, None)
                return head
            self._blocked.setdefault(head.queue, (head.raw, now))
        return None

    def _overdue(self, heads: list[_Head], now: float) -> list[_Head]:
        """The head that was passed over for longest, once that is too long: room gathers for one at a time."""
        passed_over = [head for head in heads if head.queue in self._blocked]
        longest = sorted(passed_over, key=lambda head: self._blocked[head.queue][1])[:1]
        return [head for head in longest if now - self._blocked[head.queue][1] >= PASSED_OVER_S]

    def _is_blocked(self, head: _Head) -> bool:
        return head.queue in self._blocked and self._blocked[head.queue][0] == head.raw
