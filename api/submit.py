"""The use case: check a draft, find where its job may go, and let the intake accept it. Knows no HTTP."""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from api.catalogue import Catalogue
from api.drafts import Draft, specify
from api.ending import read
from api.forecast import Forecast
from api.intake import Admitted, Intake, Replayed
from api.money import Money
from api.poison import Poison
from api.refusals import Refusals
from api.relief import Relief
from headrace.admission import Ask, Refusal
from headrace.config import Settings
from headrace.errors import (
    AppLimited,
    BrokerUnavailable,
    BudgetExceeded,
    InvalidRequest,
    OverflowUnavailable,
    QueueFull,
    Refused,
    Unavailable,
)
from headrace.jobs import Idempotency, JobSpec, JobState, Lane, Overflow, Route
from headrace.limits import RatesLeft
from headrace.pricing import Tariff
from headrace.queues import OVERFLOW, Candidate, queue_name
from headrace.routing import candidates, route_of
from headrace.store import Store
from headrace.store.apps import App, AppLimits
from headrace.store.idempotency import find_replay, key_reused, until_settled

log = logging.getLogger(__name__)

#: Clients that should retry honour no Retry-After above this. Source: the openai SDK.
RETRY_AFTER_LIMIT_S = 120
#: How much later than its Retry-After a client may come back and still find its place kept, in seconds.
LATE_S = 5
#: Seconds after which to come back where nobody knows how fast the queue drains.
RETRY_BLINDLY_S = 5
#: Reasons whose bound is in tokens.
OF_TOKENS = frozenset({"tokens", "token_share", "wait"})
#: Pauses before a refused request with an Idempotency-Key looks whether its twin was accepted: a commit's time or two.
LOOK_AGAIN_S = (0.02, 0.1)


@dataclass(frozen=True, slots=True)
class Accepted:
    """What the caller is told.

    Attributes:
        max_tokens, max_wait_s: as asked for, or as chosen where the caller left them out.
        position: counts from 1, within the lane; None for a replay, whose place is not looked up again.
        depth: jobs in the queue with this one; None likewise.
        expected_wait_s: until its start; None when nobody can tell, or for a replay.
        rates_left: of the app's own limits; None for a replay, which uses nothing up.
        is_replay: True when the Idempotency-Key had made this job before.
    """

    job_id: UUID
    state: JobState
    lane: Lane
    queue: str
    start_by: datetime
    max_tokens: int
    max_wait_s: float
    position: int | None = None
    depth: int | None = None
    expected_wait_s: float | None = None
    rates_left: RatesLeft | None = None
    is_replay: bool = False


@dataclass(frozen=True, slots=True)
class Submitter:
    """Submits drafts."""

    settings: Settings
    store: Store
    intake: Intake
    catalogue: Catalogue
    forecast: Forecast
    refusals: Refusals
    tariff: Tariff
    money: Money
    relief: Relief
    poison: Poison

    def submit(self, draft: Draft, app: App, idempotency: Idempotency | None = None) -> Accepted:
        """Accept a draft; returns once it is durable.

        Raises: InvalidRequest and its kin. QueueFull. AppLimited. IdempotencyKeyReused. IdempotencyInProgress.
            StoreUnavailable. BrokerUnavailable.
        """
        if idempotency is None:
            return self._submit(draft, app, None)
        return until_settled(lambda: self._replay(app, idempotency) or self._submit_keyed(draft, app, idempotency))

    def _submit_keyed(self, draft: Draft, app: App, idempotency: Idempotency) -> Accepted:
        try:
            return self._submit(draft, app, idempotency)
        except Refused:
            # Perhaps there was no room because the job that this key will stand for has just taken it.
            for pause_s in LOOK_AGAIN_S:
                time.sleep(pause_s)
                if found := self._replay(app, idempotency):
                    return found
            raise

    def _submit(self, draft: Draft, app: App, idempotency: Idempotency | None) -> Accepted:
        spec = specify(draft, app, self.catalogue, self.settings, idempotency)
        self.poison.check(spec)
        options = self._candidates(spec, app, draft)
        try:
            expected = self.forecast.expected_tokens(spec)
            outcome = self.intake.accept(spec, Ask(spec.id, app.id, spec.kv_tokens, options, app.limits, expected))
            if isinstance(outcome, Refusal):
                raise self._refused(outcome, spec, app, options)
        except (QueueFull, AppLimited) as error:
            self.refusals.count(spec.app_id, options[0].queue, error.reason, spec.kv_tokens)
            raise
        if isinstance(outcome, Replayed):
            return self._replayed(app, outcome.job_id)
        if route_of(outcome.place.candidate.queue) is Route.OVERFLOW:
            self.money.let_in(app, self.tariff.ceiling_usd(spec.model, spec.messages, spec.sampling))
        return self._accepted(spec, outcome)

    def _replay(self, app: App, idempotency: Idempotency) -> Accepted | None:
        with self.store.begin() as db:
            found = find_replay(db, app.id, idempotency.key)
        if found is None:
            return None
        job_id, request_hash = found
        if request_hash != idempotency.request_hash:
            raise key_reused()
        return self._replayed(app, job_id)

    def _replayed(self, app: App, job_id: UUID) -> Accepted:
        job = read(self.store, self.intake.admission, app.id, job_id)
        where = job.id, job.state, job.lane, job.queue, job.start_by
        return Accepted(*where, job.max_tokens, job.max_wait_s, is_replay=True)

    def _candidates(self, spec: JobSpec, app: App, draft: Draft) -> tuple[Candidate, ...]:
        # A key alone answers nothing: without a worker on those queues, what was put there would rot.
        fleet, has_workers = self.catalogue.fleet(OVERFLOW), spec.pool not in self.settings.paid_pools
        has_key = self.settings.openai_api_key is not None
        api_is_open = has_key and fleet.slots > 0
        needs_it = spec.overflow is Overflow.ONLY or (spec.overflow is Overflow.ALLOW and not has_workers)
        if needs_it and not fleet.slots and (has_key or not has_workers):
            # Locked out, or dead and about to be started again: no fault of the request's.
            raise OverflowUnavailable
        try:
            return candidates(
                spec,
                self.settings.lane(spec.lane),
                self.tariff,
                ahead_cap_tokens=lambda queue: self.forecast.ahead_cap_tokens(queue, _start_within_s(spec)),
                free_until=self.forecast.free_until,
                api_is_open=api_is_open,
                has_workers=has_workers,
                lacking=lambda usd: self.money.lacking(app, usd),
                relief=self.relief.why(queue_name(spec.pool, spec.lane)) if api_is_open else None,
            )
        except BudgetExceeded as error:
            self.refusals.count(app.id, queue_name(OVERFLOW, spec.lane), error.reason, spec.kv_tokens)
            raise
        except InvalidRequest as error:
            raise InvalidRequest(str(error), param=f"{draft.spelling.own_prefix}{error.param}") from error

    def _refused(self, refusal: Refusal, spec: JobSpec, app: App, options: tuple[Candidate, ...]) -> Refused:
        if refusal.reason in ("requests_per_minute", "tokens_per_minute"):
            return _rate_limited(refusal, spec.kv_tokens, app.limits)
        queue = options[0].queue
        position, ahead_tokens = refusal.depth + 1, refusal.expected_tokens
        wait_s = self._or_unknown(lambda: self.forecast.expected_wait_s(queue, position, ahead_tokens, refusal.free))
        retry_after_s = self._retry_after_s(refusal, spec, options[0], wait_s)
        if refusal.reason in ("depth", "tokens") and retry_after_s is not None:
            self._knock(app, queue, spec.kv_tokens, retry_after_s)
        is_of_tokens = refusal.reason in OF_TOKENS
        return QueueFull(
            f"{_complaint(refusal, spec, queue, wait_s)} {_advice(retry_after_s)}",
            queue=queue,
            reason=refusal.reason,
            depth=refusal.backlog_tokens if is_of_tokens else refusal.depth,
            cap=refusal.number,
            unit="tokens" if is_of_tokens else "jobs",
            expected_wait_s=wait_s,
            retry_after_s=retry_after_s,
            rates_left=refusal.rates_left,
        )

    def _knock(self, app: App, queue: str, tokens: int, retry_after_s: int) -> None:
        if not self.intake.full.is_knock_due(app.id, queue):
            return
        try:
            self.intake.admission.knock(app.id, queue, tokens, retry_after_s + LATE_S)
        except BrokerUnavailable as error:
            log.warning("knock_not_noted", extra={"queue": queue, "error": str(error)})

    def _retry_after_s(self, refusal: Refusal, spec: JobSpec, candidate: Candidate, wait_s: float | None) -> int | None:
        """When there will likely be a place; None when that is too far away to come back for."""
        mean_tokens = refusal.backlog_tokens / refusal.depth if refusal.depth else spec.kv_tokens
        match refusal.reason:
            case "wait" if wait_s is not None:
                return _whole(wait_s - _start_within_s(spec))
            case "tokens":
                tokens: float = refusal.backlog_tokens + spec.kv_tokens - candidate.backlog_cap_tokens
            case "share":
                # A place of its own frees once in a turn of all apps that wait.
                tokens = mean_tokens * candidate.depth_cap / refusal.number
            case "token_share":
                tokens = spec.kv_tokens * candidate.backlog_cap_tokens / max(1, refusal.number)
            case _:
                tokens = mean_tokens * (1 + max(0, refusal.depth - candidate.depth_cap))
        # Those were what jobs may take. The queue drains what they will likely take.
        tokens *= refusal.expected_tokens / refusal.backlog_tokens if refusal.backlog_tokens else 1.0
        drained_s = self._or_unknown(lambda: self.forecast.seconds_to_drain(candidate.queue, tokens))
        return RETRY_BLINDLY_S if drained_s is None else _whole(drained_s)

    def _accepted(self, spec: JobSpec, admitted: Admitted) -> Accepted:
        place = admitted.place
        queue, position, ahead_tokens = place.candidate.queue, place.position, place.ahead_tokens
        return Accepted(
            spec.id,
            JobState.QUEUED,
            spec.lane,
            queue,
            admitted.start_by,
            spec.sampling.max_tokens,
            spec.max_wait_s,
            position,
            place.depth,
            self._or_unknown(lambda: self.forecast.expected_wait_s(queue, position, ahead_tokens, place.free)),
            place.rates_left,
        )

    def _or_unknown(self, ask: Callable[[], float | None]) -> float | None:
        """A forecast, which nobody's request fails for."""
        try:
            return ask()
        except Unavailable:
            return None


def _rate_limited(refusal: Refusal, tokens: int, limits: AppLimits) -> AppLimited:
    if refusal.reason == "requests_per_minute":
        what = f"This app may make {limits.requests_per_minute} requests a minute, and has made them."
    else:
        what = f"This app may use {limits.tokens_per_minute} tokens a minute; this job may take {tokens}."
    fits = refusal.reason == "requests_per_minute" or tokens <= (limits.tokens_per_minute or 0)
    retry_after_s = _whole(refusal.number / 1000) if fits else None
    if not fits:
        what += " It is too large for that limit: shorten the prompt, or ask for fewer tokens."
    rates_left = refusal.rates_left
    message = f"{what} {_advice(retry_after_s)}"
    return AppLimited(message, reason=refusal.reason, retry_after_s=retry_after_s, rates_left=rates_left)


def _complaint(refusal: Refusal, spec: JobSpec, queue: str, wait_s: float | None) -> str:
    match refusal.reason:
        case "tokens":
            return (
                f"Queue {queue} is full: {refusal.backlog_tokens} tokens wait, this job may take "
                f"{spec.kv_tokens} more, and the cap is {refusal.number} tokens."
            )
        case "wait":
            expected = "longer" if wait_s is None else f"about {wait_s:.0f} s"
            return f"A job would wait {expected} in queue {queue}, and must start within {_start_within_s(spec):.3g} s."
        case "share":
            return (
                f"Queue {queue} is shared: {refusal.depth} jobs wait, and this app has all of the {refusal.number} "
                "places that are its own while others want some too."
            )
        case "token_share":
            return (
                f"Queue {queue} is shared: {refusal.backlog_tokens} tokens wait, this job may take {spec.kv_tokens} "
                f"more, and this app may have {refusal.number} tokens there while other apps want room too."
            )
        case "app_jobs":
            return f"This app has as many jobs waiting as it may have: {refusal.number}."
    return f"Queue {queue} is full: {refusal.depth} jobs wait and its cap is {refusal.number}."


def _start_within_s(spec: JobSpec) -> float:
    """What binds its start: its `max_wait`, or a deadline that is sooner."""
    if spec.deadline is None:
        return spec.max_wait_s
    return min(spec.max_wait_s, max(0.0, (spec.deadline - datetime.now(UTC)).total_seconds()))


def _advice(retry_after_s: int | None) -> str:
    return "Do not retry soon." if retry_after_s is None else f"Retry after {retry_after_s} s."


def _whole(seconds: float) -> int | None:
    """Seconds for a Retry-After, or None when a client would not wait that long."""
    whole = max(1, math.ceil(seconds))
    return whole if whole <= RETRY_AFTER_LIMIT_S else None
