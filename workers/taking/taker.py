"""Which job a worker takes next: the first, in the order of the lanes' turns, for which its engine has room.

Nothing that can be lost is between the queue and the worker. A job that was taken keeps its place in the queue's books
until it is claimed, which is at once; one whose worker dies in between is published again by `publish_due`.
"""

import json
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, NamedTuple, cast
from uuid import UUID

from redis import Redis
from redis.exceptions import RedisError

from headrace.broker.messages import list_key
from headrace.broker.transport import MOST_AT_ONCE, Taker, Turns
from headrace.domain.ids import parse_id
from headrace.domain.queues import Lane, bell_key, books_key
from headrace.errors import NotFound
from workers.taking.kv_budget import KvBudget

log = logging.getLogger(__name__)

#: How long a job that does not fit is passed over, while others behind it do. After that the room gathers for it.
PASSED_OVER_S = 1.0
#: How long, in seconds, what was seen at a removal is good for the next one. Whatever comes meanwhile waits as long.
JUST_SEEN_S = 0.01
#: How often a look at the queues is repeated when another worker was faster.
TRIES = 8
#: How far from its end a list is searched for a message that another worker may have taken since it was seen.
SEARCHED = 256
#: Messages of each queue that are looked at together. More are not taken in one turn of the worker's event loop.
FARTHEST = MOST_AT_ONCE


class _Asked(NamedTuple):
    """What `KvBudget.hold` asks of a job, as `ExecuteMessage` wrote it."""

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
        stay: what the queue's books call the job while it waits here; empty where there is none.
    """

    queue: str
    raw: str
    message: dict[str, Any]
    job: _Asked | None
    stay: str

    @classmethod
    def of(cls, queue: str, raw: str) -> "_Head":
        message = json.loads(raw)
        # What Celery's consumer must find in it: there an error would end the worker.
        headers, tag = message["headers"], message["properties"]["delivery_tag"]
        job, stay = None, ""
        if (routing := headers.get("headrace")) is not None:
            tokens = routing["prompt_tokens"], routing["max_tokens"]
            job = _Asked(parse_id(headers["id"]), Lane(routing["lane"]), *tokens, routing["alone"])
            stay = f"{job.job_id.hex} {tag.rpartition('.')[2]}"
        return cls(queue, raw, message, job, stay)


class _Ahead:
    """What was seen of a queue.

    Attributes:
        head: the first that can be read; None behind the last.
        is_whole: nothing is behind the last.
    """

    def __init__(
        self, queue: str, raws: Sequence[str], is_whole: bool, drop: Callable[[str, str, Exception], None]
    ) -> None:
        self._queue, self._raws, self._drop = queue, deque(raws), drop
        self.is_whole = is_whole
        self.head: _Head | None = None
        self.go_on()

    def go_on(self) -> None:
        """The head was taken. What nobody can read is dropped on the way to the next."""
        self.head = None
        while self._raws and self.head is None:
            raw = self._raws.popleft()
            try:
                self.head = _Head.of(self._queue, raw)
            except (ValueError, KeyError, TypeError, AttributeError, NotFound) as error:
                self._drop(self._queue, raw, error)


class KvTaker(Taker):
    """Takes what fits. `take` is for one thread."""

    def __init__(self, redis: Redis, pool: str, clock: Callable[[], float] = time.monotonic) -> None:
        """Take nothing before `open`."""
        super().__init__(bell_key(pool))
        self._redis = redis
        self._script = redis.register_script((files("headrace.broker") / "lua" / "take.lua").read_text())
        self._clock = clock
        self._kv_budget: KvBudget | None = None
        self._is_ready: Callable[[], bool] = lambda: False
        self._slots: Callable[[], int] = lambda: 0
        #: Of each queue whose head does not fit, that head, and since when.
        self._blocked: dict[str, tuple[str, float]] = {}
        self._ahead: dict[str, _Ahead] = {}
        self._seen_until = -math.inf
        #: How far to look into each queue: twice as far as the last look was good for.
        self._depth = 1

    def open(self, budget: KvBudget, is_ready: Callable[[], bool], slots: Callable[[], int]) -> None:
        """Begin to take.

        Args:
            is_ready: False while the engine is down, or the worker leaves.
            slots: how many threads of the worker have no job.
        """
        self._kv_budget, self._is_ready, self._slots = budget, is_ready, slots

    def free_slots(self) -> int:
        """How many threads of the worker have no job."""
        return self._slots()

    def take(self, turns: Turns, queues: int, most: int) -> list[tuple[str, dict[str, Any]]]:
        """Take the messages of the next jobs that fit."""
        budget = self._kv_budget
        if budget is None or not self._is_ready():
            return []
        for _ in range(TRIES):
            chosen = self._next(budget, turns, queues, most)
            self._depth = min(2 * len(chosen), FARTHEST) or 1
            if not chosen:
                return []
            # Where all that may be taken was there, nobody looks further for now.
            depth = self._depth if len(chosen) < most else 0
            if taken := self._remove(budget, chosen, turns.consume(queues), depth):
                return [(head.queue, head.message) for head in taken]
        # Others take one after the other: this one's turn comes.
        self.look()
        return []

    def _next(self, budget: KvBudget, turns: Turns, queues: int, most: int) -> list[_Head]:
        """The next ones that fit, by what was seen a moment ago; if that has none, by what is there now."""
        if self._clock() <= self._seen_until and (chosen := self._choose_some(budget, turns, queues, most)):
            return chosen
        self._ask(turns.consume(queues), self._depth, [])
        return self._choose_some(budget, turns, queues, most)

    def _remove(self, budget: KvBudget, chosen: Sequence[_Head], queues: Sequence[str], depth: int) -> list[_Head]:
        """Remove heads, and see what comes after them, in one round trip. Returns: those that no other worker took."""
        try:
            removed = self._ask(queues, depth, chosen)
        except RedisError:
            # They are not delivered, whether or not they were removed.
            _release(budget, chosen)
            raise
        _release(budget, [head for head, number in zip(chosen, removed, strict=True) if not number])
        return [head for head, number in zip(chosen, removed, strict=True) if number]

    def _ask(self, queues: Sequence[str], depth: int, chosen: Sequence[_Head]) -> list[int]:
        """Remove these, and see so many of each queue. Returns: of each to be removed 1 when it was there."""
        named = [part for head in chosen for part in (queues.index(head.queue) + 1, head.raw, head.stay)]
        keys = [*map(list_key, queues), *(books_key("taken", queue) for queue in queues)]
        removed, ahead = cast(
            "tuple[list[int], list[list[str]]]", self._script(keys=keys, args=[depth, SEARCHED, *named])
        )
        self._seen_until = self._clock() + JUST_SEEN_S if depth else -math.inf
        self._ahead = {
            queue: _Ahead(queue, raws[::-1], len(raws) < depth, self._drop)
            for queue, raws in zip(queues, ahead, strict=True)
        }
        return removed

    def _drop(self, queue: str, raw: str, error: Exception) -> None:
        log.error("message_not_readable", extra={"queue": queue, "error": repr(error)})
        # Where that fails it is seen, and dropped, again.
        with suppress(RedisError):
            self._redis.lrem(list_key(queue), -1, raw)
        self.look()

    def _choose_some(self, budget: KvBudget, turns: Turns, queues: int, most: int) -> list[_Head]:
        """Of what was seen the next ones that fit, which have their room from now on.

        None is chosen while one of a better lane may be there that was not seen.
        """
        chosen = list[_Head]()
        while len(chosen) < most:
            ahead = [self._ahead[queue] for queue in turns.consume(queues) if queue in self._ahead]
            if any(each.head is None and not each.is_whole for each in ahead):
                break
            head = self._choose(budget, [each.head for each in ahead if each.head is not None])
            if head is None:
                break
            self._ahead[head.queue].go_on()
            turns.rotate(head.queue)
            chosen.append(head)
        return chosen

    def _choose(self, budget: KvBudget, heads: list[_Head]) -> _Head | None:
        """The first that fits, which has its room from now on. What was passed over for too long has all to itself."""
        budget.see(high_waits=any(head.job is not None and head.job.lane is Lane.HIGH for head in heads))
        if not heads:
            return None
        now = self._clock()
        self._blocked = {head.queue: self._blocked[head.queue] for head in heads if self._is_blocked(head)}
        # One that lacks a slot of its lane waits for no room, and keeps it from nobody.
        heads = [head for head in heads if head.job is None or budget.has_slot(head.job.lane)]
        for head in self._overdue(heads, now) or heads:
            if head.job is None or budget.hold(*head.job):
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


def _release(budget: KvBudget, heads: Iterable[_Head]) -> None:
    """Give the room back that was kept for them."""
    for head in heads:
        if head.job is not None:
            budget.release(head.job.job_id)
