"""The fleet: what workers report of themselves, and the samples taken of queues and workers."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

#: Stands where a running job's worker is named, once that worker has disowned it.
NOBODY = UUID(int=0)


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """What a worker says of itself once its engine is up; see `EngineLimits` for the sizes."""

    id: UUID
    name: str
    host_id: str
    pool: str
    engine: str
    model: str
    max_running: int
    max_model_tokens: int | None = None
    kv_tokens: int | None = None
    kv_block_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Fleet:
    """The live workers of one pool, added up.

    Attributes:
        max_model_tokens: the smallest limit among them: what any of them can serve.
        kv_tokens: likewise the smallest pool.
        kv_use: share of their KV caches that was in use of late; None when nobody says.
    """

    pool: str
    workers: int
    hosts: int
    slots: int
    running: int
    max_model_tokens: int | None
    kv_tokens: int | None
    kv_use: float | None = None


@dataclass(frozen=True, slots=True)
class QueueSample:
    """One queue at one moment; counts are since the sample before. See `headrace.tables.queue_samples`."""

    queue: str
    at: datetime
    depth: int
    oldest_wait_s: float
    arrivals: int
    refused: int
    started: int
    running: int
    slots: int
    hosts: int
    depth_tokens: int = 0
    started_tokens: int = 0


@dataclass(frozen=True, slots=True)
class ScalingRecord:
    """A scaling decision of a pool with so many hosts. See `headrace.tables.decisions`.

    Attributes:
        inputs: everything it was made of, so that it can be replayed.
    """

    pool: str
    mode: str
    hosts: int
    target: int
    reason: str
    inputs: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class QueueActivity:
    """What Postgres knows of a queue since a given time."""

    oldest_wait_s: float = 0.0
    arrivals: int = 0
    started: int = 0
    running: int = 0


@dataclass(frozen=True, slots=True)
class StartedSize:
    """Jobs of one queue, pool and lane that were started, and may have as long an answer."""

    pool: str
    queue: str
    lane: str
    max_tokens: int
    jobs: int
    prompt_tokens: int


@dataclass(frozen=True, slots=True)
class WorkerSample:
    """What a worker's engine did since its sample before. See `headrace.tables.worker_samples`."""

    worker_id: UUID
    pool: str
    interval_s: float
    running: float
    waiting: int
    steps: int
    kv_use: float | None
    kv_reserved: float | None
    prompt_tokens: int
    output_tokens: int
    preemptions: int
    first_token_s: float | None
