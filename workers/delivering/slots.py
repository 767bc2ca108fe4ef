"""Slots for a process's running deliveries, limited in all, for each app, and for each receiver.

A slow receiver holds its own slots and no others. Knows neither Celery, Postgres nor HTTP.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from headrace.config import WebhookSettings
from headrace.domain.deliveries import Delivery
from workers.delivering.posting import Post

#: Seconds within which a pulled delivery's try must begin. Otherwise its slot is freed: its task was revoked, or Celery
#: lost it. Its lease ends later.
BEGIN_WITHIN_S = 15.0
#: Seconds, beyond the try's own deadline, for recording its outcome.
RECORD_WITHIN_S = 30.0

Key = tuple[UUID, int]


@dataclass(frozen=True, slots=True)
class SlotUse:
    """The slots in use.

    Attributes:
        free: the number of free slots.
        is_full: True if an app or a receiver holds all the slots that it may.
    """

    free: int
    of_app: Counter[UUID | None]
    of_receiver: Counter[str]
    is_full: bool


@dataclass(slots=True)
class _Slot:
    delivery: Delivery
    pulled_at: float
    has_begun: bool = False
    post: Post | None = None


class DeliverySlots:
    """Holds a slot for each delivery from its pull until the thread of its POST has ended. Safe for many threads."""

    def __init__(self, settings: WebhookSettings, clock: Callable[[], float] = time.monotonic) -> None:
        """Start with all slots free."""
        self._settings, self._clock = settings, clock
        self._slots: dict[Key, _Slot] = {}
        self._changed = threading.Condition()

    @property
    def lease_s(self) -> float:
        """The lease of a delivery, in seconds: longer than a try can take from its pull to its record."""
        return BEGIN_WITHIN_S + self._settings.timeout_s + RECORD_WITHIN_S

    def hold(self, delivery: Delivery) -> None:
        """Take a slot for a delivery that was just pulled."""
        with self._changed:
            self._slots[_key(delivery)] = _Slot(delivery, self._clock())

    def begin(self, delivery_id: UUID, tries: int) -> Delivery | None:
        """Begin a try. Its delivery holds the slot until `release`.

        Returns: the delivery; None when the try comes too late and its slot was freed.
        """
        with self._changed:
            self._let_go()
            slot = self._slots.get((delivery_id, tries))
            if slot is None:
                return None
            slot.has_begun = True
            return slot.delivery

    def post(self, delivery: Delivery, post: Post) -> None:
        """Remember a delivery's POST, which `drain` may end."""
        with self._changed:
            self._slots[_key(delivery)].post = post

    def release(self, delivery: Delivery) -> None:
        """Give the slot back."""
        with self._changed:
            self._slots.pop(_key(delivery), None)
            self._changed.notify_all()

    def held(self) -> SlotUse:
        """The slots in use now."""
        with self._changed:
            self._let_go()
            in_hand = [slot.delivery for slot in self._slots.values()]
        of_app = Counter(each.app_id for each in in_hand)
        of_receiver = Counter(each.receiver for each in in_hand)
        is_full = (
            max(of_app.values(), default=0) >= self._settings.max_running_per_app
            or max(of_receiver.values(), default=0) >= self._settings.max_running_per_receiver
        )
        return SlotUse(self._settings.max_running - len(in_hand), of_app, of_receiver, is_full)

    def drain(self, for_s: float) -> None:
        """Wait until no slot is in use. End the POSTs that are left after `for_s`."""
        with self._changed:
            if self._changed.wait_for(lambda: not self._slots, for_s):
                return
            posts = [slot.post for slot in self._slots.values() if slot.post is not None]
        for post in posts:
            post.give_up("The worker was told to stop before the webhook's receiver answered.")

    def _let_go(self) -> None:
        before = self._clock() - BEGIN_WITHIN_S
        late = [key for key, slot in self._slots.items() if not slot.has_begun and slot.pulled_at < before]
        for key in late:
            del self._slots[key]


def _key(delivery: Delivery) -> Key:
    return delivery.id, delivery.tries
