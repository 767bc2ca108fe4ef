"""Upkeep of the queues in Redis: the sweeps compare them with Postgres, restore lost messages and remove stale ones.

Each call is bounded, because Redis serves no other client while it runs one.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import cast
from uuid import UUID

from redis import Redis

from headrace.broker.messages import ExecuteMessage, list_key
from headrace.broker.scripts import answered, script
from headrace.domain.queues import KEY_PREFIX, Ticket, books_key

#: The most messages that one Lua call restores or removes.
BATCH_MESSAGES = 500
#: The most overdue stays that one look returns for each queue.
MOST_TAKEN = 1000
#: The most entries of a list or of the books that one command reads.
PART = 1000
#: Where `committed` continues: the sweeps of all processes share one pass through the books.
_CURSOR = KEY_PREFIX + "reconciled"
_DELIVERY_TAG = re.compile(r'"delivery_tag":"job_([0-9a-f]{32})\.(\d+)"')

#: A stay of a job in a queue: the job, and the stay's `enqueue_no`.
Stay = tuple[UUID, int]


@dataclass(frozen=True, slots=True)
class Look:
    """How a queue's list agrees with its books.

    Attributes:
        mark: every job queued up to this mark has been checked; empty if Redis has no mark.
        missing: at least how many messages the list lacks. Stale messages in the list may hide more.
        overdue: stays taken out of the list but not claimed in time.
    """

    mark: str
    missing: int
    overdue: tuple[Stay, ...]


class Upkeep:
    """Repairs lists and books. Safe for many threads."""

    def __init__(self, redis: Redis, message: ExecuteMessage) -> None:
        self._redis = redis
        self._message = message
        self._leave, self._restore, self._remove, self._discard, self._inspect, self._check = (
            script(redis, "books", name) for name in ("leave", "restore", "remove", "discard", "inspect", "check")
        )

    def leave(self, stays: Iterable[Stay]) -> int:
        """Release the places of jobs that no longer wait. Their messages stay.

        Returns: how many had a place. Raises: BrokerUnavailable.
        """
        arguments = [word for job_id, enqueue_no in stays for word in (job_id.hex, enqueue_no)]
        if not arguments:
            return 0
        with answered():
            return int(self._leave([KEY_PREFIX], arguments))

    def settle(self, stays: Sequence[tuple[str, Stay]]) -> None:
        """Remove taken stays that are over from the books. Raises: BrokerUnavailable."""
        if not stays:
            return
        self.leave(stay for _, stay in stays)
        with answered():
            pipeline = self._redis.pipeline(transaction=False)
            for queue, (job_id, enqueue_no) in stays:
                # `taken` also has stays that were not in the books when they were taken.
                pipeline.zrem(books_key("taken", queue), f"{job_id.hex} {enqueue_no}")
            pipeline.execute()

    def look(self, queues: Sequence[str], claim_s: float) -> dict[str, Look]:
        """Compare the list of each queue with its books: one round trip, independent of the lists' lengths.

        Args: claim_s: how long a worker may take to claim a job that it took. Raises: BrokerUnavailable.
        """
        with answered():
            found = self._inspect([KEY_PREFIX], [int(claim_s * 1000), MOST_TAKEN, *queues])
        return {
            queue: Look(mark, missing, tuple(_stay(each) for each in overdue))
            for queue, (mark, missing, overdue) in zip(queues, found, strict=True)
        }

    def unknown(self, queue: str, tickets: Sequence[Ticket]) -> list[Ticket]:
        """The tickets that are not in the books, or still only reserved. Raises: BrokerUnavailable."""
        if not tickets:
            return []
        jobs = [ticket.job_id.hex for ticket in tickets]
        with answered():
            pipeline = self._redis.pipeline(transaction=True)
            pipeline.hmget(KEY_PREFIX + "waiting", jobs)
            pipeline.zmscore(books_key("reservations", queue), jobs)
            entries, reserved = pipeline.execute()
        found = zip(tickets, entries, reserved, strict=True)
        return [ticket for ticket, entry, until in found if entry != _entry(ticket) or until is not None]

    def check(self, queue: str, before: str, now: str) -> bool:
        """Move the mark up to which the queue's jobs were checked from `before` to `now`.

        Returns: False if the mark is no longer `before`: Redis was wiped, or another process moved it.
        Raises: BrokerUnavailable.
        """
        with answered():
            return bool(self._check([KEY_PREFIX], [queue, before, now]))

    def restore(self, tickets: Sequence[Ticket], first: int = 1) -> list[Ticket]:
        """Push the messages that are missing from their lists; returns the tickets of these.

        Args: first: the number of a job that was never taken. One with a later number has come back, and goes first.
        Raises: BrokerUnavailable.
        """
        pushed: set[str] = set()
        for queue, batch in _batches(tickets):
            arguments: list[str | int] = [queue, first]
            for ticket in batch:
                app, message = ticket.app_id.hex, self._message.of(ticket)
                arguments += (ticket.job_id.hex, app, ticket.kv_tokens, ticket.enqueue_no, message)
            with answered():
                pushed |= set(self._restore([KEY_PREFIX], arguments))
        return [ticket for ticket in tickets if ticket.job_id.hex in pushed]

    def remove(self, tickets: Sequence[Ticket]) -> int:
        """Remove ended jobs from the books, and those of their messages that are near an end of their lists.

        Returns: how many messages were removed. Raises: BrokerUnavailable.
        """
        removed = 0
        for _, batch in _batches(tickets):
            arguments: list[str | int] = []
            for ticket in batch:
                arguments += (ticket.queue, ticket.job_id.hex, ticket.enqueue_no, self._message.of(ticket))
            with answered():
                removed += int(self._remove([KEY_PREFIX], arguments))
        return removed

    def compare(self, queue: str) -> int:
        """Read a whole list in parts, and mark the committed jobs without a message as taken long ago.

        For a list that was emptied by hand; the cost grows with the list. Returns: how many jobs were marked.
        Raises: BrokerUnavailable.
        """
        with answered():
            # The line first, then the list from the end where messages arrive: so no message that arrives or leaves
            # meanwhile counts as missing.
            missing = set(self._parts(self._redis.zrange, books_key("line", queue)))
            for message in self._parts(self._redis.lrange, list_key(queue)):
                if tag := _DELIVERY_TAG.search(message):
                    missing.discard(tag[1])
            missing -= set(cast("list[str]", self._redis.zrange(books_key("reservations", queue), 0, -1)))
            stays = [f"{job.hex} {number}" for job, number in self._stays(queue, list(missing)).items()]
            if not stays:
                return 0
            return cast("int", self._redis.zadd(books_key("taken", queue), dict.fromkeys(stays, 0), nx=True))

    def _parts(self, read: Callable[[str, int, int], object], key: str) -> Iterator[str]:
        start = 0
        while part := cast("list[str]", read(key, start, start + PART - 1)):
            yield from part
            start += PART

    def _stays(self, queue: str, jobs: Sequence[str]) -> dict[UUID, int]:
        entries = cast("list[str | None]", self._redis.hmget(KEY_PREFIX + "waiting", jobs)) if jobs else []
        found = zip(jobs, entries, strict=True)
        return {
            UUID(hex=job): int(entry.rpartition(" ")[2])
            for job, entry in found
            if entry is not None and entry.partition(" ")[0] == queue
        }

    def drop_stale_reservations(self, queues: Sequence[str]) -> int:
        """Release places whose job was never inserted, at most `PART` per queue; returns how many.

        Raises: BrokerUnavailable.
        """
        with answered():
            now_ms = int(self._redis.time()[0]) * 1000
            pipeline = self._redis.pipeline(transaction=False)
            for queue in queues:
                pipeline.zrangebyscore(books_key("reservations", queue), "-inf", now_ms, 0, PART)
            stale = [job for jobs in pipeline.execute() for job in jobs]
        # Only a first stay has a reservation: a job that came back has a later number and keeps its place.
        return self.leave((UUID(hex=job), 1) for job in stale)

    def cursor(self) -> int:
        """Where the pass through the books continues. Raises: BrokerUnavailable."""
        with answered():
            return int(self._redis.get(_CURSOR) or 0)

    def keep_cursor(self, cursor: int) -> None:
        """Store where the pass continues next time. Raises: BrokerUnavailable."""
        with answered():
            if cursor:
                self._redis.set(_CURSOR, cursor)
            else:
                self._redis.delete(_CURSOR)

    def committed(self, cursor: int) -> tuple[int, dict[UUID, int]]:
        """A part of the books: the waiting, committed jobs with their enqueue_no.

        Returns: the next cursor (0 after the last part), and the part, which may repeat jobs of another part.
        Raises: BrokerUnavailable.
        """
        with answered():
            cursor, part = self._redis.hscan(KEY_PREFIX + "waiting", cursor, count=PART)
            entries = cast("dict[str, str]", part)
            pipeline = self._redis.pipeline(transaction=False)
            for job, entry in entries.items():
                pipeline.zscore(books_key("reservations", entry.partition(" ")[0]), job)
            reserved = pipeline.execute()
        found = zip(entries.items(), reserved, strict=True)
        return cursor, {UUID(hex=job): int(entry.rpartition(" ")[2]) for (job, entry), until in found if until is None}

    def messages(self, queue: str, limit: int) -> list[str]:
        """The next messages in a queue's list, at most `limit`. Raises: BrokerUnavailable."""
        with answered():
            return [str(message) for message in self._redis.lrange(list_key(queue), -limit, -1)]

    def discard(self, queue: str, messages: Sequence[str]) -> int:
        """Remove these messages from a queue's list if they are near one of its ends; returns how many were there.

        Raises: BrokerUnavailable.
        """
        discarded = 0
        for start in range(0, len(messages), BATCH_MESSAGES):
            with answered():
                discarded += int(self._discard([KEY_PREFIX], [queue, *messages[start : start + BATCH_MESSAGES]]))
        return discarded


def _batches(tickets: Collection[Ticket]) -> Iterator[tuple[str, list[Ticket]]]:
    """The tickets of each queue in their order, at most `BATCH_MESSAGES` at a time."""
    by_queue = attrgetter("queue")
    for queue, group in groupby(sorted(tickets, key=by_queue), key=by_queue):
        waiting = list(group)
        for start in range(0, len(waiting), BATCH_MESSAGES):
            yield queue, waiting[start : start + BATCH_MESSAGES]


def _entry(ticket: Ticket) -> str:
    """The job's entry in the books while it waits under this ticket."""
    return f"{ticket.queue} {ticket.app_id.hex} {ticket.kv_tokens} {ticket.enqueue_no}"


def _stay(text: str) -> Stay:
    job, _, number = text.partition(" ")
    return UUID(hex=job), int(number)
