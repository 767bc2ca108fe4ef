"""Admission control: reserves places in capped queues and turns them into messages. Calls the scripts in `lua/`.

Redis is only a fast index of Postgres here: if it is wiped, the sweeps rebuild it.
"""

import json
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from types import MappingProxyType
from typing import Any, NamedTuple, cast
from uuid import UUID

from redis import Redis
from redis.exceptions import RedisError

from headrace.broker.messages import ExecuteMessage
from headrace.broker.news import listeners_key
from headrace.broker.scripts import answered, script
from headrace.broker.upkeep import Upkeep
from headrace.connections.redis import check_writable
from headrace.domain.apps import AppLimits
from headrace.domain.fleet import Fleet
from headrace.domain.limits import MINUTE_S, RateLeft, RatesLeft
from headrace.domain.places import Ask, Load, Place, Reason, Refusal, bound_of
from headrace.domain.queues import KEY_PREFIX, MOVED, WEBHOOKS, Ticket, bell_key, books_key

#: The `headrace.policies.forecasting.Outlook` as JSON: `observe` writes it, and web processes read it.
OUTLOOK = KEY_PREFIX + "outlook"
NO_LOOKUPS: Mapping[UUID, str] = MappingProxyType({})
#: The standing as JSON, until it is too old.
STANDING = KEY_PREFIX + "standing"
#: How old it may be, in milliseconds.
STANDING_TTL_MS = 250
_FLEET_FIELDS = tuple(field.name for field in fields(Fleet))


@dataclass(frozen=True, slots=True)
class Standing:
    """The live fleets at one moment.

    Attributes:
        departed: by pool, the jobs that had ever left its queues. It was read before the fleets: a job that was claimed
            between the two reads counts as two taken slots. In the other order it would count as none.
    """

    departed: Mapping[str, int]
    fleets: Mapping[str, Fleet]


class Admission(Upkeep):
    """Reserves and commits places. Safe for many threads."""

    def __init__(self, redis: Redis, message: ExecuteMessage, *, reservation_ttl_s: float) -> None:
        super().__init__(redis, message)
        self._ttl_s = reservation_ttl_s
        names = ("reserve", "commit", "give_back")
        self._reserve, self._commit, self._give_back = (script(redis, "books", name) for name in names)
        self._announce = script(redis, "announce")

    def reserve(self, asks: Sequence[Ask]) -> list[Place | Refusal]:
        """Reserve a place for each ask in its first candidate with room. One Lua call, so no cap is ever exceeded.

        Returns: a place or a refusal for each ask, in their order. Raises: BrokerUnavailable.
        """
        arguments: list[str | int | float] = [self._ttl_s]
        for ask in asks:
            expected_tokens = ask.tokens if ask.expected_tokens is None else ask.expected_tokens
            arguments += (ask.job_id.hex, ask.app_id.hex, ask.tokens, expected_tokens, *_caps(ask.limits))
            arguments.append(len(ask.candidates))
            for each in ask.candidates:
                most_ahead = -1 if each.ahead_cap_tokens is None else each.ahead_cap_tokens
                arguments += (each.queue, each.depth_cap, each.backlog_cap_tokens, most_ahead, each.free_until)
        with answered():
            replies = self._reserve([KEY_PREFIX], arguments)
        return [_outcome(ask, _Reply._make(reply)) for ask, reply in zip(asks, replies, strict=True)]

    def commit(self, tickets: Sequence[Ticket], lookups: Mapping[UUID, str] = NO_LOOKUPS) -> None:
        """Turn reservations into their queues' messages, in this order.

        Args: lookups: the jobs that the semantic cache looks up, each with the pool whose workers do.
        Raises: BrokerUnavailable.
        """
        arguments: list[str | int] = []
        for ticket in tickets:
            app, message = ticket.app_id.hex, self._message.of(ticket)
            arguments += (ticket.job_id.hex, ticket.queue, app, ticket.kv_tokens, ticket.enqueue_no, message)
            arguments.append(lookups.get(ticket.job_id, ""))
        if arguments:
            with answered():
                self._commit([KEY_PREFIX], arguments)

    def give_back(self, job_ids: Iterable[UUID]) -> int:
        """Release reservations whose jobs were not inserted. A job that has its message keeps its place.

        Returns: how many were released. Raises: BrokerUnavailable.
        """
        arguments = [job_id.hex for job_id in job_ids]
        if not arguments:
            return 0
        with answered():
            return int(self._give_back([KEY_PREFIX], arguments))

    def knock(self, app_id: UUID, queue: str, tokens: int, for_s: float) -> None:
        """Record that an app found no room and will retry: until then a share of the queue is kept for it.

        Otherwise an app that keeps a queue full would take every freed place before another app retries.
        Args: tokens: of the refused job; the other apps' shares leave room for it. Raises: BrokerUnavailable.
        """
        with answered():
            until_ms = (int(self._redis.time()[0]) + for_s) * 1000
            pipeline = self._redis.pipeline(transaction=True)
            pipeline.zadd(books_key("knocks", queue), {app_id.hex: until_ms})
            pipeline.hset(books_key("wishes", queue), app_id.hex, str(tokens))
            pipeline.execute()

    def note_refused(self, marks: Collection[bytes]) -> set[bytes]:
        """Note requests that were refused; returns those that no process has noted in this minute.

        Raises: BrokerUnavailable.
        """
        if not marks:
            return set()
        ordered = list(marks)
        # As text, as everything in Redis is: operators look at it.
        texts = [mark.hex() for mark in ordered]
        key = f"{KEY_PREFIX}refused:{int(time.time() // MINUTE_S)}"
        with answered():
            pipeline = self._redis.pipeline(transaction=True)
            pipeline.smismember(key, texts)
            pipeline.sadd(key, *texts)
            pipeline.expire(key, int(2 * MINUTE_S))
            known, *_ = pipeline.execute()
        return {mark for mark, is_known in zip(ordered, known, strict=True) if not is_known}

    def loads(self, queues: Sequence[str]) -> dict[str, Load]:
        """What waits in each queue, in one round trip. Raises: BrokerUnavailable."""
        with answered():
            pipeline = self._redis.pipeline(transaction=True)
            for queue in queues:
                pipeline.zcard(books_key("line", queue))
                pipeline.get(books_key("backlog", queue))
                pipeline.hlen(books_key("jobs", queue))
                pipeline.get(books_key("expected", queue))
            counts = pipeline.execute()
        return {queue: _load(*counts[4 * i : 4 * i + 4]) for i, queue in enumerate(queues)}

    def standing(self, read_fleets: Callable[[], Mapping[str, Fleet]]) -> Standing:
        """How the fleets stand, at most `STANDING_TTL_MS` ago: one process reads it for all, which ask often.

        Otherwise Postgres would count the running jobs of every worker as often as there are processes. Those that ask
        just after it became too old each read it, which harms nothing.

        Args: read_fleets: reads the live fleet of each pool from Postgres.
        Raises: BrokerUnavailable. StoreUnavailable.
        """
        with answered():
            kept = cast("str | None", self._redis.get(STANDING))
            if kept and (standing := _standing_of(kept)) is not None:
                return standing
            counts = cast("dict[str, str]", self._redis.hgetall(KEY_PREFIX + "departed"))
        found = Standing({pool: int(jobs) for pool, jobs in counts.items()}, read_fleets())
        # A Redis without memory refuses it. Then each process reads for itself.
        with suppress(RedisError):
            self._redis.set(STANDING, json.dumps(asdict(found)), px=STANDING_TTL_MS)
        return found

    def publish_outlook(self, outlook: str, for_s: float) -> None:
        """Publish the outlook to every web process; it expires after `for_s`. Raises: BrokerUnavailable."""
        with answered():
            self._redis.set(OUTLOOK, outlook, px=int(for_s * 1000))

    def outlook(self) -> str | None:
        """The latest outlook; None without a recent one. Raises: BrokerUnavailable."""
        with answered():
            return cast("str | None", self._redis.get(OUTLOOK))

    def announce_ended(
        self, job_ids: Iterable[UUID], *, has_webhooks: bool = False, moved: Iterable[UUID] = ()
    ) -> None:
        """Wake the readers of these jobs, and the webhook workers if `has_webhooks`. Call it after the commit.

        Args: moved: jobs that ended, or were put back, without a worker; Flower shows them.
        Raises: BrokerUnavailable.
        """
        ended = list(job_ids)
        keys = [*map(listeners_key, ended), *([bell_key(WEBHOOKS)] if has_webhooks else [])]
        named = " ".join(job_id.hex for job_id in moved)
        if keys or named:
            with answered():
                self._announce(keys, [MOVED, named, *(job_id.hex for job_id in ended)])

    def check_writable(self) -> None:
        """Return if Redis takes writes. Raises: BrokerUnavailable."""
        with answered():
            check_writable(self._redis)


def _load(jobs: int, tokens: str | None, apps: int, expected_tokens: str | None) -> Load:
    # A process of an older version does not update the expected tokens, so those of departed jobs may remain.
    most = int(tokens or 0)
    return Load(jobs, most, apps, min(most, int(float(expected_tokens or most))))


def _caps(limits: AppLimits) -> tuple[int, ...]:
    caps = (limits.queued_jobs, limits.requests_per_minute, limits.tokens_per_minute)
    return tuple(-1 if cap is None else cap for cap in caps)


class _Reply(NamedTuple):
    """The reply of `reserve.lua` to one ask; the comment at its top documents each field."""

    candidate: int
    reason: Reason
    number: int
    depth: int
    tokens: int
    expected_tokens: int
    requests_left: int
    tokens_left: int
    free_slots: int


def _outcome(ask: Ask, reply: _Reply) -> Place | Refusal:
    requests, tokens_a_minute = ask.limits.requests_per_minute, ask.limits.tokens_per_minute
    left = RatesLeft(
        RateLeft(requests, reply.requests_left) if requests else None,
        RateLeft(tokens_a_minute, reply.tokens_left) if tokens_a_minute else None,
    )
    if reply.candidate:
        candidate = ask.candidates[reply.candidate - 1]
        return Place(candidate, reply.number, reply.depth, reply.expected_tokens, left, reply.free_slots)
    return Refusal(
        reply.reason,
        depth=reply.depth,
        backlog_tokens=reply.tokens,
        expected_tokens=reply.expected_tokens,
        rates_left=left,
        free=reply.free_slots,
        **bound_of(reply.reason, reply.number),
    )


def _standing_of(text: str) -> Standing | None:
    """Read what a process of this release or of another wrote; None if it lacks what this one needs."""
    read = json.loads(text)
    try:
        fleets = {pool: Fleet(**_known_fields(fleet)) for pool, fleet in read["fleets"].items()}
        return Standing(read["departed"], fleets)
    except (KeyError, TypeError):
        return None


def _known_fields(fleet: Mapping[str, Any]) -> dict[str, Any]:
    return {name: fleet[name] for name in _FLEET_FIELDS if name in fleet}
