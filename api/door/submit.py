"""The use case: check a draft, find where its job may go, and let the intake accept it. Knows no HTTP."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from uuid import UUID

from api.door.catalogue import Catalogue
from api.door.choices import Chooser
from api.door.compose import composed
from api.door.confinement import ConfinedApps, Poison, check_room
from api.door.drafts import NOT_SENT, Accepted, BeforeBid, Bid, Draft, Sent, as_inserted, without_place
from api.door.intake import Intake
from api.door.paid import SharedWallet, SpillSwitch
from api.door.refusals import Refusals, delayed_full, or_unknown, start_within_s
from api.door.sharing import Caller, ExactCache
from api.door.specify import specify
from headrace.broker.ending import read
from headrace.broker.forecast import Forecast
from headrace.config import Settings
from headrace.config.rules import AUTO
from headrace.domain.apps import App
from headrace.domain.attempts import Usage
from headrace.domain.fleet import Fleet
from headrace.domain.ids import show_id
from headrace.domain.jobs import Idempotency, Inserted, JobSpec
from headrace.domain.limits import NO_RATES, RatesLeft
from headrace.domain.places import Place, Refusal
from headrace.domain.queues import OVERFLOW, Candidate, Overflow, Route, parts_of, queue_name, wanted_queue
from headrace.domain.states import JobState
from headrace.errors import (
    BudgetExceeded,
    GoalMissed,
    HeadraceError,
    IdempotencyKeyReused,
    InvalidRequest,
    OverflowUnavailable,
    OverflowUnserved,
    PoisonPrompt,
    QueueFull,
    Refused,
)
from headrace.policies.pricing import Tariff
from headrace.policies.routing import Conditions, candidates, route_of
from headrace.store import Store, clock
from headrace.store.jobs import count_delayed
from headrace.store.jobs.insertion import find_replay, insert_batch, key_reused, until_settled

log = logging.getLogger(__name__)

#: Why a quality is refused.
NO_QUALITY = f"A quality is chosen among the pools of a rule: give the model '{AUTO}', or leave 'quality' out."

#: Seconds after which a refused request looks again for a job of its Idempotency-Key: a concurrent request may have
#: made one. Each pause is the time of a commit or two.
LOOK_AGAIN_S = (0.02, 0.1)
#: Why the rules' next choice is tried: a freer pool, or one that can do more or costs less, may take the job.
PASSED_ON = (InvalidRequest, QueueFull, GoalMissed, BudgetExceeded, OverflowUnavailable)
#: The kinds of InvalidRequest that no other pool changes; and another pool's engine may die of a poison prompt, too.
NOT_PASSED_ON = (PoisonPrompt, IdempotencyKeyReused)


@dataclass(frozen=True, slots=True)
class Submitter:
    """Submits drafts. Attributes: tariff: reads the prices in force."""

    settings: Settings
    store: Store
    intake: Intake
    catalogue: Catalogue
    forecast: Forecast
    refusals: Refusals
    tariff: Callable[[], Tariff]
    wallet: SharedWallet
    spill_switch: SpillSwitch
    poison: Poison
    confined: ConfinedApps
    cache: ExactCache
    before_bid: tuple[BeforeBid, ...] = ()

    def submit(self, draft: Draft, app: App, idempotency: Idempotency | None = None, sent: Sent = NOT_SENT) -> Accepted:
        """Accept a draft; returns once it is durable.

        Raises: InvalidRequest and its subclasses. QueueFull. AppLimited. IdempotencyKeyReused. IdempotencyInProgress.
            StoreUnavailable. BrokerUnavailable.
        """
        if idempotency is None:
            return self._submit(draft, app, None, sent)
        return until_settled(lambda: self._replay(app, idempotency) or self._submit(draft, app, idempotency, sent))

    def _submit(self, draft: Draft, app: App, idempotency: Idempotency | None, sent: Sent) -> Accepted:
        if draft.continuation is not None:
            draft = composed(draft, app, self.store, self.settings.body_limit_bytes)
        if draft.model != AUTO:
            if draft.quality is not None:
                raise InvalidRequest(NO_QUALITY, param=f"{draft.spelling.own_prefix}quality")
            return self._submit_as(draft, app, idempotency, sent)
        *others, last = Chooser(self.settings, self.forecast, self.tariff()).choices(draft, app.name)
        full: Draft | None = None
        for choice in others:
            try:
                return self._submit_as(choice, app, idempotency, sent, is_last=False)
            except NOT_PASSED_ON:
                raise
            except PASSED_ON as error:
                full = full or (None if isinstance(error, InvalidRequest) else choice)
        try:
            return self._submit_as(last, app, idempotency, sent)
        except InvalidRequest:
            if full is None:
                raise
        # The last pool can never take this job. A pool that can, once it has room, gives the refusal.
        return self._submit_as(full, app, idempotency, sent)

    def _submit_as(
        self, draft: Draft, app: App, idempotency: Idempotency | None, sent: Sent, *, is_last: bool = True
    ) -> Accepted:
        """Submit a draft with its model. Args: is_last: no other model follows, so a refusal counts."""
        spec = specify(draft, app, self.catalogue, self.settings, idempotency)
        return self.accept(spec, draft, app, sent, is_last=is_last)

    def accept(self, spec: JobSpec, draft: Draft, app: App, sent: Sent = NOT_SENT, *, is_last: bool = True) -> Accepted:
        """Accept a job, now or for later; returns once it is durable.

        Args: draft: what the job was made of. is_last: no other model follows, so a refusal counts.
        Raises: as `submit`.
        """
        self.poison.check(spec)
        if spec.not_before is not None:
            return self._delay(spec, draft, app, sent)
        confinement = self.confined.find(app.id, spec.pool)
        try:
            served = self.cache.serve(spec, Caller(app, draft.cache, sent.id))
            if isinstance(served, Accepted):
                return served
            spec = served
            for before in self.before_bid:
                changed = before(spec, draft, app, sent)
                if isinstance(changed, Accepted):
                    return changed
                spec = changed
            if confinement is not None and spec.overflow is not Overflow.ONLY:
                check_room(confinement)
            bid = self._bid(draft, app, spec, sent)
            outcome = self.intake.accept(bid)
            if isinstance(outcome, Refusal):
                raise self.refusals.error(outcome, bid)
        except Refused as error:
            if not is_last:
                raise
            # Not counted if found: the other request's job counts.
            if spec.idempotency and (found := self._look_again(app, spec.idempotency)):
                return found
            self._note_refused(spec, app, error, sent)
            raise
        finally:
            self.cache.release(spec)
        if isinstance(outcome, Inserted):
            return self._replayed(app, outcome.job_id)
        accepted = self._placed(bid, outcome)
        is_held = confinement is not None and route_of(accepted.queue) is Route.POOL
        return replace(accepted, confined_until=confinement.until) if confinement and is_held else accepted

    def _placed(self, bid: Bid, place: Place) -> Accepted:
        """Note a job that is durable in its place. Returns: what its caller is told."""
        spec, queue, position, ahead_tokens = bid.spec, place.candidate.queue, place.position, place.ahead_tokens
        assert place.start_by is not None
        self.refusals.had_room(bid)
        if route_of(queue) is Route.OVERFLOW:
            self.wallet.let_in(bid.app, self.tariff().ceiling_usd(spec.model, spec.messages, spec.sampling))
        return Accepted(
            job_id=spec.id,
            state=JobState.QUEUED,
            lane=spec.lane,
            queue=queue,
            start_by=place.start_by,
            max_tokens=spec.sampling.max_tokens,
            max_wait_s=spec.max_wait_s,
            position=position,
            depth=place.depth,
            expected_wait_s=or_unknown(
                lambda: self.forecast.expected_wait_s(queue, position, ahead_tokens, place.free)
            ),
            rates_left=place.rates_left,
            cache="miss" if spec.is_cache_miss else None,
            # A job on its own queue may go to the paid API later, if that is a candidate.
            vacancy=self.refusals.vacancies.find(*(parts_of(each.queue)[0] for each in bid.candidates)),
            fresh=partial(as_inserted, spec, place.candidate, place.start_by),
        )

    def _delay(self, spec: JobSpec, draft: Draft, app: App, sent: Sent) -> Accepted:
        """Accept a job that starts later. It waits in Postgres, and has no place in a queue until then.

        Raises: InvalidRequest: no queue will ever take it. AppLimited. QueueFull: those of the app would fill the lane
            by themselves.
        """
        self._check_ever(draft, spec)
        queue = wanted_queue(spec.pool, spec.lane, spec.overflow, self.settings.paid_pools)
        cap = self.settings.lane(spec.lane, spec.pool).depth_cap
        with self.store.autocommit() as db:
            delayed = count_delayed(db, app.id)
        if delayed >= cap:
            raise delayed_full(queue, delayed, cap)
        left = self.cache.use_request(app, spec.kv_tokens)
        reason = f"starts at {spec.not_before:%Y-%m-%dT%H:%M:%SZ}"
        accepted = self._accept_waiting(spec, app, queue, reason, left)
        if not accepted.is_replay:
            log.info(
                "job_delayed",
                extra={"job_id": show_id(spec.id), "app": app.name, "queue": queue, "request_id": sent.id},
            )
        return accepted

    def _accept_waiting(self, spec: JobSpec, app: App, queue: str, reason: str, left: RatesLeft) -> Accepted:
        """Accept a job that waits in Postgres, without a place, until its `not_before`."""
        [outcome] = insert_batch(self.store, [(spec, Candidate(queue, 0, 0, None, reason))])
        if isinstance(outcome, HeadraceError):
            raise outcome
        if outcome.start_by is None:
            return self._replayed(app, outcome.job_id)
        return without_place(spec, JobState.WAITING, queue, outcome.start_by, left)

    def set_aside(self, draft: Draft, app: App, until: datetime, reason: str, sent: Sent) -> Accepted:
        """Accept a job that waits in Postgres, without a place, until a plugin takes it; from `until` on, in its queue.

        The cache serves it, but no other job waits for its answer: that may take long. One that the paid API may not
        answer, or that has a deadline, is submitted as any.
        Args: until: by the database's clock. reason: why it waits. Raises: as `submit`.
        """
        if draft.continuation is not None:
            draft = composed(draft, app, self.store, self.settings.body_limit_bytes)
        spec = specify(draft, app, self.catalogue, self.settings)
        if draft.quality is not None:
            return self._submit(draft, app, None, sent)
        if spec.overflow is Overflow.NEVER or spec.deadline is not None:
            return self.accept(spec, draft, app, sent)
        self.poison.check(spec)
        served = self.cache.serve(spec, Caller(app, draft.cache, sent.id))
        if isinstance(served, Accepted):
            return served
        self.cache.release(served)
        with self.store.autocommit() as db:
            waits_s = (until - clock.now(db)).total_seconds()
        left_s = max(1.0, spec.max_wait_s - waits_s)
        spec = replace(served, cache_key=None, looked_up_by=None, not_before=until, max_wait_s=left_s)
        queue = wanted_queue(spec.pool, spec.lane, spec.overflow, self.settings.paid_pools)
        return self._accept_waiting(spec, app, queue, reason, NO_RATES)

    def _note_refused(self, spec: JobSpec, app: App, refused: Refused, sent: Sent) -> None:
        if not sent.is_kept:
            self.refusals.knock(app, refused, spec.kv_tokens)
            self.refusals.count(spec, refused.reason, sent.body)

    def _bid(self, draft: Draft, app: App, spec: JobSpec, sent: Sent) -> Bid:
        tariff = self.tariff()
        options = self._candidates(draft, spec, tariff, self._conditions(spec, app, tariff))
        if draft.choice_reason:
            options = tuple(replace(each, reason=f"{draft.choice_reason}; {each.reason}") for each in options)
        return Bid(
            job_id=spec.id,
            app_id=app.id,
            tokens=spec.kv_tokens,
            candidates=options,
            limits=app.limits,
            expected_tokens=self.forecast.expected_tokens(spec),
            spec=spec,
            app=app,
            sent=sent,
        )

    def _candidates(self, draft: Draft, spec: JobSpec, tariff: Tariff, now: Conditions) -> tuple[Candidate, ...]:
        try:
            return candidates(spec, partial(self.settings.lane, spec.lane), tariff, now)
        except InvalidRequest as error:
            prefix = "" if error.param == "model" else draft.spelling.own_prefix
            raise InvalidRequest(str(error), param=f"{prefix}{error.param}") from error

    def _check_ever(self, draft: Draft, spec: JobSpec) -> None:
        """Check that a job which starts later may go to a queue at all. Raises: InvalidRequest."""
        # What may be different by then is left out: rooms, budgets, workers and their speed.
        by_then = Conditions(
            ahead_cap_tokens=lambda _: None,
            free_until=lambda _: 0,
            api_is_open=self.settings.openai_api_key is not None,
            has_workers=not self.settings.pools[spec.pool].is_paid,
        )
        self._candidates(draft, spec, self.tariff(), by_then)

    def _look_again(self, app: App, idempotency: Idempotency) -> Accepted | None:
        """The job of a concurrent request with the same key, which may just have taken the last room."""
        for pause_s in LOOK_AGAIN_S:
            time.sleep(pause_s)
            if found := self._replay(app, idempotency):
                return found
        return None

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
        return Accepted(
            job_id=job.id,
            state=job.state,
            lane=job.lane,
            queue=job.queue,
            start_by=job.start_by,
            max_tokens=job.max_tokens,
            max_wait_s=job.max_wait_s,
            is_replay=True,
            cache=job.cache,
        )

    def _conditions(self, spec: JobSpec, app: App, tariff: Tariff) -> Conditions:
        # A key is not enough: without a worker on the overflow queues, a job there would never start.
        fleet, has_workers = self.catalogue.fleet(OVERFLOW), not self.settings.pools[spec.pool].is_paid
        has_key = self.settings.openai_api_key is not None
        api_is_open = has_key and fleet.slots > 0
        needs_it = spec.overflow is Overflow.ONLY or (spec.overflow is Overflow.ALLOW and not has_workers)
        if needs_it and not fleet.slots and (has_key or not has_workers):
            raise self._overflow_unavailable(fleet)
        within_s = paid_within_s = start_within_s(spec)
        if goal := self.forecast.latency_goal(spec):
            # How long the paid API takes is unknown: the wait for it may take all of the goal.
            within_s, paid_within_s = start_within_s(spec, goal), start_within_s(spec, replace(goal, run_s=None))

        def ahead_cap_tokens(queue: str) -> int | None:
            within = paid_within_s if route_of(queue) is Route.OVERFLOW else within_s
            return self.forecast.ahead_cap_tokens(queue, within, by_settings=goal is not None)

        return Conditions(
            ahead_cap_tokens=ahead_cap_tokens,
            free_until=self.forecast.free_until,
            api_is_open=api_is_open,
            has_workers=has_workers,
            lacking=partial(self.wallet.lacking, app),
            spill_reason=self._spill_reason(spec, tariff) if api_is_open else None,
            miss_reason=goal.miss_reason if goal else None,
        )

    def _overflow_unavailable(self, fleet: Fleet) -> OverflowUnavailable:
        """The account is locked out, or the workers are dead: the request is not at fault."""
        if fleet.workers:
            return OverflowUnavailable()
        vacancy = self.refusals.vacancies.next_worker(OVERFLOW)
        return OverflowUnserved(str(vacancy), retry_after_s=vacancy.retry_after_s)

    def _spill_reason(self, spec: JobSpec, tariff: Tariff) -> str | None:
        tokens = self.forecast.expected_tokens(spec)
        expected = Usage(spec.prompt_tokens, (spec.kv_tokens if tokens is None else tokens) - spec.prompt_tokens)
        is_cheaper = tariff.api_is_cheaper(spec.pool, spec.model, expected)
        return self.spill_switch.spill_reason(queue_name(spec.pool, spec.lane), is_cheaper=is_cheaper)
