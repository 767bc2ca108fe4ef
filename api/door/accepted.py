"""The answer to the caller of an accepted job. Pure."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from headrace.domain.jobs import CacheUse
from headrace.domain.limits.rates import RatesLeft
from headrace.domain.queues import Lane
from headrace.domain.states import JobState


@dataclass(frozen=True, slots=True)
class Accepted:
    """An accepted job, as its caller sees it.

    Attributes:
        max_tokens, max_wait_s: as the caller gave them, or their defaults.
        position: counts from 1, within the lane; None for a replay, whose place is not looked up again, and for a job
            that the cache has served.
        depth: jobs in the queue, this one included; None for these, too.
        expected_wait_s: until its start; None when it is unknown, and for these.
        rates_left: what the app's own limits have left; None for a replay, which uses nothing.
        is_replay: True when an earlier request with this Idempotency-Key made the job.
        cache: what the cache had for it; None if it was not searched.
        confined_until: until when the app's jobs in this pool run one at a time; None if it is not confined.
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
    cache: CacheUse | None = None
    confined_until: datetime | None = None
