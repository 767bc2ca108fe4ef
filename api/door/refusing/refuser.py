"""The refuser: tells a job that found no place why, and when to come back; counts it, and has a place kept for it.

Knows no HTTP.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from api.door.complaints import advice, complaint, rate_limited, start_within_s, whole
from api.door.drafts import Draft
from api.door.intake import ALIKE_FOR_ALL, Bid, Intake
from api.door.refusals import Refusals
from api.door.refusing.early_refusals import EarlyRefusals, Examined, Looks
from api.door.sharing.exact_cache import ExactCache
from headrace.broker.forecast import Forecast
from headrace.config import Settings
from headrace.domain.apps import App
from headrace.domain.fleet import RefusedDemand
from headrace.domain.jobs import JobSpec
from headrace.domain.places import Refusal
from headrace.domain.queues import Candidate, Overflow, wanted_queue
from headrace.errors import BrokerUnavailable, QueueFull, Refused, Unavailable

log = logging.getLogger(__name__)

#: How much later than its Retry-After a client may retry and still find its place kept, in seconds.
LATE_S = 5
#: The Retry-After, in seconds, where the queue's drain rate is unknown.
RETRY_BLINDLY_S = 5


@dataclass(frozen=True, slots=True)
class Refuser:
    """Refuses jobs. Attributes: early: refuses the next ones before they are examined."""

    settings: Settings
    intake: Intake
    forecast: Forecast
    refusals: Refusals
    cache: ExactCache
    early: EarlyRefusals

    def refusal(self, outcome: Refusal, bid: Bid, draft: Draft, app: App) -> Refused:
        """The error for a job that got no place."""
        spec, candidate = bid.spec, bid.ask.candidates[0]
        if outcome.reason in ("requests_per_minute", "tokens_per_minute"):
            return rate_limited(outcome, spec.kv_tokens, app.limits)
        queue, goal = candidate.queue, self.forecast.latency_goal(spec)
        position, ahead_tokens = outcome.depth + 1, outcome.expected_tokens
        wait_s = or_unknown(lambda: self.forecast.expected_wait_s(queue, position, ahead_tokens, outcome.free))
        retry_after_s = self._retry_after_s(outcome, spec, candidate, wait_s)
        refused = QueueFull(
            f"{complaint(outcome, spec, queue, wait_s, goal)} {advice(retry_after_s)}",
            queue=queue,
            reason=outcome.reason,
            depth=outcome.waiting,
            cap=outcome.cap,
            unit=outcome.unit,
            expected_wait_s=wait_s,
            retry_after_s=retry_after_s,
            rates_left=outcome.rates_left,
        )
        self._remember(refused, bid, draft, app)
        return refused

    def count(self, spec: JobSpec, reason: str) -> None:
        """Count a refused job."""
        queue, demand = self._wanted(spec)
        self.refusals.count(spec.app_id, queue, reason, demand.tokens, demand.expected_tokens)

    def knock(self, app: App, refused: Refused, tokens: int) -> None:
        """Have a place kept for a job that a full queue refused, until its client comes back."""
        if not isinstance(refused, QueueFull) or refused.reason not in ("depth", "tokens"):
            return
        queue, retry_after_s = refused.queue, refused.retry_after_s
        if retry_after_s is None or not self.intake.full.is_knock_due(app.id, queue):
            return
        try:
            self.intake.admission.knock(app.id, queue, tokens, retry_after_s + LATE_S)
        except BrokerUnavailable as error:
            log.warning("knock_not_noted", extra={"queue": queue, "error": str(error)})

    def had_room(self, draft: Draft, app: App) -> None:
        """Refuse no more jobs early that look like this one, which was accepted."""
        self.early.forget(_looks(draft, app))

    def _remember(self, refused: QueueFull, bid: Bid, draft: Draft, app: App) -> None:
        """Refuse jobs that look like this one early, if each of them would be refused likewise."""
        if refused.reason not in ALIKE_FOR_ALL or not refused.depth:
            return
        # Any other job could find room at the paid API, or an answer in the cache.
        has_one_queue = draft.overflow is Overflow.NEVER or self.settings.openai_api_key is None
        is_own_choice = draft.rule is None and not draft.is_embedding
        asked_at = self.intake.asked_at(bid.ask)
        if has_one_queue and is_own_choice and asked_at is not None and not self.cache.may_serve(app, bid.spec.pool):
            self.early.remember(_looks(draft, app), Examined(refused, *self._wanted(bid.spec)), asked_at)

    def _wanted(self, spec: JobSpec) -> tuple[str, RefusedDemand]:
        """The queue whose demand a refused job is, and how much it is."""
        queue = wanted_queue(spec.pool, spec.lane, spec.overflow, self.settings.paid_pools)
        expected_tokens = self.forecast.expected_tokens(spec)
        return queue, RefusedDemand(1, spec.kv_tokens, spec.kv_tokens if expected_tokens is None else expected_tokens)

    def _retry_after_s(self, refusal: Refusal, spec: JobSpec, candidate: Candidate, wait_s: float | None) -> int | None:
        """Seconds until there will likely be a place; None when that is too long for a Retry-After."""
        mean_tokens = refusal.backlog_tokens / refusal.depth if refusal.depth else spec.kv_tokens
        match refusal.reason:
            case "wait" if wait_s is not None:
                return whole(wait_s - start_within_s(spec, self.forecast.latency_goal(spec)))
            case "tokens":
                tokens: float = refusal.backlog_tokens + spec.kv_tokens - candidate.backlog_cap_tokens
            case "share":
                # One of the app's own places frees once in a turn of all waiting apps.
                tokens = mean_tokens * candidate.depth_cap / refusal.cap
            case "token_share":
                tokens = spec.kv_tokens * candidate.backlog_cap_tokens / max(1, refusal.cap)
            case _:
                tokens = mean_tokens * (1 + max(0, refusal.depth - candidate.depth_cap))
        # So far `tokens` counts what jobs may take at most. The queue drains what they will likely take.
        tokens *= refusal.expected_tokens / refusal.backlog_tokens if refusal.backlog_tokens else 1.0
        drained_s = or_unknown(lambda: self.forecast.seconds_to_drain(candidate.queue, tokens))
        return RETRY_BLINDLY_S if drained_s is None else whole(drained_s)


def or_unknown(ask: Callable[[], float | None]) -> float | None:
    """A forecast; None where a server is down, since no request may fail for a forecast."""
    try:
        return ask()
    except Unavailable:
        return None


def _looks(draft: Draft, app: App) -> Looks:
    return Looks(app.id, draft.model, draft.lane, draft.overflow)
