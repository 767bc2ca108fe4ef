"""The use case of a webhook worker: one signed POST per try, and a record of its outcome.

Knows no Celery.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import urlsplit
from uuid import UUID

import requests
from pydantic import SecretStr

from headrace import store
from headrace.config import WebhookSettings
from headrace.domain.deliveries import Delivery, Terms
from headrace.errors import DeliveryFailed
from headrace.policies import webhooks
from headrace.policies.retries import asked_wait_s, jitter, next_delivery_delay_s
from headrace.store import Store
from headrace.store.webhooks.outbox import GONE_STATUS
from workers.delivering.posting import Hold, Post, WebhookRequest, WebhookResponse
from workers.delivering.slots import DeliverySlots, SlotUse

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Deliver:
    """Sends webhooks.

    Attributes:
        slots: the slots of running deliveries.
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
            store.deliveries.record_success(db, delivery, status)

    def _record_failure(self, delivery: Delivery, error: DeliveryFailed) -> None:
        tries = delivery.tries - delivery.tries_before
        delays_s = self.settings.retry_delays_s if error.status != GONE_STATUS else ()
        delay_s = next_delivery_delay_s(tries, delays_s, error.retry_after_s, self.jitter())
        failure = {"error": str(error), "status": error.status, "retry_in_s": delay_s}
        log.warning("delivery_failed", extra={**_facts(delivery), **failure})
        self.count("failed" if delay_s is not None else "given_up")
        with self.store.begin() as db:
            if error.status == GONE_STATUS:
                store.deliveries.record_gone(db, delivery)
            store.deliveries.record_failure(db, delivery, str(error), status=error.status, retry_in_s=delay_s)

    def _post(self, delivery: Delivery) -> int:
        """Returns: the 2xx status. Raises: DeliveryFailed."""
        try:
            post = Post(self.session, self._request(delivery), self.settings.timeout_s)
            self.slots.post(delivery, post)
        except BaseException:
            self.release(delivery)
            raise
        return _accepted(post.run(ended=lambda: self.release(delivery)))

    def _request(self, delivery: Delivery) -> WebhookRequest:
        body = webhooks.payload(delivery.id, delivery.event, delivery.data, delivery.at)
        headers = webhooks.signed_headers(self._secrets(delivery), delivery.id, datetime.now(UTC), body)
        return WebhookRequest(delivery.url, body.encode(), headers)

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
        "app_id": str(delivery.app_id),
        "receiver": urlsplit(delivery.url).hostname,
        "tries": delivery.tries,
    }
