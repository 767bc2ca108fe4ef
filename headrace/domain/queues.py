"""Names of queues and tasks, on which producers and consumers must agree.

A queue is a Celery queue, which kombu keeps as one Redis list. Nothing here touches Redis.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Self
from uuid import UUID

from headrace.domain.states import SUSPECT


class Lane(StrEnum):
    """A priority class, best first."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"
    BATCH = "batch"

    @property
    def priority(self) -> int:
        """Rank for an engine's scheduler: lower runs first."""
        return list(Lane).index(self)


class Overflow(StrEnum):
    """Whether the paid API may answer a job."""

    ALLOW = "allow"
    NEVER = "never"
    ONLY = "only"


class Route(StrEnum):
    """Where a job runs: on its own pool, or at the paid API."""

    POOL = "pool"
    OVERFLOW = "overflow"


#: Task names. Producers use these constants, so that `api` never imports `workers` and, with it, CUDA.
EXECUTE = "headrace.execute"
DELIVER = "headrace.deliver"
OBSERVE = "headrace.observe"
AUTOSCALE = "headrace.autoscale"

OVERFLOW = "overflow"
WEBHOOKS = "webhooks"
CONTROL = "control"

#: Every Redis key has this hash tag, so that one Lua call may use several keys on a Redis Cluster.
KEY_PREFIX = "{headrace}:"
#: The channel that names jobs which changed state without a worker: hex ids, separated by spaces. May lose messages.
MOVED = KEY_PREFIX + "moved"


def queue_name(pool: str, lane: Lane) -> str:
    """The queue of one lane of a pool; `pool` may be `overflow`."""
    return f"{pool}.{lane}"


def parts_of(queue: str) -> tuple[str, str]:
    """The pool and the lane of a queue."""
    pool, _, lane = queue.rpartition(".")
    return pool, lane


def wanted_queue(pool: str, lane: Lane, overflow: Overflow, paid_pools: Collection[str]) -> str:
    """The queue that a job would wait in if every queue had room: whose demand it is.

    Args:
        paid_pools: the pools that only the paid API answers.
    """
    goes_out = overflow is Overflow.ONLY or pool in paid_pools
    return queue_name(OVERFLOW if goes_out else pool, lane)


def lane_queues(pool: str) -> tuple[str, ...]:
    """The queues of a pool, best lane first."""
    return tuple(queue_name(pool, lane) for lane in Lane)


def bell_key(pool: str) -> str:
    """The Redis stream that gets an entry whenever the pool's queues get messages; `lua/books.lua` writes it.

    The bell of `webhooks` gets an entry when deliveries are due; these wait in Postgres.
    """
    return f"{KEY_PREFIX}bell:{pool}"


def books_key(kind: str, queue: str) -> str:
    """The Redis key of one of a queue's books; `lua/books.lua` documents each."""
    return f"{KEY_PREFIX}{kind}:{queue}"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A queue that a job may go to, and its caps.

    Attributes:
        depth_cap: jobs that may wait in it.
        backlog_cap_tokens: tokens that may wait in it.
        ahead_cap_tokens: the most tokens ahead of a job that still starts in time; None while no rate is known.
        reason: why the queue is a candidate.
        free_until: the pool's count of departed jobs at which none of its slots is free any more.
    """

    queue: str
    depth_cap: int
    backlog_cap_tokens: int
    ahead_cap_tokens: int | None
    reason: str
    free_until: int = 0


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a queue's message says about a job, without its text.

    Attributes:
        enqueue_no: how often this job has been put into a queue; a claim with an older number finds nothing.
        max_tokens: the longest answer that the job allows.
        n: the number of its answers.
        start_by: the latest time of a first start.
        alone: True for a job that may have killed an engine: nothing else may run beside it.
    """

    job_id: UUID
    app_id: UUID
    queue: str
    lane: Lane
    prompt_tokens: int
    max_tokens: int
    start_by: datetime
    enqueue_no: int = 1
    alone: bool = False
    n: int = 1

    @classmethod
    def of(cls, job: Any) -> Self:
        """What the job's message in its queue says now. Args: job: a `Job`, or a row of `jobs`."""
        names = ("app_id", "queue", "prompt_tokens", "max_tokens", "start_by", "enqueue_no")
        same = {name: getattr(job, name) for name in names}
        return cls(job.id, lane=Lane(job.lane), alone=job.suspicion >= SUSPECT, n=job.n or 1, **same)

    @property
    def kv_tokens(self) -> int:
        """The most KV cache that the job can use, in tokens. The queue's backlog counts this number."""
        return self.prompt_tokens + self.n * self.max_tokens
