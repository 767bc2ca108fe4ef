"""Every 429 of the API but those of budgets and confinement, each Retry-After, and the counts of refused jobs.

`Refusals` turns admission's `Refusal` into the error that the caller gets: why no queue has a place, and when to retry.
It also reserves a place for a client that will retry. `RefusalCounts` adds up refused jobs for the autoscaler and the
analysts, and recognises requests that are repeated. Knows no HTTP.
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Literal
from uuid import UUID

from api.door.drafts import Bid
from api.door.vacancies import Vacancies
from headrace.broker.admission import Admission
from headrace.broker.forecast import Forecast
from headrace.config import Settings
from headrace.domain.apps import App, AppLimits
from headrace.domain.fleet import NO_WORKER_REASON, Vacancy
from headrace.domain.jobs import JobSpec
from headrace.domain.limits import MINUTE_S, RateLeft, RatesLeft
from headrace.domain.places import ROOM_REASONS, Refusal, RefusalCount, RefusalKey
from headrace.domain.queues import Candidate, parts_of, wanted_queue
from headrace.errors import (
    AppLimited,
    BodiesFull,
    BrokerUnavailable,
    QueueFull,
    Refused,
    SlotsFull,
    StoreUnavailable,
    Unavailable,
)
from headrace.policies.routing import LatencyGoal
from headrace.store import Store
from headrace.store.fleet import observations
from headrace.store.fleet.observations import REFUSALS_EVERY_S

log = logging.getLogger(__name__)

#: The longest Retry-After that clients honour, in seconds. Source: the openai SDK.
RETRY_AFTER_LIMIT_S = 120
#: The Retry-After, in seconds, where the queue's drain rate is unknown.
RETRY_BLINDLY_S = 5
#: How much later than its Retry-After a client may retry and still find its place kept, in seconds.
LATE_S = 5
#: Seconds between two knocks of one app at the same full queue.
KNOCK_EVERY_S = 1.0
#: Apps and queues that are remembered at most.
REMEMBERED = 1000
#: Requests of one minute that a process recognises at most. Further ones count as new.
RECOGNISED = 20_000
#: Bytes that are hashed in one step: for more, `hashlib` releases the GIL, which costs a turn of all threads.
HASHED_BYTES = 2047


@dataclass(frozen=True, slots=True)
class Refusals:
    """The refusals of one process, for all its threads."""

    settings: Settings
    admission: Admission
    forecast: Forecast
    vacancies: Vacancies
    counts: "RefusalCounts"
    _knocked_at: dict[tuple[UUID, str], float] = field(default_factory=dict)
    #: By app and queue, and then by reason: the last Retry-After, and when it ends on the monotonic clock.
    _told: dict[tuple[UUID, str], dict[str, tuple[int, float]]] = field(default_factory=dict)

    def error(self, refusal: Refusal, bid: Bid) -> Refused:
        """Makes the error for a job that got no place."""
        spec, app = bid.spec, bid.app
        if refusal.reason in ("requests_per_minute", "tokens_per_minute"):
            return rate_limited(refusal, spec.kv_tokens, app.limits)
        candidate, goal = bid.candidates[0], self.forecast.latency_goal(spec)
        queue, position, ahead_tokens = candidate.queue, refusal.depth + 1, refusal.expected_tokens
        wait_s = or_unknown(lambda: self.forecast.expected_wait_s(queue, position, ahead_tokens, refusal.free))
        vacancy = self._vacancy(refusal, bid)
        retry_after_s = vacancy.retry_after_s if vacancy else self._retry_after_s(refusal, spec, candidate, wait_s)
        return QueueFull(
            f"{_why(refusal, spec, queue, wait_s, goal)} {vacancy or _advice(retry_after_s)}",
            queue=queue,
            reason=NO_WORKER_REASON if vacancy else refusal.reason,
            depth=refusal.waiting,
            cap=refusal.cap,
            unit=refusal.unit,
            expected_wait_s=wait_s,
            retry_after_s=retry_after_s,
            rates_left=refusal.rates_left,
            worker_in_s=vacancy.worker_in_s if vacancy else None,
        )

    def count(self, spec: JobSpec, reason: str, body: bytes) -> None:
        """Count a refused job. Args: body: of its request; empty if it had none."""
        name = spec.idempotency.key.encode() if spec.idempotency else body
        self.counts.add(*self._counted(spec, reason), mark_of(spec.app_id, name) if name else None)

    def knock(self, app: App, error: Refused, tokens: int) -> None:
        """Have a place kept for a job that a full queue refused, until its client comes back."""
        if not isinstance(error, QueueFull) or error.reason not in ("depth", "tokens"):
            return
        queue, retry_after_s = error.queue, error.retry_after_s
        if retry_after_s is None or not self._is_knock_due(app.id, queue):
            return
        try:
            self.admission.knock(app.id, queue, tokens, retry_after_s + LATE_S)
        except BrokerUnavailable as unavailable:
            log.warning("knock_not_noted", extra={"queue": queue, "error": str(unavailable)})

    def had_room(self, bid: Bid) -> None:
        """Note a job that was accepted: its app was not told to come too soon."""
        for candidate in bid.candidates:
            self._told.pop((bid.app.id, candidate.queue), None)

    def _vacancy(self, refusal: Refusal, bid: Bid) -> Vacancy | None:
        """Returns the vacancy behind a refusal for lack of room; None if a worker empties one of the queues."""
        if refusal.reason not in ROOM_REASONS:
            return None
        return self.vacancies.find(*(parts_of(candidate.queue)[0] for candidate in bid.candidates))

    def _retry_after_s(self, refusal: Refusal, spec: JobSpec, candidate: Candidate, wait_s: float | None) -> int | None:
        """Seconds until there will likely be a place; None when that is too long for a Retry-After."""
        if refusal.reason == "wait" and wait_s is not None:
            return _retry_after(wait_s - start_within_s(spec, self.forecast.latency_goal(spec)))
        tokens = _tokens_to_drain(refusal, spec.kv_tokens, candidate)
        drained_s = or_unknown(lambda: self.forecast.seconds_to_drain(candidate.queue, tokens))
        retry_after_s = RETRY_BLINDLY_S if drained_s is None else _retry_after(drained_s)
        return retry_after_s and self._longer((spec.app_id, candidate.queue), refusal.reason, retry_after_s)

    def _longer(self, key: tuple[UUID, str], reason: str, retry_after_s: int) -> int:
        """Longer than the last one if that was too short: its app came back in time, and found no room again."""
        if len(self._told) >= REMEMBERED:
            self._told.clear()
        told, now = self._told.setdefault(key, {}), time.monotonic()
        told_s, until = told.get(reason, (0, -math.inf))
        if now < until:
            # Another caller of the app. The one that was told first still has to be judged at `until`.
            return max(retry_after_s, math.ceil(until - now))
        if now < until + LATE_S:
            retry_after_s = min(RETRY_AFTER_LIMIT_S, max(retry_after_s, 2 * told_s))
        told[reason] = (retry_after_s, now + retry_after_s)
        return retry_after_s

    def _counted(self, spec: JobSpec, reason: str) -> tuple[RefusalKey, RefusalCount]:
        queue = wanted_queue(spec.pool, spec.lane, spec.overflow, self.settings.paid_pools)
        tokens, expected_tokens = spec.kv_tokens, self.forecast.expected_tokens(spec)
        count = RefusalCount(1, tokens, tokens if expected_tokens is None else expected_tokens)
        return RefusalKey(spec.app_id, queue, reason), count

    def _is_knock_due(self, app_id: UUID, queue: str) -> bool:
        """True at most once every `KNOCK_EVERY_S` for one app and queue."""
        key, now = (app_id, queue), time.monotonic()
        if now - self._knocked_at.get(key, -math.inf) < KNOCK_EVERY_S:
            return False
        if len(self._knocked_at) >= REMEMBERED:
            self._knocked_at.clear()
        self._knocked_at[key] = now
        return True


def _why(refusal: Refusal, spec: JobSpec, queue: str, wait_s: float | None, goal: LatencyGoal | None) -> str:
    """Why a queue has no place for this job, in one sentence. Args: goal: its pool's, if that binds the job."""
    match refusal.reason:
        case "tokens":
            return (
                f"Queue {queue} is full: {refusal.backlog_tokens} tokens wait, this job may take "
                f"{spec.kv_tokens} more, and the cap is {refusal.cap_tokens} tokens."
            )
        case "wait":
            expected = "longer" if wait_s is None else f"about {wait_s:.0f} s"
            within = f"{start_within_s(spec, goal):.3g} s"
            if goal is not None and goal.start_within_s < start_within_s(spec):
                within += f" to meet its pool's latency goal of {goal.goal_s:.3g} s"
            return f"A job would wait {expected} in queue {queue}, and must start within {within}."
        case "share":
            return (
                f"Queue {queue} is shared: {refusal.depth} jobs wait, and this app has all of the {refusal.cap_jobs} "
                "places that are its own while others want some too."
            )
        case "token_share":
            return (
                f"Queue {queue} is shared: {refusal.backlog_tokens} tokens wait, this job may take {spec.kv_tokens} "
                f"more, and this app may have {refusal.cap_tokens} tokens there while other apps want room too."
            )
        case "app_jobs":
            return f"This app has as many jobs waiting as it may have: {refusal.cap_jobs}."
    return f"Queue {queue} is full: {refusal.depth} jobs wait and its cap is {refusal.cap_jobs}."


def rate_limited(refusal: Refusal, tokens: int, limits: AppLimits) -> AppLimited:
    """Makes the error for an app that has used up its minute; no Retry-After where the job can never fit the limit."""
    if refusal.reason == "requests_per_minute":
        what = f"This app may make {limits.requests_per_minute} requests a minute, and has made them."
    else:
        what = f"This app may use {limits.tokens_per_minute} tokens a minute; this job may take {tokens}."
    fits = refusal.reason == "requests_per_minute" or tokens <= (limits.tokens_per_minute or 0)
    retry_after_s = _retry_after((refusal.retry_in_ms or 0) / 1000) if fits else None
    if not fits:
        what += " It is too large for that limit: shorten the prompt, or ask for fewer tokens."
    message = f"{what} {_advice(retry_after_s)}"
    return AppLimited(message, reason=refusal.reason, retry_after_s=retry_after_s, rates_left=refusal.rates_left)


def delayed_full(queue: str, delayed: int, cap: int) -> QueueFull:
    """Makes the error for a job that starts later, of an app whose delayed jobs would fill the lane by themselves."""
    message = f"{delayed} jobs of this app wait for a later start, and {cap} may: as many as the lane holds."
    return QueueFull(message, queue=queue, reason="delayed", depth=delayed, cap=cap)


def calls_limited(limit: int, missing: float, full_in_s: float) -> AppLimited:
    """Makes the error for an app that has used up its calls of this process.

    Args: limit: calls a minute. missing: calls until the next one. full_in_s: seconds in which an empty bucket fills.
    """
    retry_after_s = max(1, math.ceil(missing / limit * MINUTE_S))
    return AppLimited(
        f"This app may make {limit} calls a minute of this server, and has made them. Retry after {retry_after_s} s.",
        reason="calls_per_minute",
        retry_after_s=retry_after_s,
        rates_left=RatesLeft(calls=RateLeft(limit, 0, full_in_s)),
    )


def requests_limited(limit: int, free_in_ms: float) -> AppLimited:
    """Makes the error for an app that has used up its requests of a minute, before its body is read."""
    retry_after_s = max(1, math.ceil(free_in_ms / 1000))
    return AppLimited(
        f"This app may make {limit} requests a minute, and has made them. Retry after {retry_after_s} s.",
        reason="requests_per_minute",
        retry_after_s=retry_after_s,
        rates_left=RatesLeft(RateLeft(limit, 0)),
    )


def bodies_full(what: str, reason: str) -> BodiesFull:
    """Makes the error for a body for which this process has no memory now. Args: what: who sends how much at once."""
    return BodiesFull(
        f"{what}, and may not send more. Retry after 1 s, with fewer requests at once.", reason=reason, retry_after_s=1
    )


#: By kind: a call that this process holds no further one of.
_SLOTS = {
    "wait": "This server holds as many requests of this app open as it may now.",
    "stream": "This server holds as many requests of this app open as it may now.",
    "file": "This server takes and sends as many files of this app at once as it may now.",
    "usage": "This server reads as much usage at once as it may for this app.",
}


def slots_full(kind: Literal["wait", "stream", "file", "usage"]) -> SlotsFull:
    """Makes the error for a call without a slot of its kind."""
    return SlotsFull(f"{_SLOTS[kind]} Try again.", reason=f"{kind}_slots", retry_after_s=1)


def _tokens_to_drain(refusal: Refusal, kv_tokens: int, candidate: Candidate) -> float:
    """Returns the tokens that must leave the queue before it likely has a place for a job of `kv_tokens`."""
    mean_tokens = refusal.backlog_tokens / refusal.depth if refusal.depth else kv_tokens
    match refusal.reason:
        case "tokens":
            tokens: float = refusal.backlog_tokens + kv_tokens - candidate.backlog_cap_tokens
        case "share":
            # One of the app's own places frees once in a turn of all waiting apps.
            tokens = mean_tokens * candidate.depth_cap / refusal.cap
        case "token_share":
            tokens = kv_tokens * candidate.backlog_cap_tokens / max(1, refusal.cap)
        case _:
            tokens = mean_tokens * (1 + max(0, refusal.depth - candidate.depth_cap))
    # So far `tokens` counts what jobs may take at most. The queue drains what they will likely take.
    return tokens * (refusal.expected_tokens / refusal.backlog_tokens if refusal.backlog_tokens else 1.0)


def start_within_s(spec: JobSpec, goal: LatencyGoal | None = None) -> float:
    """Seconds within which the job must start: its `max_wait`, until a sooner deadline, or to meet the pool's goal."""
    within_s = spec.max_wait_s if goal is None else min(spec.max_wait_s, goal.start_within_s)
    if spec.deadline is None:
        return within_s
    return min(within_s, max(0.0, (spec.deadline - datetime.now(UTC)).total_seconds()))


def or_unknown(ask: Callable[[], float | None]) -> float | None:
    """Returns a forecast; None where a server is down, since no request may fail for a forecast."""
    try:
        return ask()
    except Unavailable:
        return None


def _retry_after(seconds: float) -> int | None:
    """Seconds as a Retry-After; None when clients would not wait that long."""
    whole = max(1, math.ceil(seconds))
    return whole if whole <= RETRY_AFTER_LIMIT_S else None


def _advice(retry_after_s: int | None) -> str:
    """When to retry, in one sentence."""
    return "Do not retry soon." if retry_after_s is None else f"Retry after {retry_after_s} s."


def mark_of(app_id: UUID, name: bytes) -> bytes:
    """What a request is recognised by when it is refused again. Args: name: its Idempotency-Key, or else its body."""
    keyed = blake2b(digest_size=8, key=app_id.bytes, usedforsecurity=False)
    for start in range(0, len(name), HASHED_BYTES):
        keyed.update(name[start : start + HASHED_BYTES])
    return keyed.digest()


class RefusalCounts:
    """Counts for all threads of one process; added to Postgres every few seconds.

    A request that is refused again in the same minute is a repeat, whichever process refused it before. Without Redis
    each process recognises its own repeats alone. The writer starts with the first refusal. A process that dies loses
    the counts of its last few seconds.
    """

    def __init__(self, store: Store, admission: Admission, flush_every_s: float = REFUSALS_EVERY_S) -> None:
        self._store, self._admission = store, admission
        self._flush_every_s = flush_every_s
        self._lock = threading.Lock()
        self._counts: dict[RefusalKey, RefusalCount] = {}
        #: The marks of the requests of this minute, and those among them that are not in `_counts` yet.
        self._minute, self._seen = 0, set[bytes]()
        self._new: dict[bytes, tuple[RefusalKey, RefusalCount]] = {}
        self._stop = threading.Event()
        self._writer: threading.Thread | None = None

    def add(self, key: RefusalKey, count: RefusalCount, mark: bytes | None = None) -> None:
        """Add a refused job. Args: mark: of its request; None if that cannot be recognised."""
        with self._lock:
            minute = int(time.time() // MINUTE_S)
            if minute != self._minute:
                self._minute, self._seen = minute, set(self._new)
            if mark in self._seen:
                self._sum(_repeated(key), count)
            elif mark is None or len(self._seen) >= RECOGNISED:
                self._sum(key, count)
            else:
                self._seen.add(mark)
                self._new[mark] = (key, count)
            if self._writer is None and not self._stop.is_set():
                self._writer = threading.Thread(target=self._write, name="refusals", daemon=True)
                self._writer.start()

    def flush(self) -> None:
        """Write the counts since the last flush. Raises: StoreUnavailable; the counts are then kept."""
        with self._lock:
            new, self._new = self._new, {}
        first = self._first(new)
        with self._lock:
            for mark, (key, count) in new.items():
                self._sum(key if mark in first else _repeated(key), count)
            counts, self._counts = self._counts, {}
        try:
            with self._store.begin() as db:
                observations.add_refusals(db, counts)
        except StoreUnavailable:
            with self._lock:
                for key, count in counts.items():
                    self._sum(key, count)
            raise

    def _first(self, marks: Collection[bytes]) -> Collection[bytes]:
        """Those of these requests that no other process has refused in this minute."""
        try:
            return self._admission.note_refused(marks)
        except BrokerUnavailable as error:
            log.warning("repeats_not_recognised", extra={"error": str(error)})
            return marks

    def _sum(self, key: RefusalKey, count: RefusalCount) -> None:
        self._counts[key] = self._counts.get(key, RefusalCount()) + count

    def close(self) -> None:
        """Stop the writer."""
        self._stop.set()

    def _write(self) -> None:
        while not self._stop.wait(self._flush_every_s):
            try:
                self.flush()
            except StoreUnavailable as error:
                log.warning("refusals_not_written", extra={"error": str(error)})
            except Exception:
                log.exception("refusals_writer_failed")


def _repeated(key: RefusalKey) -> RefusalKey:
    return RefusalKey(key.app_id, key.queue, key.reason, is_repeat=True)
