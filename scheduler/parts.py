"""What the control process acts through. `app.py` puts it together; no rule is kept here."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

from headrace.admission import Admission
from headrace.config import Settings
from headrace.pace import Pace
from headrace.queues import OVERFLOW, lane_queues
from headrace.store import Store


@dataclass(frozen=True, slots=True)
class Parts:
    """The servers, each behind its face.

    Attributes:
        send_delivery: asks a webhook worker for one try of a delivery. Raises: BrokerUnavailable.
    """

    settings: Settings
    store: Store
    admission: Admission
    send_delivery: Callable[[UUID], None]
    pace: Pace

    @property
    def queues(self) -> tuple[str, ...]:
        """Every queue that jobs wait in."""
        return tuple(queue for pool in (*self.settings.pools, OVERFLOW) for queue in lane_queues(pool))

    def tell_ended(self, job_ids: Sequence[UUID], delivery_ids: Sequence[UUID]) -> None:
        """Wake whoever waits for these jobs and send their webhooks. Call it after the commit.

        Nothing is lost when it fails: waiting readers look again by themselves, `redeliver` sends what was not sent.
        Raises: BrokerUnavailable.
        """
        if job_ids:
            self.admission.announce_ended(job_ids)
        for delivery_id in delivery_ids:
            self.send_delivery(delivery_id)
