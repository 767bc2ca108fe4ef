"""Places in capped queues: what a job asks admission control for, and the reply."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, NamedTuple, TypedDict, get_args
from uuid import UUID

from headrace.domain.apps import UNLIMITED, AppLimits
from headrace.domain.limits import RatesLeft
from headrace.domain.queues import Candidate

RateReason = Literal["requests_per_minute", "tokens_per_minute"]

#: The queue has no room for the job, or could not start it in time: more hosts would have taken it. An app's share is
#: one of the room that several apps want. `no_worker` is any of them while no worker serves the queue: admission
#: control does not know it, the door says it.
RoomReason = Literal["depth", "tokens", "wait", "share", "token_share", "no_worker"]

Reason = RoomReason | Literal["app_jobs"] | RateReason

#: The reasons of refusals that count as demand for a pool. The others are an app's own limits: `app_jobs`, its rates,
#: and its budget.
ROOM_REASONS: tuple[RoomReason, ...] = get_args(RoomReason)


@dataclass(frozen=True, slots=True)
class Ask:
    """A job that needs a place: its candidate queues, best first, and its app's limits.

    Attributes:
        tokens: the most that the job can use.
        expected_tokens: the tokens that it will likely use; None for as many as `tokens`.
    """

    job_id: UUID
    app_id: UUID
    tokens: int
    candidates: tuple[Candidate, ...]
    limits: AppLimits = UNLIMITED
    expected_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """A place taken in a queue.

    Attributes:
        position: from 1.
        depth: jobs that wait in the queue, this one included.
        ahead_tokens: estimate of the tokens that the jobs ahead will use: their number times the queue's mean.
        free: free slots of the queue's pool.
        start_by: the latest time of the job's first start; None until the job is durable.
    """

    candidate: Candidate
    position: int
    depth: int
    ahead_tokens: int
    rates_left: RatesLeft
    free: int = 0
    start_by: datetime | None = None


class Bound(TypedDict, total=False):
    """The bound that a refusal met: exactly one key is set. See `Refusal`."""

    cap_jobs: int
    cap_tokens: int
    retry_in_ms: int


def bound_of(reason: Reason, number: int) -> Bound:
    """Name the number that comes with this reason."""
    match reason:
        case "requests_per_minute" | "tokens_per_minute":
            return {"retry_in_ms": number}
        case "tokens" | "token_share" | "wait":
            return {"cap_tokens": number}
    return {"cap_jobs": number}


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a job got no place.

    Attributes:
        depth: jobs in the first candidate.
        backlog_tokens: the most tokens that the jobs in the first candidate can use.
        expected_tokens: the tokens that they will likely use.
        free: free slots of its pool.
        cap_jobs: the cap that was met, or the app's share of it, in jobs; None for another reason.
        cap_tokens: the same in tokens.
        retry_in_ms: time until the app's rate allows this job; None for another reason.
    """

    reason: Reason
    depth: int
    backlog_tokens: int
    expected_tokens: int
    rates_left: RatesLeft
    free: int = 0
    cap_jobs: int | None = None
    cap_tokens: int | None = None
    retry_in_ms: int | None = None

    @property
    def cap(self) -> int:
        """The cap that was met, in `unit`."""
        return (self.cap_tokens if self.unit == "tokens" else self.cap_jobs) or 0

    @property
    def unit(self) -> Literal["tokens", "jobs"]:
        """The unit of the bound that was met."""
        return "tokens" if self.reason in ("tokens", "token_share", "wait") else "jobs"

    @property
    def waiting(self) -> int:
        """What waits in the first candidate, in `unit`. The reason `wait` counts expected tokens."""
        if self.unit == "jobs":
            return self.depth
        return self.expected_tokens if self.reason == "wait" else self.backlog_tokens


class RefusalKey(NamedTuple):
    """What refused jobs are counted by.

    Attributes:
        queue: the one that they wanted.
        is_repeat: the same request was refused before in this minute. It is no further demand.
    """

    app_id: UUID
    queue: str
    reason: str
    is_repeat: bool = False


@dataclass(frozen=True, slots=True)
class RefusalCount:
    """How many jobs were refused, and their size.

    Attributes:
        tokens: the most that they could have used.
        expected_tokens: what they would likely have used.
    """

    jobs: int = 0
    tokens: int = 0
    expected_tokens: int = 0

    def __add__(self, other: "RefusalCount") -> "RefusalCount":
        tokens, expected_tokens = self.tokens + other.tokens, self.expected_tokens + other.expected_tokens
        return RefusalCount(self.jobs + other.jobs, tokens, expected_tokens)


@dataclass(frozen=True, slots=True)
class Load:
    """What waits in one queue. A job counts from its reservation to its claim.

    Attributes:
        tokens: the most that the jobs can use.
        apps: number of apps with jobs in the queue.
        expected_tokens: the tokens that the jobs will likely use.
    """

    jobs: int
    tokens: int
    apps: int
    expected_tokens: int
