"""The use case of a webhook worker: one signed POST per try, and a record of how it went.

Knows no Celery. Never follows a redirect, never uses a proxy of the environment, and, but for development, never
connects to a private address: the library checks the address it then connects to.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

import requests
from AntiSSRF import AntiSSRFError, AntiSSRFPolicy, PolicyConfigOptions
from pydantic import SecretStr

from headrace import store, webhooks
from headrace.config import WebhookSettings
from headrace.errors import DeliveryFailed
from headrace.store import Store
from headrace.store.deliveries import Delivery
from workers.retry import asked_wait_s, next_delivery_delay_s

log = logging.getLogger(__name__)

#: Seconds for the TCP and TLS handshakes.
CONNECT_TIMEOUT_S = 5.0


def make_session(settings: WebhookSettings) -> requests.Session:
    """A session that cannot be led into a private network, unless `allow_private` says it may."""
    if settings.allow_private:
        session = requests.Session()
    else:
        policy = AntiSSRFPolicy(PolicyConfigOptions.EXTERNAL_ONLY_LATEST)
        policy.add_xff_header = False
        session = policy.get_antissrf_session()
    session.trust_env = False
    return session


@dataclass(slots=True)
class Deliver:
    """Sends webhooks.

    Attributes:
        session: called per try: a requests session is not made for many threads.
        operator_secret: signs the operator's webhooks; None where there are none.
    """

    store: Store
    settings: WebhookSettings
    session: Callable[[], requests.Session]
    operator_secret: SecretStr | None = None

    def run(self, delivery_id: UUID) -> None:
        """Make one try of a delivery that is due; none when it is done or in another worker's hands."""
        with self.store.begin() as db:
            delivery = store.deliveries.begin_try(db, delivery_id)
        if delivery is None:
            return
        job_id = delivery.data.get("job_id")
        facts = {"delivery_id": str(delivery_id), "about": delivery.event, "job_id": job_id, "tries": delivery.tries}
        try:
            status = self._post(delivery)
        except DeliveryFailed as error:
            delay_s = next_delivery_delay_s(delivery.tries, self.settings.retry_delays_s, error.retry_after_s)
            failure = {"error": str(error), "status": error.status, "retry_in_s": delay_s}
            log.warning("delivery_failed", extra={**facts, **failure})
            with self.store.begin() as db:
                store.deliveries.record_failure(db, delivery, str(error), status=error.status, retry_in_s=delay_s)
        else:
            log.info("delivered", extra={**facts, "status": status})
            with self.store.begin() as db:
                store.deliveries.record_success(db, delivery, status)

    def _secret(self, delivery: Delivery) -> str:
        if delivery.secret is not None:
            return delivery.secret
        if self.operator_secret is None:
            raise DeliveryFailed("This worker has no budgets.webhook_secret (HEADRACE_BUDGETS__WEBHOOK_SECRET).")
        return self.operator_secret.get_secret_value()

    def _post(self, delivery: Delivery) -> int:
        """Returns: the 2xx status. Raises: DeliveryFailed."""
        body = webhooks.payload(delivery.id, delivery.event, delivery.data, delivery.at)
        headers = webhooks.signed_headers(self._secret(delivery), delivery.id, datetime.now(UTC), body)
        timeout = (CONNECT_TIMEOUT_S, self.settings.timeout_s)
        try:
            # Streamed and never read: a receiver's body is of no use, and may be endless.
            with (
                self.session() as session,
                session.post(
                    delivery.url,
                    data=body.encode(),
                    headers=headers,
                    timeout=timeout,
                    allow_redirects=False,
                    stream=True,
                ) as response,
            ):
                status, retry_after = response.status_code, response.headers.get("retry-after", "")
        except AntiSSRFError as error:
            raise DeliveryFailed("The webhook's address is not allowed.") from error
        except (OSError, ValueError) as error:
            # Every error of requests is an OSError; the check of the address lets the resolver's own through.
            raise DeliveryFailed(f"No answer from the webhook's receiver: {type(error).__name__}.") from error
        if not 200 <= status < 300:
            message = f"The webhook's receiver answered {status}."
            raise DeliveryFailed(message, status=status, retry_after_s=asked_wait_s(retry_after))
        return status
