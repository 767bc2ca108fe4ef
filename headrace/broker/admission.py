"""Admission control: reserves places in capped queues and turns them into messages. Calls the scripts in `lua/`.

Redis is only a fast index of Postgres here: if it is wiped, the sweeps rebuild it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, cast
from uuid import UUID

from redis import Redis

from headrace.broker import standing
from headrace.broker.messages import ExecuteMessage
from headrace.broker.news import News
from headrace.broker.standing import Standing
from headrace.broker.upkeep import Upkeep, answered
from headrace.connections.redis import check_writable
from headrace.domain.apps import AppLimits
from headrace.domain.fleet import Fleet
from headrace.domain.limits.rates import RateLeft, RatesLeft
from headrace.domain.places import Ask, Load, Place, Reason, Refusal, bound_of
from headrace.domain.queues import KEY_PREFIX, Ticket, books_key

#: The `headrace.policies.forecasting.Outlook` as JSON: `observe` writes it, and web processes read it.
OUTLOOK = KEY_PREFIX + "outlook"
NO_LOOKUPS: Mapping[UUID, str] = MappingProxyType({})


class Admission(Upkeep):
    """Reserves and commits places. Safe for many threads."""

    def __init__(self, redis: Redis, message: ExecuteMessage, *, reservation_ttl_s: float) -> None:
        super().__init__(redis, message)
        self._ttl_s = reservation_ttl_s
        self._reserve, self._commit = map(self._script, ("reserve", "commit"))
        self._news = News(redis)

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
        """How the fleets stand; see `standing.now`. Raises: BrokerUnavailable. StoreUnavailable."""
        return standing.now(self._redis, read_fleets)

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
        self._news.ended(job_ids, has_webhooks=has_webhooks, moved=moved)

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
