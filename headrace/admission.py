"""The door: takes places in capped queues and turns them into messages. The face of the Lua under `lua/`.

Redis is a fast index of Postgres here: all of it can be wiped and rebuilt by the sweeps.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from itertools import groupby
from operator import attrgetter
from uuid import UUID

from redis import Redis, RedisError

from headrace.broker import ExecuteMessage, list_key
from headrace.errors import BrokerUnavailable, QueueFull
from headrace.queues import KEY_PREFIX, Candidate, Ticket

#: The hash {queue: jobs per second} that `observe` writes and the door reads.
DRAIN_RATES = KEY_PREFIX + "drain_rates"
#: The channel on which ended jobs are named, by 32 hex digits. A message may be lost: readers look again by themselves.
ENDED = KEY_PREFIX + "ended"
#: Clients that should retry honour no Retry-After above this. Source: the openai SDK.
RETRY_AFTER_LIMIT_S = 120


@dataclass(frozen=True, slots=True)
class Place:
    """A place taken in a queue: `position` counts from 1, `depth` includes it."""

    candidate: Candidate
    position: int
    depth: int


def reservations_key(queue: str) -> str:
    """The zset {job id: expiry in ms} of places that are taken and not committed yet."""
    return f"{KEY_PREFIX}reservations:{queue}"


class Admission:
    """Takes and gives places. Safe for many threads."""

    def __init__(self, redis: Redis, message: ExecuteMessage, *, reservation_ttl_s: float) -> None:
        self._redis = redis
        self._message = message
        self._ttl_s = reservation_ttl_s
        scripts = files("headrace") / "lua"
        self._reserve, self._commit, self._restore = (
            redis.register_script((scripts / f"{name}.lua").read_text()) for name in ("reserve", "commit", "restore")
        )

    def reserve(self, job_id: UUID, candidates: Sequence[Candidate]) -> Place:
        """Take a place in the first candidate with room: one Lua call, so that no cap is ever overshot.

        Raises: QueueFull: none has room. BrokerUnavailable.
        """
        keys = [key for each in candidates for key in (list_key(each.queue), reservations_key(each.queue))]
        arguments: list[str | int | float] = [job_id.hex, self._ttl_s, *(each.depth_cap for each in candidates)]
        with _answered():
            chosen, depth = self._reserve(keys, arguments)
        if chosen:
            return Place(candidates[chosen - 1], depth, depth)
        first = candidates[0]
        raise QueueFull(first.queue, depth, first.depth_cap, self._retry_after_s(first.queue))

    def commit(self, ticket: Ticket) -> None:
        """Turn the reservation into the queue's message. Raises: BrokerUnavailable."""
        keys = [list_key(ticket.queue), reservations_key(ticket.queue)]
        with _answered():
            self._commit(keys, [ticket.job_id.hex, self._message.of(ticket)])

    def release(self, job_id: UUID, queue: str) -> None:
        """Give a reserved place back. Raises: BrokerUnavailable."""
        with _answered():
            self._redis.zrem(reservations_key(queue), job_id.hex)

    def restore(self, tickets: Sequence[Ticket]) -> int:
        """Push the messages that are missing from their lists; returns how many were. Raises: BrokerUnavailable."""
        pushed = 0
        for queue, group in groupby(sorted(tickets, key=attrgetter("queue")), key=attrgetter("queue")):
            arguments = [word for ticket in group for word in (ticket.job_id.hex, self._message.of(ticket))]
            with _answered():
                pushed += int(self._restore([list_key(queue), reservations_key(queue)], arguments))
        return pushed

    def remove(self, tickets: Sequence[Ticket]) -> int:
        """Take the messages of jobs that have ended out of their lists. Raises: BrokerUnavailable."""
        if not tickets:
            return 0
        with _answered():
            pipeline = self._redis.pipeline(transaction=False)
            for ticket in tickets:
                pipeline.lrem(list_key(ticket.queue), 1, self._message.of(ticket))
            return sum(pipeline.execute())

    def depths(self, queues: Sequence[str]) -> dict[str, int]:
        """Jobs in each queue's list plus its live reservations: one round trip. Raises: BrokerUnavailable."""
        with _answered():
            now_ms = int(self._redis.time()[0]) * 1000
            pipeline = self._redis.pipeline(transaction=True)
            for queue in queues:
                pipeline.llen(list_key(queue))
                pipeline.zcount(reservations_key(queue), now_ms, "+inf")
            counts = pipeline.execute()
        return {queue: counts[2 * i] + counts[2 * i + 1] for i, queue in enumerate(queues)}

    def drop_stale_reservations(self, queues: Sequence[str]) -> int:
        """Forget places whose job was never inserted; returns how many. Raises: BrokerUnavailable."""
        with _answered():
            now_ms = int(self._redis.time()[0]) * 1000
            pipeline = self._redis.pipeline(transaction=False)
            for queue in queues:
                pipeline.zremrangebyscore(reservations_key(queue), "-inf", now_ms)
            return sum(pipeline.execute())

    def messages(self, queue: str, limit: int) -> list[str]:
        """The messages in a queue's list that will be taken next, `limit` at most. Raises: BrokerUnavailable."""
        with _answered():
            return [str(message) for message in self._redis.lrange(list_key(queue), -limit, -1)]

    def discard(self, queue: str, messages: Sequence[str]) -> int:
        """Take these very messages out of a queue's list; returns how many were there. Raises: BrokerUnavailable."""
        with _answered():
            pipeline = self._redis.pipeline(transaction=False)
            for message in messages:
                pipeline.lrem(list_key(queue), 0, message)
            return sum(pipeline.execute())

    def publish_drain_rates(self, rates: Mapping[str, float]) -> None:
        """Tell every door how fast the queues drain, in jobs per second. Raises: BrokerUnavailable."""
        with _answered():
            pipeline = self._redis.pipeline(transaction=True)
            pipeline.delete(DRAIN_RATES)
            if rates:
                pipeline.hset(DRAIN_RATES, mapping={queue: str(rate) for queue, rate in rates.items()})
            pipeline.execute()

    def drain_rate(self, queue: str) -> float | None:
        """Jobs per second that leave this queue, as last observed; None before anything was observed."""
        with _answered():
            rate = self._redis.hget(DRAIN_RATES, queue)
        return float(rate) if rate else None

    def announce_ended(self, job_ids: Iterable[UUID]) -> None:
        """Wake whoever waits for these jobs' ends. Call it after the commit. Raises: BrokerUnavailable."""
        with _answered():
            pipeline = self._redis.pipeline(transaction=False)
            for job_id in job_ids:
                pipeline.publish(ENDED, job_id.hex)
            pipeline.execute()

    def ping(self) -> None:
        """Return when Redis answers. Raises: BrokerUnavailable."""
        with _answered():
            self._redis.ping()

    def _retry_after_s(self, queue: str) -> int:
        """When one place will likely be free: the time one job takes to leave, at least a second."""
        rate = self.drain_rate(queue)
        return min(RETRY_AFTER_LIMIT_S, max(1, round(1 / rate))) if rate else 5


@contextmanager
def _answered() -> Iterator[None]:
    try:
        yield
    except RedisError as error:
        raise BrokerUnavailable(f"Redis does not answer: {error}") from error
