"""The intake: reserves a place, inserts a durable row and pushes a message, for a batch of concurrent requests.

Each of the three steps is one round trip for the whole batch, so an accept is cheap. Knows no HTTP.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import repeat

from api.door.drafts import Bid
from headrace.batching import Batching
from headrace.broker.admission import Admission
from headrace.domain.ids import show_id
from headrace.domain.jobs import Inserted, JobSpec
from headrace.domain.places import Place, Refusal
from headrace.domain.queues import Ticket
from headrace.errors import BrokerUnavailable, HeadraceError
from headrace.logging import named
from headrace.store import Store
from headrace.store.jobs.insertion import insert_batch

log = logging.getLogger(__name__)

#: Between insert and publish: the jobs are in Postgres, but not in a queue's list.
FAILPOINT_INSERTED = "api.inserted"
#: Requests in one batch. In a larger one, each request would wait longer for the others.
BATCH = 256


#: A place; the job that an earlier request with the same Idempotency-Key made; or why there is no place.
Outcome = Place | Inserted | Refusal


class Intake:
    """Accepts jobs for all threads of one process: one thread leads a batch, and serves all that wait by then."""

    def __init__(self, store: Store, admission: Admission, fail_at: Callable[[str], None]) -> None:
        self._store = store
        self.admission = admission
        self._fail_at = fail_at
        self.batching = Batching[Bid, Outcome](self._serve, BATCH)

    def accept(self, bid: Bid) -> Outcome:
        """Accept one job, or return the refusal. An accepted job is durable on return.

        Raises: IdempotencyKeyReused. IdempotencyInProgress. StoreUnavailable. BrokerUnavailable.
        """
        return self.batching.call(bid)

    def _serve(self, bids: Sequence[Bid]) -> list[Outcome | BaseException]:
        taken = self.admission.reserve(bids)
        placed, places = list[Bid](), list[Place]()
        for bid, each in zip(bids, taken, strict=True):
            if isinstance(each, Place):
                placed.append(bid)
                places.append(each)
        try:
            durable: Iterator[Outcome | BaseException] = iter(self._make_durable(placed, places) if placed else ())
        except Exception as error:  # A refusal holds whatever becomes of the other jobs.
            durable = repeat(error)
        return [each if isinstance(each, Refusal) else next(durable) for each in taken]

    def _make_durable(self, bids: Sequence[Bid], places: Sequence[Place]) -> list[Place | Inserted | HeadraceError]:
        rows = [(bid.spec, place.candidate) for bid, place in zip(bids, places, strict=True)]
        try:
            inserted = insert_batch(self._store, rows)
        except BaseException:
            self._give_back(bids)
            raise
        self._fail_at(FAILPOINT_INSERTED)
        outcomes = [
            replace(place, start_by=made.start_by) if isinstance(made, Inserted) and made.start_by else made
            for place, made in zip(places, inserted, strict=True)
        ]
        fresh = [bid for bid, outcome in zip(bids, outcomes, strict=True) if isinstance(outcome, Place)]
        fresh_places = [outcome for outcome in outcomes if isinstance(outcome, Place)]
        self._publish(fresh, fresh_places)
        self._give_back([bid for bid, outcome in zip(bids, outcomes, strict=True) if not isinstance(outcome, Place)])
        if fresh:
            facts = [
                {
                    "job_id": show_id(bid.job_id),
                    "app": bid.app.name,
                    "queue": place.candidate.queue,
                    "request_id": bid.sent.id,
                }
                for bid, place in zip(fresh, fresh_places, strict=True)
            ]
            log.info("job_accepted", extra={"each": facts})
        return outcomes

    def _publish(self, bids: Sequence[Bid], places: Sequence[Place]) -> None:
        tickets = [_ticket(bid.spec, place) for bid, place in zip(bids, places, strict=True)]
        lookups = {bid.job_id: bid.spec.looked_up_by for bid in bids if bid.spec.looked_up_by is not None}
        try:
            self.admission.commit(tickets, lookups)
        except BrokerUnavailable as error:
            # The jobs are durable, so they are accepted: `publish_due` (scheduler/sweep.py) pushes their messages.
            log.warning("publish_failed", extra={**named([ticket.job_id for ticket in tickets]), "error": str(error)})

    def _give_back(self, bids: Sequence[Bid]) -> None:
        try:
            self.admission.give_back(bid.spec.id for bid in bids)
        except BrokerUnavailable as error:
            # The reservations expire by themselves, and `reconcile_admission` drops them.
            facts = named([bid.spec.id for bid in bids])
            log.warning("release_failed", extra={**facts, "error": str(error)})


def _ticket(spec: JobSpec, place: Place) -> Ticket:
    assert place.start_by is not None
    return Ticket(
        job_id=spec.id,
        app_id=spec.app_id,
        queue=place.candidate.queue,
        lane=spec.lane,
        prompt_tokens=spec.prompt_tokens,
        max_tokens=spec.sampling.max_tokens,
        n=spec.sampling.n,
        start_by=place.start_by,
    )
