"""Takes a webhook worker's next tries: due deliveries, pulled from the outbox in Postgres as slots free.

No delivery waits in Redis. The bell, a stream with one entry, signals that a delivery may be due. Without the bell a
worker looks once a second. A delivery is pulled only when a slot is free for it. Each try is one Celery task.
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from headrace.broker.transport import LaneCycle, Taker
from headrace.domain.deliveries import START, Delivery, Pulled, Terms
from headrace.domain.queues import WEBHOOKS, bell_key
from headrace.errors import StoreUnavailable
from headrace.store import Store
from headrace.store.webhooks import outbox
from workers.delivering.slots import DeliverySlots, SlotUse

log = logging.getLogger(__name__)

#: Pulls in one take. With many receivers, one pull sees only some of them.
PULLS = 8


class OutboxTaker(Taker):
    """Pulls from the outbox. Takes nothing before `open` nor after `close`."""

    def __init__(
        self,
        store: Store,
        slots: DeliverySlots,
        message: Callable[[Delivery], dict[str, Any]],
        count: Callable[[str], None] = lambda outcome: None,
    ) -> None:
        """Take nothing before `open`.

        Args:
            message: makes the Celery message of one try.
            count: called for each delivery that is given up without a try, for the metrics.
        """
        super().__init__(bell_key(WEBHOOKS))
        self._store, self._slots, self._message, self._count = store, slots, message, count
        self._after = START
        self._terms: Callable[[int, SlotUse], Terms] | None = None
        self._is_failing = False
        #: True if more may be due than was pulled, so that a freed slot triggers a look.
        self._may_be_more = True
        self._free_slots: Callable[[], int] = lambda: 0

    def open(self, terms: Callable[[int, SlotUse], Terms], free_slots: Callable[[], int]) -> None:
        """Begin to take.

        Args:
            terms: returns the terms of a pull; see `Deliver.terms`.
            free_slots: how many more tasks Celery lets the worker have.
        """
        self._terms, self._free_slots = terms, free_slots
        self.look()

    def close(self) -> None:
        """Take nothing more."""
        self._terms = None

    def free_slots(self) -> int:
        """How many more tries the worker may have."""
        return min(self._free_slots(), self._slots.held().free)

    def release(self, delivery: Delivery) -> None:
        """A try's slot is free again."""
        self._slots.release(delivery)
        if self._may_be_more:
            self.look()

    def take(self, turns: LaneCycle, queues: int, most: int) -> list[tuple[str, dict[str, Any]]]:
        """Pull deliveries. Each holds its slot from now on."""
        if WEBHOOKS not in turns.consume(queues):
            # Another channel of this process called, such as the one for other workers' replies at the start.
            self.is_due = True
            return []
        for _ in range(PULLS):
            # Set before the slots are counted, so that a slot freed meanwhile triggers another look.
            self._may_be_more = True
            held = self._slots.held()
            most = min(most, held.free)
            pulled = self._pull(most, held)
            self._after = pulled.after
            for each in pulled.given_up:
                facts = {"delivery_id": str(each.id), "receiver": each.receiver, "tries": each.tries}
                log.warning("delivery_given_up", extra={**facts, "error": each.error})
                self._count("given_up")
            for delivery in pulled.deliveries:
                self._slots.hold(delivery)
            self._may_be_more = not pulled.is_all or held.is_full or most <= len(pulled.deliveries)
            if pulled.deliveries or pulled.is_all:
                return [(WEBHOOKS, self._message(delivery)) for delivery in pulled.deliveries]
        # Many receivers in a row have nothing to pull. Look again after the event loop has served others.
        self.look()
        return []

    def _pull(self, most: int, held: SlotUse) -> Pulled:
        """Pull from the store. Nothing while Postgres does not answer; the next look tries again."""
        terms = self._terms
        if terms is None or most <= 0:
            return Pulled(after=self._after)
        try:
            with self._store.begin() as db:
                pulled = outbox.pull(db, replace(terms(most, held), after=self._after))
        except StoreUnavailable as error:
            if not self._is_failing:
                log.warning("outbox_not_readable", extra={"error": str(error)})
            self._is_failing = True
            return Pulled(after=self._after)
        self._is_failing = False
        return pulled
