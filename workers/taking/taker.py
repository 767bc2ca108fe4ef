"""Takes a worker's next job: the first, in the order of the lanes' turns, for which its engine has room.

A job cannot be lost between the queue and the worker. A taken job keeps its place in the queue's books until its claim
is on disk. If the worker dies in between, `publish_due` publishes the job again.
"""

import json
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, NamedTuple, cast
from uuid import UUID

from redis import Redis
from redis.exceptions import RedisError

from headrace.batching import Gathering
from headrace.broker.messages import list_key
from headrace.broker.transport import MOST_AT_ONCE, LaneCycle, Taker
from headrace.domain.ids import parse_id
from headrace.domain.queues import Lane, bell_key, books_key
from headrace.errors import NotFound
from workers.taking.kv_budget import KvBudget

log = logging.getLogger(__name__)


class RoomRequest(NamedTuple):
    """The arguments of `KvBudget.hold`, as `ExecuteMessage` wrote them."""

    job_id: UUID
    lane: Lane
    prompt_tokens: int
    max_tokens: int
    alone: bool
    n: int


@dataclass(frozen=True, slots=True)
class Head:
    """The next message of a queue.

    Attributes:
        raw: the message as the list holds it.
        job: None for a message that is not Headrace's, which needs no room.
        stay: the job's entry in the queue's books while it waits here; empty without a job.
    """

    queue: str
    raw: str
    message: dict[str, Any]
    job: RoomRequest | None
    stay: str

    @classmethod
    def of(cls, queue: str, raw: str) -> "Head":
        message = json.loads(raw)
        # Celery's consumer needs these fields: a missing one would end the worker there.
        headers, tag = message["headers"], message["properties"]["delivery_tag"]
        job, stay = None, ""
        if (routing := headers.get("headrace")) is not None:
            job = RoomRequest(
                job_id=parse_id(headers["id"]),
                lane=Lane(routing["lane"]),
                prompt_tokens=routing["prompt_tokens"],
                max_tokens=routing["max_tokens"],
                alone=routing["alone"],
                n=routing.get("n", 1),
            )
            stay = f"{job.job_id.hex} {int(tag.rpartition('.')[2])}"
        return cls(queue, raw, message, job, stay)


class Ahead:
    """The messages that were read from one queue.

    Attributes:
        head: the first one that can be decoded; None after the last.
        is_whole: True if the queue held no further messages.
    """

    def __init__(
        self,
        queue: str,
        raws: Sequence[str],
        is_whole: bool,
        drop: Callable[[str, str, Exception], None],
        elsewhere: Collection[UUID] = (),
    ) -> None:
        """Args: elsewhere: jobs to leave where they are."""
        self._queue, self._raws, self._drop, self._elsewhere = queue, deque(raws), drop, elsewhere
        self.is_whole = is_whole
        self.head: Head | None = None
        self.go_on()

    def go_on(self) -> None:
        """Move the head to the next message that this worker may take. Drops messages that cannot be decoded."""
        self.head = None
        while self._raws and self.head is None:
            raw = self._raws.popleft()
            try:
                head = Head.of(self._queue, raw)
                self.head = None if head.job is not None and head.job.job_id in self._elsewhere else head
            except (ValueError, KeyError, TypeError, AttributeError, NotFound) as error:
                self._drop(self._queue, raw, error)


#: Seconds for which jobs that fit may overtake a job that does not. After that, freed room is kept for the latter.
PASSED_OVER_S = 1.0
#: Seconds for which the messages read at one removal serve the next one. A job that arrives meanwhile waits as long.
JUST_SEEN_S = 0.01
#: Seconds that a take waits for more slots while many jobs end, unless as many are free as are worth one.
GATHER_S = 0.003
ENOUGH_SLOTS = MOST_AT_ONCE // 2
#: How often a take is tried when another worker was faster.
TRIES = 8
#: How far from its end a list is searched for a message. Another worker may have taken the message since it was read.
SEARCHED = 256
#: The most messages of each queue to read at once. One turn of the worker's event loop takes no more.
FARTHEST = MOST_AT_ONCE


class KvTaker(Taker):
    """Takes jobs that fit. Only one thread may call `take`."""

    def __init__(
        self, redis: Redis, pool: str, clock: Callable[[], float] = time.monotonic, gathering: Gathering | None = None
    ) -> None:
        """Take nothing before `open`. Args: gathering: how a take waits for more slots."""
        super().__init__(bell_key(pool))
        self._redis = redis
        self._script = redis.register_script((files("headrace.broker") / "lua" / "take.lua").read_text())
        self._clock = clock
        self._gathering = gathering or Gathering(GATHER_S)
        self._kv_budget: KvBudget | None = None
        self._is_ready: Callable[[], bool] = lambda: False
        self._slots: Callable[[], int] = lambda: 0
        self._elsewhere: Callable[[], Collection[UUID]] = lambda: ()
        #: For each queue whose head does not fit: the head, and since when.
        self._blocked: dict[str, tuple[str, float]] = {}
        self._ahead: dict[str, Ahead] = {}
        #: The only message of all queues, if the last read removed it.
        self._lone: Head | None = None
        self._seen_until = -math.inf
        #: Messages to read from each queue, unless fewer slots are free.
        self._depth = 1

    def open(
        self,
        budget: KvBudget,
        is_ready: Callable[[], bool],
        slots: Callable[[], int],
        elsewhere: Callable[[], Collection[UUID]] = lambda: (),
    ) -> None:
        """Begin to take.

        Args:
            is_ready: False while the engine is down, or the worker drains.
            slots: how many threads of the worker have no job.
            elsewhere: the few jobs that only other workers may run. They stay in their lists.
        """
        self._kv_budget, self._is_ready, self._slots, self._elsewhere = budget, is_ready, slots, elsewhere

    def look(self) -> None:
        """As `Taker.look`; counts the jobs that end."""
        self._gathering.came()
        super().look()

    def gather(self) -> None:
        """Wait for more slots while many jobs end."""
        if self.free_slots() < ENOUGH_SLOTS:
            self._gathering.wait()

    def free_slots(self) -> int:
        """How many threads of the worker have no job, as far as the engine has slots for them."""
        engine = self._kv_budget.free_slots if self._kv_budget is not None else math.inf
        return int(min(self._slots(), engine))

    def take(self, turns: LaneCycle, queues: int, most: int) -> list[tuple[str, dict[str, Any]]]:
        """Take the messages of the next jobs that fit."""
        budget = self._kv_budget
        if budget is None or not self._is_ready() or not budget.free_slots:
            return []
        for _ in range(TRIES):
            chosen = self._next(budget, turns, queues, most)
            self._learn_depth(len(chosen), most)
            if not chosen:
                self._put_back()
                return []
            if not self._is_ready():
                # Since the check above the worker has begun to drain, or its engine died.
                self._seen_until = -math.inf
                _release(budget, chosen)
                self._put_back(for_others=True)
                return []
            # A take that filled all slots needs no further messages for now.
            depth = min(self._depth, most - len(chosen))
            is_removed, self._lone = self._lone is not None, None
            if taken := chosen if is_removed else self._remove(budget, chosen, turns.consume(queues), depth):
                return [(head.queue, head.message) for head in taken]
        # Other workers were faster each time. Another turn of the event loop tries again.
        self.look()
        return []

    def _learn_depth(self, chosen: int, most: int) -> None:
        """Read twice as many as were chosen next time. If only slots were lacking, do not read less than before."""
        twice = min(2 * chosen, FARTHEST) or 1
        self._depth = twice if chosen < most else max(self._depth, twice)

    def _next(self, budget: KvBudget, turns: LaneCycle, queues: int, most: int) -> list[Head]:
        """The next jobs that fit, from the messages read a moment ago or else from a new read."""
        if self._clock() <= self._seen_until and (chosen := self._choose_some(budget, turns, queues, most)):
            return chosen
        self._ask(turns.consume(queues), min(self._depth, most), [], lone=budget.is_idle)
        return self._choose_some(budget, turns, queues, most)

    def _remove(self, budget: KvBudget, chosen: Sequence[Head], queues: Sequence[str], depth: int) -> list[Head]:
        """Remove heads and read the next messages, in one round trip. Returns: the heads that no other worker took."""
        try:
            removed = self._ask(queues, depth, chosen)
        except RedisError:
            # The heads are not delivered, whether or not Redis removed them.
            _release(budget, chosen)
            raise
        _release(budget, [head for head, number in zip(chosen, removed, strict=True) if not number])
        return [head for head, number in zip(chosen, removed, strict=True) if number]

    def _ask(self, queues: Sequence[str], depth: int, chosen: Sequence[Head], *, lone: bool = False) -> list[int]:
        """Remove the chosen heads, and read `depth` messages of each queue. Returns: 1 for each head that was there.

        Args: lone: remove the only message of all queues, too. An idle engine has room for any job, and a first token
            comes sooner without a second round trip.
        """
        elsewhere = self._elsewhere()
        if elsewhere:
            # Each of them may be among the first messages. A lone message may be one, so it is not removed unseen.
            depth, lone = depth and depth + len(elsewhere), False
        named = [part for head in chosen for part in (queues.index(head.queue) + 1, head.raw, head.stay)]
        keys = [*map(list_key, queues), *(books_key("taken", queue) for queue in queues)]
        removed, ahead, is_lone = cast(
            "tuple[list[int], list[list[str]], int]",
            self._script(keys=keys, args=[depth, SEARCHED, int(lone), *named]),
        )
        self._seen_until = self._clock() + JUST_SEEN_S if depth else -math.inf
        self._ahead = {
            queue: Ahead(queue, raws[::-1], len(raws) < depth, self._drop, elsewhere)
            for queue, raws in zip(queues, ahead, strict=True)
        }
        self._lone = next((each.head for each in self._ahead.values() if each.head), None) if is_lone else None
        return removed

    def _put_back(self, *, for_others: bool = False) -> None:
        """Put a message that was removed, and is not taken after all, where it was. Raises: RedisError.

        If this fails, or the worker dies before, `publish_due` restores the message, as that of any taken job.

        Args: for_others: ring again, for the workers that looked meanwhile and found nothing.
        """
        head, self._lone = self._lone, None
        if head is not None:
            self._seen_until = -math.inf
            with self._redis.pipeline(transaction=True) as pipe:
                pipe.rpush(list_key(head.queue), head.raw)
                pipe.zrem(books_key("taken", head.queue), head.stay)
                if for_others:
                    pipe.xadd(self.bell, {"queues": "new"}, maxlen=1, approximate=False)
                pipe.execute()

    def _drop(self, queue: str, raw: str, error: Exception) -> None:
        log.error("message_not_readable", extra={"queue": queue, "error": repr(error)})
        # If this fails, the next read finds the message and drops it again.
        with suppress(RedisError):
            self._redis.lrem(list_key(queue), -1, raw)
        self.look()

    def _choose_some(self, budget: KvBudget, turns: LaneCycle, queues: int, most: int) -> list[Head]:
        """Choose the next jobs that fit from the messages read, and reserve their room.

        Stops when a queue may hold messages that were not read: one of them may come first.
        """
        chosen = list[Head]()
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

    def _choose(self, budget: KvBudget, heads: list[Head]) -> Head | None:
        """Choose the first job that fits, and reserve its room. While a job is overdue, only that one can be chosen."""
        budget.see(high_waits=any(head.job is not None and head.job.lane is Lane.HIGH for head in heads))
        if not heads:
            return None
        now = self._clock()
        self._blocked = {head.queue: self._blocked[head.queue] for head in heads if self._is_blocked(head)}
        # A job without a slot for its lane does not wait for KV room, so no room is kept for it.
        heads = [head for head in heads if head.job is None or budget.has_slot(head.job.lane)]
        for head in self._overdue(heads, now) or heads:
            if head.job is None or budget.hold(*head.job):
                self._blocked.pop(head.queue, None)
                return head
            self._blocked.setdefault(head.queue, (head.raw, now))
        return None

    def _overdue(self, heads: list[Head], now: float) -> list[Head]:
        """The head that was passed over for longest, once that is too long. Room is kept for one job at a time."""
        passed_over = [head for head in heads if head.queue in self._blocked]
        longest = sorted(passed_over, key=lambda head: self._blocked[head.queue][1])[:1]
        return [head for head in longest if now - self._blocked[head.queue][1] >= PASSED_OVER_S]

    def _is_blocked(self, head: Head) -> bool:
        return head.queue in self._blocked and self._blocked[head.queue][0] == head.raw


def _release(budget: KvBudget, heads: Iterable[Head]) -> None:
    """Release the room that was reserved for these heads."""
    for head in heads:
        if head.job is not None:
            budget.release(head.job.job_id)
