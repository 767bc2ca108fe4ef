"""The intake: a place, a durable row, a message, for all requests that come at the same time together.

Each of the three steps is one round trip for the whole batch, which is what makes an accept cheap. Knows no HTTP.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from api.full_queues import FullQueues
from headrace.admission import Admission, Ask, Place, Refusal
from headrace.batching import Batching, Call
from headrace.errors import BrokerUnavailable, HeadraceError, StoreUnavailable
from headrace.jobs import JobSpec
from headrace.logging import named
from headrace.queues import Candidate, Ticket
from headrace.routing import route_of
from headrace.store import Store
from headrace.store.insertion import Inserted, Placement, insert_batch

log = logging.getLogger(__name__)

#: Between insert and publish: the jobs are in Postgres, and in no list.
FAILPOINT_INSERTED = "api.inserted"
#: Reasons of a refusal that hold for a job of any size.
ALIKE_FOR_ALL = frozenset({"depth", "share", "app_jobs"})
#: Requests in one batch: more would only make everyone wait for the longest.
BATCH = 256


@dataclass(frozen=True, slots=True)
class Admitted:
    """A job that has been accepted, with its place."""

    place: Place
    start_by: datetime


@dataclass(frozen=True, slots=True)
class Replayed:
    """The job that an Idempotency-Key had made before."""

    job_id: UUID


Outcome = Admitted | Replayed | Refusal
#: An app and the queues that its job may go to.
_Wish = tuple[UUID, tuple[Candidate, ...]]


_Request = Call[tuple[JobSpec, Ask], Outcome]


class Intake:
    """Accepts jobs for all threads of one process: the first that comes leads, and serves who came meanwhile."""

    def __init__(self, store: Store, admission: Admission, fail_at: Callable[[str], None]) -> None:
        self._store = store
        self.admission = admission
        self.full: FullQueues[_Wish] = FullQueues()
        self._fail_at = fail_at
        self.batching = Batching[tuple[JobSpec, Ask], Outcome](self._serve, BATCH)

    def accept(self, spec: JobSpec, ask: Ask) -> Outcome:
        """Accept one job, or say why there is no place; returns once it is durable.

        Raises: IdempotencyKeyReused. IdempotencyInProgress. StoreUnavailable. BrokerUnavailable.
        """
        if refusal := self.full.recall(_wish(ask)):
            return refusal
        return self.batching.call((spec, ask))

    def _serve(self, batch: Sequence[_Request]) -> None:
        placed = []
        asked_at = time.monotonic()
        for request, taken in zip(batch, self.admission.reserve([each.ask[1] for each in batch]), strict=True):
            if isinstance(taken, Refusal):
                # Here, not by who asked: he may be told much later.
                if taken.reason in ALIKE_FOR_ALL:
                    self.full.remember(_wish(request.ask[1]), taken, asked_at)
                request.settle(taken)
            else:
                self.full.forget(_wish(request.ask[1]))
                placed.append((request, taken))
        if placed:
            self._make_durable(placed)

    def _make_durable(self, placed: Sequence[tuple[_Request, Place]]) -> None:
        rows = [(request.ask[0], _placement(place)) for request, place in placed]
        try:
            outcomes = insert_batch(self._store, rows)
        except BaseException:
            self._give_back([request for request, _ in placed])
            raise
        self._fail_at(FAILPOINT_INSERTED)
        made = [(*pair, outcome) for pair, outcome in zip(placed, outcomes, strict=True)]
        fresh = [(request, place, start_by) for request, place, outcome in made if (start_by := _start_by(outcome))]
        self._publish([_ticket(request.ask[0], place, start_by) for request, place, start_by in fresh])
        self._give_back([request for request, _, outcome in made if not _start_by(outcome)])
        if isinstance(gone := outcomes[0], StoreUnavailable) and all(each is gone for each in outcomes):
            raise gone
        for request, place, outcome in made:
            if isinstance(outcome, HeadraceError):
                request.fail(outcome)
            elif outcome.start_by is None:
                request.settle(Replayed(outcome.job_id))
            else:
                request.settle(Admitted(place, outcome.start_by))

    def _publish(self, tickets: Sequence[Ticket]) -> None:
        try:
            self.admission.commit(tickets)
        except BrokerUnavailable as error:
            # The jobs are durable, so they were accepted: `publish_due` puts their messages into the lists.
            log.warning("publish_failed", extra={**named([ticket.job_id for ticket in tickets]), "error": str(error)})

    def _give_back(self, requests: Sequence[_Request]) -> None:
        try:
            self.admission.leave((request.ask[0].id, 1) for request in requests)
        except BrokerUnavailable as error:
            # The places run out by themselves, and `reconcile_admission` drops them.
            facts = named([request.ask[0].id for request in requests])
            log.warning("release_failed", extra={**facts, "error": str(error)})


def _wish(ask: Ask) -> _Wish:
    return ask.app_id, ask.candidates


def _placement(place: Place) -> Placement:
    return Placement(place.candidate.queue, route_of(place.candidate.queue), place.candidate.reason)


def _start_by(outcome: Inserted | HeadraceError) -> datetime | None:
    """None where no new job was made."""
    return outcome.start_by if isinstance(outcome, Inserted) else None


def _ticket(spec: JobSpec, place: Place, start_by: datetime) -> Ticket:
    return Ticket(
        spec.id, spec.app_id, place.candidate.queue, spec.lane, spec.prompt_tokens, spec.sampling.max_tokens, start_by
    )
