"""Answers that a job shares with identical jobs, without a place in a queue: stored ones, and those under way.

While both are off for an app and a pool, no key is computed and no server asked. Knows no HTTP.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from uuid import UUID

from api.door.drafts import Accepted, without_place
from api.door.refusals import rate_limited
from headrace.batching import Batching
from headrace.broker.admission import Admission
from headrace.broker.rates import AppRates
from headrace.broker.reuse import Flights
from headrace.config import Settings
from headrace.domain.apps import App
from headrace.domain.ids import show_id
from headrace.domain.jobs import JobSpec
from headrace.domain.limits import NO_RATES, RatesLeft
from headrace.domain.places import Refusal
from headrace.domain.prompts import CacheChoice
from headrace.domain.queues import wanted_queue
from headrace.domain.states import JobState
from headrace.errors import BrokerUnavailable
from headrace.policies import caching
from headrace.store import Store
from headrace.store.cache import exact_cache
from headrace.store.cache.exact_cache import Follower, Found, Hit, Question

log = logging.getLogger(__name__)

#: Jobs in one search, and in one insert of jobs that are served or follow.
BATCH = 64

#: When such a job would have had to start; None if it was not served, or does not follow.
_StartBy = datetime | None


#: How long a job waits for an identical one that is about to be inserted, and the pause between two looks, in seconds.
PATIENCE_S = 1.0
LOOK_AGAIN_S = 0.02


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
        self, settings: Settings, store: Store, rates: AppRates, admission: Admission, flights: Flights
    ) -> None:
        self._settings, self._store, self._rates, self._admission = settings, store, rates, admission
        self._flights = flights
        self._searches = Batching[Question, Found](self._search, BATCH)
        self._hits = Batching[Hit, _StartBy](self._insert_hits, BATCH)
        self._followers = Batching[Follower, _StartBy](self._insert_followers, BATCH)

    def serve(self, spec: JobSpec, caller: Caller) -> Accepted | JobSpec:
        """Serve a job if the cache has its answer, or let it follow; otherwise return it as it is to be inserted.

        A job that is served, or follows, counts as one request of its app's rate, without tokens.
        Raises: AppLimited. StoreUnavailable. BrokerUnavailable: Redis is needed, and does not answer.
        """
        pool = self._settings.pools[spec.pool]
        if not caching.may_serve(caller.app, pool) or not caching.is_shared(caller.choice, spec.sampling, pool):
            return spec
        cascade = caching.judged_by(spec, self._settings.rules.get(spec.rule or ""))
        key = caching.key_of(spec, pool, self._settings, cascade=cascade)
        # An answer by meaning would be given without a judgement.
        looked_up_by = None if cascade else caching.looked_up_by(spec, caller.app, pool, caller.choice)
        missed = replace(spec, cache_key=key, is_cache_miss=True, looked_up_by=looked_up_by)
        keep_s = caching.keep_s(caller.app, pool)
        question = Question(missed, keep_s, datetime.now(UTC), may_follow=pool.single_flight)
        give_up_at = time.monotonic() + PATIENCE_S
        while (outcome := self._outcome(question, caller)) is None and time.monotonic() < give_up_at:
            time.sleep(LOOK_AGAIN_S)
        return outcome or missed

    def release(self, spec: JobSpec) -> None:
        """The job is durable, and can be followed, or was refused, and another may lead."""
        if spec.cache_key is None or not self._settings.pools[spec.pool].single_flight:
            return
        try:
            self._flights.release(spec.cache_key, spec.id)
        except BrokerUnavailable as error:
            # The choice of a leader expires by itself.
            log.warning("flight_not_released", extra={"job_id": show_id(spec.id), "error": str(error)})

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
        assert missed.cache_key is not None
        if not self._flights.lead(missed.cache_key, missed.id):
            return None
        again = self._searches.call(question)
        if again.job_id is None and again.leader_id is None:
            return missed
        # Another job's insert became durable between the search and the choice.
        self.release(missed)
        return None

    def _following(self, spec: JobSpec, leader_id: UUID, caller: Caller) -> Accepted | None:
        """Let the job follow; None if the leader has ended meanwhile."""
        left, queue = self.use_request(caller.app), self._queue(spec)
        start_by = self._followers.call(Follower(spec, leader_id, queue))
        if start_by is None:
            self._return_request(caller.app)
            return None
        log.info("job_follows", extra={**_facts(spec, queue, caller), "leader": show_id(leader_id)})
        return without_place(spec, JobState.WAITING, queue, start_by, left, "shared")

    def _queue(self, spec: JobSpec) -> str:
        return wanted_queue(spec.pool, spec.lane, spec.overflow, self._settings.paid_pools)

    def _served(self, question: Question, job_id: UUID, caller: Caller) -> Accepted | None:
        """Serve the job; None if the answer has gone meanwhile."""
        spec = question.spec
        left, queue = self.use_request(caller.app), self._queue(spec)
        start_by = self._hits.call(Hit(question, job_id, queue))
        if start_by is None:
            self._return_request(caller.app)
            return None
        log.info("job_served", extra={**_facts(spec, queue, caller), "served_by": show_id(job_id)})
        if spec.webhook_url is not None:
            self._ring()
        return without_place(spec, JobState.SUCCEEDED, queue, start_by, left, "hit")

    def use_request(self, app: App, tokens: int = 0) -> RatesLeft:
        """Count one request of the app's rates, of a job that takes no place.

        Args: tokens: the most that its own attempt can use; 0 for a job without one.
        Raises: AppLimited. BrokerUnavailable.
        """
        if app.limits.requests_per_minute is None and (not tokens or app.limits.tokens_per_minute is None):
            return NO_RATES
        outcome = self._rates.use_request(app.id, app.limits, tokens)
        if isinstance(outcome, Refusal):
            raise rate_limited(outcome, tokens, app.limits)
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
        found = exact_cache.search(self._store, questions)
        return [found.get(question.spec.id) or Found() for question in questions]

    def _insert_hits(self, hits: Sequence[Hit]) -> list[_StartBy]:
        served = exact_cache.serve(self._store, hits)
        return [served.get(hit.question.spec.id) for hit in hits]

    def _insert_followers(self, new: Sequence[Follower]) -> list[_StartBy]:
        inserted = exact_cache.follow(self._store, new)
        return [inserted.get(follower.spec.id) for follower in new]


def _facts(spec: JobSpec, queue: str, caller: Caller) -> dict[str, str]:
    """The log's fields."""
    return {"job_id": show_id(spec.id), "app": caller.app.name, "queue": queue, "request_id": caller.request_id}
