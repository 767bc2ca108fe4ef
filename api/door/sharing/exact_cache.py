"""The exact cache at the door: a job is given an identical job's answer, and ends at once, without a place in a queue.

With single flight, a job also shares the answer of an identical job that is under way. While both are off for an app
and a pool, it computes no key and asks no server. Knows no HTTP.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from uuid import UUID

from api.door.accepted import Accepted
from api.door.refusals import rate_limited
from api.door.sharing.single_flight import SingleFlight
from headrace.batching import Batching
from headrace.broker.admission import Admission
from headrace.broker.app_rates import AppRates
from headrace.config import Settings
from headrace.domain.apps import App
from headrace.domain.ids import show_id
from headrace.domain.jobs import JobSpec
from headrace.domain.limits.rates import NO_RATES, RatesLeft
from headrace.domain.places import Refusal
from headrace.domain.prompts import CacheChoice
from headrace.domain.queues import wanted_queue
from headrace.domain.states import JobState
from headrace.errors import BrokerUnavailable
from headrace.policies.caching import exact, semantic
from headrace.store import Store
from headrace.store.jobs import cached_answers
from headrace.store.jobs.cached_answers import Found, Hit, Question
from headrace.store.jobs.followers import Follower

log = logging.getLogger(__name__)

#: Jobs in one search, and in one insert of jobs that are served.
BATCH = 64
#: How long a job waits for an identical one that is about to be inserted, and the pause between two looks, in seconds.
PATIENCE_S = 1.0
LOOK_AGAIN_S = 0.02

#: When the served job would have had to start; None if it was not served.
_StartBy = datetime | None


@dataclass(frozen=True, slots=True)
class Caller:
    """Who submits a job.

    Attributes:
        choice: what the request says of the cache.
        request_id: of the HTTP request, for the log.
    """

    app: App
    choice: CacheChoice | None = None
    request_id: str = ""


class ExactCache:
    """Serves jobs for all threads of one process. Concurrent jobs share a search, and an insert with its commit."""

    def __init__(
        self, settings: Settings, store: Store, rates: AppRates, admission: Admission, flight: SingleFlight
    ) -> None:
        self._settings, self._store, self._rates, self._admission = settings, store, rates, admission
        self._flight = flight
        self._searches = Batching[Question, Found](self._search, BATCH)
        self._inserts = Batching[Hit, _StartBy](self._insert, BATCH)

    def serve(self, spec: JobSpec, caller: Caller) -> Accepted | JobSpec:
        """Serve a job if the cache has its answer, or let it follow; otherwise return it as it is to be inserted.

        A job that is served, or follows, counts as one request of its app's rate, without tokens.
        Raises: AppLimited. StoreUnavailable. BrokerUnavailable: Redis is needed, and does not answer.
        """
        pool = self._settings.pools[spec.pool]
        if not exact.may_serve(caller.app, pool) or not exact.is_shared(caller.choice, spec.sampling, pool):
            return spec
        cascade = exact.judged_by(spec, self._settings.rules.get(spec.rule or ""))
        key = exact.key_of(spec, pool, self._settings, cascade=cascade)
        # An answer by meaning would be given without a judgement.
        looked_up_by = None if cascade else semantic.looked_up_by(spec, caller.app, pool, caller.choice)
        missed = replace(spec, cache_key=key, is_cache_miss=True, looked_up_by=looked_up_by)
        keep_s = exact.keep_s(caller.app, pool)
        question = Question(missed, keep_s, datetime.now(UTC), may_follow=pool.single_flight)
        give_up_at = time.monotonic() + PATIENCE_S
        while (outcome := self._outcome(question, caller)) is None and time.monotonic() < give_up_at:
            time.sleep(LOOK_AGAIN_S)
        return outcome or missed

    def release(self, spec: JobSpec) -> None:
        """The job is durable, and can be followed, or was refused, and another may lead."""
        if spec.cache_key is not None and self._settings.pools[spec.pool].single_flight:
            self._flight.release(spec)

    def _outcome(self, question: Question, caller: Caller) -> Accepted | JobSpec | None:
        """What becomes of a job now; None while an identical one is about to be inserted."""
        missed, found = question.spec, self._searches.call(question)
        if found.job_id is not None:
            if served := self._served(question, found.job_id, caller):
                return served
            if missed.idempotency:
                # Its Idempotency-Key is taken, which its insert will say, or the answer has gone.
                return replace(missed, cache_key=None)
        if found.leader_id is not None:
            following = self._following(missed, found.leader_id, caller)
            # It cannot follow: its Idempotency-Key is taken, which its insert will say, or the leader has ended.
            return following or (replace(missed, cache_key=None) if missed.idempotency else None)
        if not question.may_follow:
            # The answer of the job under way will serve. One key for each keeps searches short.
            return replace(missed, cache_key=None) if found.is_pending else missed
        if not self._flight.leads(missed):
            return None
        again = self._searches.call(question)
        if again.job_id is None and again.leader_id is None:
            return missed
        # Another job's insert became durable between the search and the choice.
        self._flight.release(missed)
        return None

    def _following(self, spec: JobSpec, leader_id: UUID, caller: Caller) -> Accepted | None:
        """Let the job follow; None if the leader has ended meanwhile."""
        left, queue = self._use_request(caller.app), self._queue(spec)
        start_by = self._flight.follow(Follower(spec, leader_id, queue))
        if start_by is None:
            self._return_request(caller.app)
            return None
        log.info("job_follows", extra={**_facts(spec, queue, caller), "leader": show_id(leader_id)})
        return _accepted(spec, JobState.WAITING, queue, start_by, left)

    def _queue(self, spec: JobSpec) -> str:
        return wanted_queue(spec.pool, spec.lane, spec.overflow, self._settings.paid_pools)

    def _served(self, question: Question, job_id: UUID, caller: Caller) -> Accepted | None:
        """Serve the job; None if the answer has gone meanwhile."""
        spec = question.spec
        left, queue = self._use_request(caller.app), self._queue(spec)
        start_by = self._inserts.call(Hit(question, job_id, queue))
        if start_by is None:
            self._return_request(caller.app)
            return None
        log.info("job_served", extra={**_facts(spec, queue, caller), "served_by": show_id(job_id)})
        if spec.webhook_url is not None:
            self._ring()
        return _accepted(spec, JobState.SUCCEEDED, queue, start_by, left)

    def _use_request(self, app: App) -> RatesLeft:
        """Count one request of the app's rate. Raises: AppLimited. BrokerUnavailable."""
        if app.limits.requests_per_minute is None:
            return NO_RATES
        outcome = self._rates.use_request(app.id, app.limits)
        if isinstance(outcome, Refusal):
            raise rate_limited(outcome, 0, app.limits)
        return outcome

    def _return_request(self, app: App) -> None:
        """Give back the request of a job that goes on to ask for a place, which counts it."""
        if app.limits.requests_per_minute is None:
            return
        try:
            self._rates.return_request(app.id, app.limits)
        except BrokerUnavailable as error:
            log.warning("request_not_returned", extra={"error": str(error)})

    def _ring(self) -> None:
        """Wake the webhook workers, which look by themselves once a second."""
        try:
            self._admission.announce_ended((), has_webhooks=True)
        except BrokerUnavailable as error:
            log.warning("webhooks_not_woken", extra={"error": str(error)})

    def _search(self, questions: Sequence[Question]) -> list[Found]:
        found = cached_answers.search(self._store, questions)
        return [found.get(question.spec.id) or Found() for question in questions]

    def _insert(self, hits: Sequence[Hit]) -> list[_StartBy]:
        served = cached_answers.serve(self._store, hits)
        return [served.get(hit.question.spec.id) for hit in hits]


def _facts(spec: JobSpec, queue: str, caller: Caller) -> dict[str, str]:
    """The log's fields."""
    return {"job_id": show_id(spec.id), "app": caller.app.name, "queue": queue, "request_id": caller.request_id}


def _accepted(spec: JobSpec, state: JobState, queue: str, start_by: datetime, left: RatesLeft) -> Accepted:
    return Accepted(
        job_id=spec.id,
        state=state,
        lane=spec.lane,
        queue=queue,
        start_by=start_by,
        max_tokens=spec.sampling.max_tokens,
        max_wait_s=spec.max_wait_s,
        rates_left=left,
        cache="hit" if state is JobState.SUCCEEDED else "shared",
    )
