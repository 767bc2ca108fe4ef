"""The intake: a place, a durable row, a message, for all requests that come at the same time together.

Each of the three steps is one round trip for the whole batch, which is what makes an accept cheap. Knows no HTTP.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from queue import SimpleQueue
from typing import Literal
from uuid import UUID

from api.full_queues import FullQueues
from headrace.admission import Admission, Ask, Place, Refusal
from headrace.errors import BrokerUnavailable, HeadraceError, StoreUnavailable, Unavailable
from headrace.jobs import JobSpec
from headrace.queues import Candidate, Ticket
from headrace.routing import route_of
from headrace.store import Store
from headrace.store.insertion import Inserted, Placement, insert_batch

log = logging.getLogger(__name__)

#: Between insert and publish: the jobs are in Postgres, and in no list.
FAILPOINT_INSERTED = "api.inserted"
#: Batches under way at once. A second would halve the batches, and gain nothing: see docs/architecture.md.
LEADERS = 1
#: Reasons of a refusal that hold for a job of any size.
ALIKE_FOR_ALL = frozenset({"depth", "share", "app_jobs"})
#: A batch that fails after so long, in seconds, has waited for a server that says nothing. Who came meanwhile is told
#: the same: each batch would wait as long, and callers who come faster than those fail would take every thread.
SILENCE_S = 1.0
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


class _Turn(Enum):
    LEAD = "lead"


@dataclass(eq=False, slots=True)
class _Request:
    """One thread's request. What it is told comes by its inbox: to lead perhaps, and then how it ended."""

    spec: JobSpec
    ask: Ask
    inbox: "SimpleQueue[Outcome | BaseException | Literal[_Turn.LEAD]]" = field(default_factory=SimpleQueue)
    is_settled: bool = False
    leads: bool = False

    def lead(self) -> None:
        self.leads = True
        self.inbox.put(_Turn.LEAD)

    def settle(self, outcome: Outcome | BaseException) -> None:
        self.is_settled = True
        self.inbox.put(outcome)


class Intake:
    """Accepts jobs for all threads of one process: the first that comes leads, and serves who came meanwhile."""

    def __init__(self, store: Store, admission: Admission, fail_at: Callable[[str], None]) -> None:
        self._store = store
        self.admission = admission
        self.full: FullQueues[_Wish] = FullQueues()
        self._fail_at = fail_at
        self._lock = threading.Lock()
        self._pending: list[_Request] = []
        self._leaders = 0

    def accept(self, spec: JobSpec, ask: Ask) -> Outcome:
        """Accept one job, or say why there is no place; returns once it is durable.

        Raises: IdempotencyKeyReused. IdempotencyInProgress. StoreUnavailable. BrokerUnavailable.
        """
        if refusal := self.full.recall(_wish(ask)):
            return refusal
        request = _Request(spec, ask)
        with self._lock:
            self._pending.append(request)
            if self._leaders < LEADERS:
                self._leaders += 1
                request.lead()
        while (told := request.inbox.get()) is _Turn.LEAD:
            self._lead()
        if isinstance(told, BaseException):
            raise told
        return told

    def _lead(self) -> None:
        """Serve one batch, and hand the lead to one who waits, if any does."""
        with self._lock:
            batch, self._pending = self._pending[:BATCH], self._pending[BATCH:]
        began = time.monotonic()
        try:
            if batch:
                self._serve(batch)
        except BaseException as error:
            if isinstance(error, Unavailable) and time.monotonic() - began >= SILENCE_S:
                with self._lock:
                    batch, self._pending = [*batch, *self._pending], []
            for request in batch:
                if not request.is_settled:
                    request.settle(error)
        finally:
            # Under the lock: nobody else can settle the successor before he is told to lead.
            with self._lock:
                successor = next((request for request in self._pending if not request.leads), None)
                if successor is None:
                    self._leaders -= 1
                else:
                    successor.lead()

    def _serve(self, batch: Sequence[_Request]) -> None:
        placed = []
        asked_at = time.monotonic()
        for request, taken in zip(batch, self.admission.reserve([each.ask for each in batch]), strict=True):
            if isinstance(taken, Refusal):
                # Here, not by who asked: he may be told much later.
                if taken.reason in ALIKE_FOR_ALL:
                    self.full.remember(_wish(request.ask), taken, asked_at)
                request.settle(taken)
            else:
                self.full.forget(_wish(request.ask))
                placed.append((request, taken))
        if placed:
            self._make_durable(placed)

    def _make_durable(self, placed: Sequence[tuple[_Request, Place]]) -> None:
        rows = [(request.spec, _placement(place)) for request, place in placed]
        try:
            outcomes = insert_batch(self._store, rows)
        except BaseException:
            self._give_back([request for request, _ in placed])
            raise
        self._fail_at(FAILPOINT_INSERTED)
        made = [(*pair, outcome) for pair, outcome in zip(placed, outcomes, strict=True)]
        fresh = [(request, place, start_by) for request, place, outcome in made if (start_by := _start_by(outcome))]
        self._publish([_ticket(request.spec, place, start_by) for request, place, start_by in fresh])
        self._give_back([request for request, _, outcome in made if not _start_by(outcome)])
        if isinstance(gone := outcomes[0], StoreUnavailable) and all(each is gone for each in outcomes):
            raise gone
        for request, place, outcome in made:
            if isinstance(outcome, HeadraceError):
                request.settle(outcome)
            elif outcome.start_by is None:
                request.settle(Replayed(outcome.job_id))
            else:
                request.settle(Admitted(place, outcome.start_by))

    def _publish(self, tickets: Sequence[Ticket]) -> None:
        try:
            self.admission.commit(tickets)
        except BrokerUnavailable as error:
            # The jobs are durable, so they were accepted: `publish_due` puts their messages into the lists.
            log.warning("publish_failed", extra={"jobs": len(tickets), "error": str(error)})

    def _give_back(self, requests: Sequence[_Request]) -> None:
        try:
            self.admission.leave((request.spec.id, 1) for request in requests)
        except BrokerUnavailable as error:
            # The places run out by themselves, and `reconcile_admission` drops them.
            log.warning("release_failed", extra={"jobs": len(requests), "error": str(error)})


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
