"""A webhook worker: takes due deliveries from the outbox in Postgres as slots free, and makes one signed POST for each.

No delivery waits in Redis. The bell, a stream with one entry, signals that a delivery may be due. Without the bell a
worker looks once a second. A delivery is pulled only when a slot is free for it. Each try is one Celery task.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import requests
from pydantic import SecretStr

from headrace.broker.transport import LaneCycle, Taker
from headrace.config import WebhookSettings
from headrace.domain.deliveries import START, Delivery, Pulled, Terms
from headrace.domain.queues import WEBHOOKS, bell_key
from headrace.errors import DeliveryFailed, StoreUnavailable
from headrace.policies import webhooks
from headrace.policies.retries import asked_wait_s, jitter, next_delivery_delay_s
from headrace.store import Store, deliveries
from headrace.store.deliveries import GONE_STATUS
from workers.delivering.posting import Hold, Post, WebhookResponse

log = logging.getLogger(__name__)

#: Seconds within which a pulled delivery's try must begin. Otherwise its slot is freed: its task was revoked, or Celery
#: lost it. Its lease ends later.
BEGIN_WITHIN_S = 15.0
#: Seconds, beyond the try's own deadline, for recording its outcome.
RECORD_WITHIN_S = 30.0

Key = tuple[UUID, int]


@dataclass(frozen=True, slots=True)
class SlotUse:
    """The slots in use.

    Attributes: is_full: True if an app or a receiver holds all the slots that it may.
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
    """Slots for running deliveries, limited in all, for each app, and for each receiver. Safe for many threads.

    A delivery holds its slot from its pull until the thread of its POST has ended. A slow receiver holds its own slots
    and no others.
    """

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
        with self._changed:
            self._slots.pop(_key(delivery), None)
            self._changed.notify_all()

    def held(self) -> SlotUse:
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
                pulled = deliveries.pull(db, replace(terms(most, held), after=self._after))
        except StoreUnavailable as error:
            if not self._is_failing:
                log.warning("outbox_not_readable", extra={"error": str(error)})
            self._is_failing = True
            return Pulled(after=self._after)
        self._is_failing = False
        return pulled


@dataclass(slots=True)
class Deliver:
    """Makes one signed POST for each try, and records its outcome.

    Attributes:
        session: makes a session for each try, because a requests session is not thread-safe.
        release: gives a delivery's slot back, once the thread of its POST has ended.
        operator_secrets: each signs the operator's webhooks; empty if none is set.
        count: called with each try's outcome, for the metrics.
        jitter: returns the share by which to lengthen a pause before the next try.
    """

    store: Store
    settings: WebhookSettings
    slots: DeliverySlots
    session: Callable[[Hold], requests.Session]
    release: Callable[[Delivery], None]
    operator_secrets: tuple[SecretStr, ...] = ()
    count: Callable[[str], None] = field(default=lambda outcome: None)
    jitter: Callable[[], float] = field(default=jitter)

    def terms(self, most: int, held: SlotUse) -> Terms:
        """The terms of a pull of `most` deliveries at most, while `held` slots are in use."""
        settings = self.settings
        return Terms(
            most,
            per_app=settings.max_running_per_app,
            per_receiver=settings.max_running_per_receiver,
            max_tries=1 + len(settings.retry_delays_s),
            lease_s=self.slots.lease_s,
            of_app=held.of_app,
            of_receiver=held.of_receiver,
        )

    def run(self, delivery_id: UUID, tries: int) -> None:
        """Make the try that was pulled, unless it comes too late. Raises: DeliveryFailed, after recording it."""
        delivery = self.slots.begin(delivery_id, tries)
        if delivery is None:
            log.warning("delivery_too_late", extra={"delivery_id": str(delivery_id), "tries": tries})
            return
        try:
            status = self._post(delivery)
        except DeliveryFailed as error:
            self._record_failure(delivery, error)
            raise
        log.info("delivered", extra={**_facts(delivery), "status": status})
        self.count("delivered")
        with self.store.begin() as db:
            deliveries.record_success(db, delivery, status)

    def _record_failure(self, delivery: Delivery, error: DeliveryFailed) -> None:
        tries = delivery.tries - delivery.tries_before
        delays_s = self.settings.retry_delays_s if error.status != GONE_STATUS else ()
        delay_s = next_delivery_delay_s(tries, delays_s, error.retry_after_s, self.jitter())
        failure = {"error": str(error), "status": error.status, "retry_in_s": delay_s}
        log.warning("delivery_failed", extra={**_facts(delivery), **failure})
        self.count("failed" if delay_s is not None else "given_up")
        with self.store.begin() as db:
            if error.status == GONE_STATUS:
                deliveries.record_gone(db, delivery)
            deliveries.record_failure(db, delivery, str(error), status=error.status, retry_in_s=delay_s)

    def _post(self, delivery: Delivery) -> int:
        """Returns: the 2xx status. Raises: DeliveryFailed."""
        try:
            body = webhooks.payload(delivery.id, delivery.event, delivery.data, delivery.at)
            headers = webhooks.signed_headers(self._secrets(delivery), delivery.id, datetime.now(UTC), body)
            post = Post(self.session, delivery.url, body.encode(), headers, self.settings.timeout_s)
            self.slots.post(delivery, post)
        except BaseException:
            self.release(delivery)
            raise
        return _accepted(post.run(ended=lambda: self.release(delivery)))

    def _secrets(self, delivery: Delivery) -> tuple[str, ...]:
        if delivery.secrets:
            return delivery.secrets
        if not self.operator_secrets:
            raise DeliveryFailed("This worker has no budgets.webhook_secret (HEADRACE_BUDGETS__WEBHOOK_SECRET).")
        return tuple(secret.get_secret_value() for secret in self.operator_secrets)


def _accepted(answer: WebhookResponse) -> int:
    """Returns: the 2xx status. Raises: DeliveryFailed."""
    if not 200 <= answer.status < 300:
        message = f"The webhook's receiver answered {answer.status}."
        raise DeliveryFailed(message, status=answer.status, retry_after_s=asked_wait_s(answer.retry_after))
    return answer.status


def _facts(delivery: Delivery) -> dict[str, object]:
    """The log fields of a try. Of the URL only the host is logged, because apps put secrets into the rest."""
    return {
        "delivery_id": str(delivery.id),
        "about": delivery.event,
        "job_id": delivery.data.get("job_id"),
        "subject": None if "job_id" in delivery.data else delivery.data.get("id"),
        "app_id": str(delivery.app_id),
        "receiver": urlsplit(delivery.url).hostname,
        "tries": delivery.tries,
    }
