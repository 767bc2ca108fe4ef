"""What the caller of an accepted job is told. Pure."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from headrace.domain.queues import Lane
from headrace.domain.rates import RatesLeft
from headrace.domain.states import JobState


@dataclass(frozen=True, slots=True)
class Accepted:
    """What the caller is told.

    Attributes:
        max_tokens, max_wait_s: as asked for, or as chosen where the caller left them out.
        position: counts from 1, within the lane; None for a replay, whose place is not looked up again.
        depth: jobs in the queue with this one; None likewise.
        expected_wait_s: until its start; None when nobody can tell, or for a replay.
        rates_left: of the app's own limits; None for a replay, which uses nothing up.
        is_replay: True when the Idempotency-Key had made this job before.
    """

    job_id: UUID
    state: JobState
    lane: Lane
    queue: str
    start_by: datetime
    max_tokens: int
    max_wait_s: float
    position: int | None = None
    depth: int | None = None
    expected_wait_s: float | None = None
    rates_left: RatesLeft | None = None
    is_replay: bool = False
