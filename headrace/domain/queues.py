"""Queues and tasks by name: what producers and consumers must agree on.

A queue is a Celery queue, which kombu keeps as one Redis list. Nothing here touches Redis.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID


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
    """Whether a job may be answered by the paid API."""

    ALLOW = "allow"
    NEVER = "never"
    ONLY = "only"


class Route(StrEnum):
    """Which way a job was sent."""

    POOL = "pool"
    OVERFLOW = "overflow"


#: Task names. Producers name tasks by these, so that `api` never imports `workers`, nor CUDA with it.
EXECUTE = "headrace.execute"
DELIVER = "headrace.deliver"
OBSERVE = "headrace.observe"
AUTOSCALE = "headrace.autoscale"

OVERFLOW = "overflow"
WEBHOOKS = "webhooks"
CONTROL = "control"

#: Every Redis key carries this hash tag, so that one Lua call may touch several of them on a Redis Cluster.
KEY_PREFIX = "{headrace}:"
#: The channel on which jobs are named that moved without a worker: ids in hex, spaces between. May lose some.
MOVED = KEY_PREFIX + "moved"


def queue_name(pool: str, lane: Lane) -> str:
    """The queue of one lane of a pool; `pool` may be `overflow`."""
    return f"{pool}.{lane}"


def lane_queues(pool: str) -> tuple[str, ...]:
    """The queues of a pool, best lane first."""
    return tuple(queue_name(pool, lane) for lane in Lane)


def bell_key(pool: str) -> str:
    """The Redis stream that gets an entry whenever the pool's queues get messages; `lua/books.lua` writes it.

    That of `webhooks` gets one when deliveries are due, which wait in Postgres.
    """
    return f"{KEY_PREFIX}bell:{pool}"


def books_key(kind: str, queue: str) -> str:
    """The key of one of a queue's books; `lua/books.lua` says what each holds."""
    return f"{KEY_PREFIX}{kind}:{queue}"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A queue a job may go to, and what holds there.

    Attributes:
        depth_cap: jobs that may wait in it.
        backlog_cap_tokens: tokens that may wait in it.
        ahead_cap_tokens: tokens before a job that can just start in time; None while no rate is known.
        reason: why the queue is a candidate.
        free_until: how many will have left the pool's queues, ever, when all of its free slots are taken.
    """

    queue: str
    depth_cap: int
    backlog_cap_tokens: int
    ahead_cap_tokens: int | None
    reason: str
    free_until: int = 0


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a queue's message carries about a job: never its text.

    Attributes:
        enqueue_no: counts the times this job was put into a queue; a claim with an older number finds nothing.
        max_tokens: the longest answer that it asks for.
        start_by: past it, a first start is too late.
        alone: True for a job that may have killed an engine.
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

    @property
    def kv_tokens(self) -> int:
        """The most KV cache the job can come to hold; what it counts for in the queue's backlog."""
        return self.prompt_tokens + self.max_tokens
