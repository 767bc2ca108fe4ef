"""Places in capped queues: what a job asks of admission control, and how the request ends."""

from dataclasses import dataclass
from typing import Literal, TypedDict
from uuid import UUID

from headrace.domain.apps import UNLIMITED, AppLimits
from headrace.domain.queues import Candidate
from headrace.domain.rates import RatesLeft

RateReason = Literal["requests_per_minute", "tokens_per_minute"]


Reason = Literal["depth", "tokens", "wait", "share", "token_share", "app_jobs"] | RateReason


@dataclass(frozen=True, slots=True)
class Ask:
    """One job that wants a place: where it may go, best first, and what its app may have.

    Attributes:
        tokens: that it may take at most.
        expected_tokens: that it will likely take; None: as many.
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
        position: counts from 1.
        depth: jobs that wait there, this one included.
        ahead_tokens: that the jobs before it will likely take, about: the queue's mean by their number.
        free: slots of the queue's pool that take a job at once.
    """

    candidate: Candidate
    position: int
    depth: int
    ahead_tokens: int
    rates_left: RatesLeft
    free: int = 0


class Bound(TypedDict, total=False):
    """What a refusal is about: one of these. See `Refusal`."""

    cap_jobs: int
    cap_tokens: int
    retry_in_ms: int


def bound_of(reason: Reason, number: int) -> Bound:
    """What the number is that comes with this reason."""
    match reason:
        case "requests_per_minute" | "tokens_per_minute":
            return {"retry_in_ms": number}
        case "tokens" | "token_share" | "wait":
            return {"cap_tokens": number}
    return {"cap_jobs": number}


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why there is no place.

    Attributes:
        depth: jobs in the first candidate.
        backlog_tokens: of the first candidate: what its jobs may take at most.
        expected_tokens: what they will likely take.
        free: slots of its pool that take a job at once.
        cap_jobs: the cap that is the reason, or the app's share of it, in jobs; None for another reason.
        cap_tokens: likewise, in tokens.
        retry_in_ms: until the rate that is the reason allows this job; None for another reason.
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
        """The cap that is the reason, in `unit`."""
        return (self.cap_tokens if self.unit == "tokens" else self.cap_jobs) or 0

    @property
    def unit(self) -> Literal["tokens", "jobs"]:
        """What a queue's bound counts, of those that may be the reason."""
        return "tokens" if self.reason in ("tokens", "token_share", "wait") else "jobs"

    @property
    def waiting(self) -> int:
        """What waits in the first candidate, as the bound counts it: waits are told by expected tokens."""
        if self.unit == "jobs":
            return self.depth
        return self.expected_tokens if self.reason == "wait" else self.backlog_tokens


@dataclass(frozen=True, slots=True)
class Load:
    """What waits in one queue: jobs from their reservation to their claim, and whose they are.

    Attributes:
        tokens: that they may take at most.
        expected_tokens: that they will likely take.
    """

    jobs: int
    tokens: int
    apps: int
    expected_tokens: int
