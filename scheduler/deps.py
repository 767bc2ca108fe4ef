"""The control process's dependencies, without any rules. `app.py` wires them."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

from headrace.broker.admission import Admission
from headrace.broker.pace import Pace
from headrace.config import Settings
from headrace.domain.queues import OVERFLOW, lane_queues
from headrace.store import Store
from scheduler.tallies import Tallies


@dataclass(frozen=True, slots=True)
class ControlDeps:
    """The servers, each behind its own class.

    Attributes:
        tallies: what this process has counted for its metrics.
        made_at: when these were made, at the start of the process; seconds on the monotonic clock.
    """

    settings: Settings
    store: Store
    admission: Admission
    pace: Pace
    tallies: Tallies = field(default_factory=Tallies)
    made_at: float = field(default_factory=time.monotonic)

    @property
    def queues(self) -> tuple[str, ...]:
        """Every queue that jobs wait in."""
        return tuple(queue for pool in (*self.settings.pools, OVERFLOW) for queue in lane_queues(pool))

    def tell_ended(self, job_ids: Sequence[UUID]) -> None:
        """Wake the readers of these jobs, and the workers that send their webhooks. Call it after the commit.

        If it fails, nothing is lost: readers and webhook workers look again by themselves.
        Raises: BrokerUnavailable.
        """
        if job_ids:
            self.admission.announce_ended(job_ids, has_webhooks=True, moved=job_ids)
