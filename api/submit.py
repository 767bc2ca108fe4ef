"""The use case: take a place, make the job durable, put its message into the queue. Knows no HTTP.

A place is taken before Postgres is asked, so that a refusal costs Postgres nothing; whatever fails after that gives
the place back or is repaired by a sweep.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from api.catalogue import Catalogue
from api.drafts import Draft, specify
from api.forecast import Forecast
from api.refusals import Refusals
from headrace.admission import Admission, Place
from headrace.config import Settings
from headrace.errors import BrokerUnavailable, InvalidRequest, QueueFull, Unavailable
from headrace.jobs import Idempotency, JobSpec, JobState, Lane
from headrace.pricing import Tariff
from headrace.queues import OVERFLOW, Candidate, Ticket
from headrace.routing import candidates, route_of
from headrace.store import Store, insertion, jobs
from headrace.store.apps import App
from headrace.store.insertion import Inserted, JobInsertion, Placement, key_reused

log = logging.getLogger(__name__)

#: Between insert and publish: the job is in Postgres, and in no list.
FAILPOINT_INSERTED = "api.inserted"


@dataclass(frozen=True, slots=True)
class Accepted:
    """What the caller is told.

    Attributes:
        position: counts from 1, within the lane; None for a replay, whose place is not looked up again.
        depth: jobs in the queue with this one; None likewise.
        expected_wait_s: until its start; None when nobody can tell, or for a replay.
        is_replay: True when the Idempotency-Key had made this job before.
    """

    job_id: UUID
    state: JobState
    lane: Lane
    queue: str
    start_by: datetime
    position: int | None = None
    depth: int | None = None
    expected_wait_s: float | None = None
    is_replay: bool = False


@dataclass(frozen=True, slots=True)
class Submitter:
    """Submits drafts. `fail_at` is called between two steps; it returns, except in crash tests."""

    settings: Settings
    store: Store
    insertion: JobInsertion
    admission: Admission
    catalogue: Catalogue
    forecast: Forecast
    refusals: Refusals
    tariff: Tariff
    fail_at: Callable[[str], None]

    def submit(self, draft: Draft, app: App, idempotency: Idempotency | None = None) -> Accepted:
        """Accept a draft; returns once it is durable.

        Raises: InvalidRequest and its kin. QueueFull. IdempotencyKeyReused. StoreUnavailable. BrokerUnavailable.
        """
        if idempotency and (replay := self._replay(app, idempotency)):
            return replay
        spec = specify(draft, app.id, self.catalogue, self.settings, idempotency)
        place = self._reserve(spec, self._candidates(spec, draft))
        inserted = self._insert(spec, place.candidate)
        if inserted.start_by is None:
            self._release(spec, place.candidate.queue)
            return self._replayed(app, inserted.job_id)
        self.fail_at(FAILPOINT_INSERTED)
        self._publish(spec, place.candidate.queue, inserted.start_by)
        return self._accepted(spec, place, inserted.start_by)

    def _replay(self, app: App, idempotency: Idempotency) -> Accepted | None:
        with self.store.begin() as db:
            found = insertion.find_replay(db, app.id, idempotency.key)
        if found is None:
            return None
        job_id, request_hash = found
        if request_hash != idempotency.request_hash:
            raise key_reused()
        return self._replayed(app, job_id)

    def _replayed(self, app: App, job_id: UUID) -> Accepted:
        with self.store.begin() as db:
            job = jobs.find(db, app.id, job_id)
        return Accepted(job.id, job.state, job.lane, job.queue, job.start_by, is_replay=True)

    def _candidates(self, spec: JobSpec, draft: Draft) -> tuple[Candidate, ...]:
        # A key alone answers nothing: without a worker on those queues, what was put there would rot.
        has_key = self.settings.openai_api_key is not None
        api_is_open = has_key and self.catalogue.fleet(OVERFLOW).workers > 0
        try:
            return candidates(spec, self.settings.lane(spec.lane), self.tariff, api_is_open=api_is_open)
        except InvalidRequest as error:
            raise InvalidRequest(str(error), param=f"{draft.spelling.own_prefix}overflow") from error

    def _reserve(self, spec: JobSpec, options: tuple[Candidate, ...]) -> Place:
        try:
            return self.admission.reserve(spec.id, options)
        except QueueFull as error:
            self.refusals.count(spec.app_id, error.queue, error.code, spec.kv_tokens)
            raise

    def _insert(self, spec: JobSpec, chosen: Candidate) -> Inserted:
        placement = Placement(chosen.queue, route_of(chosen.queue), chosen.reason)
        try:
            return self.insertion.insert(spec, placement)
        except BaseException:
            self._release(spec, chosen.queue)
            raise

    def _release(self, spec: JobSpec, queue: str) -> None:
        try:
            self.admission.release(spec.id, queue)
        except BrokerUnavailable as error:
            # The place runs out by itself, and `reconcile_admission` drops it.
            log.warning("release_failed", extra={"queue": queue, "error": str(error)})

    def _publish(self, spec: JobSpec, queue: str, start_by: datetime) -> None:
        ticket = Ticket(spec.id, spec.app_id, queue, spec.lane, spec.kv_tokens, start_by)
        try:
            self.admission.commit(ticket)
        except BrokerUnavailable as error:
            # The job is durable, so it was accepted: `publish_due` puts its message into the list.
            log.warning("publish_failed", extra={"job_id": spec.id.hex, "queue": queue, "error": str(error)})

    def _accepted(self, spec: JobSpec, place: Place, start_by: datetime) -> Accepted:
        queue = place.candidate.queue
        try:
            expected_wait_s = self.forecast.expected_wait_s(queue, place.position)
        except Unavailable:
            expected_wait_s = None  # The job is durable by now: it was accepted, whatever else is down.
        return Accepted(
            spec.id, JobState.QUEUED, spec.lane, queue, start_by, place.position, place.depth, expected_wait_s
        )
