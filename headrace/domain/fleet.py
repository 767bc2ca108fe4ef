"""The fleet: what processes and workers report about themselves, and samples of queues and workers."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, Literal
from uuid import UUID

from headrace.domain.attempts import HeldAttempt
from headrace.domain.prompts.payloads import PAYLOAD_VERSION
from headrace.domain.queues import OVERFLOW

#: The `worker_id` of a running job that its worker has disowned.
NO_WORKER = UUID(int=0)


class ProcessKind(StrEnum):
    """A line of the Procfile whose process gives signs of life."""

    WEB = "web"
    OPS = "ops"
    GPU = "gpu"
    OVERFLOW = "overflow"
    WEBHOOKS = "webhooks"
    PLUGINS = "plugins"
    CONTROL = "control"
    BEAT = "beat"


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """What a process says of itself with each sign of life.

    Attributes:
        id: of this life: a restarted process has another.
        name: the same in each life.
        pool: of a GPU worker; None for others.
        scaling_mode: of a control process: `active` or `advisory`; None for others.
    """

    id: UUID
    kind: ProcessKind
    name: str
    host_id: str
    pid: int
    version: str
    pool: str | None
    scaling_mode: str | None


@dataclass(frozen=True, slots=True)
class Life:
    """One life of a process, as Postgres knows it.

    Attributes:
        stopped_at: when it said that it stops; None: it runs, or it was killed, or hangs.
        is_alive: it has not stopped, and its last sign is fresh.
        silent_s: seconds since its last sign.
        problems: what it said was wrong in it, by the names of the alerts.
        end_reason: why it ended, if a supervisor saw that and it did not say so itself.
    """

    kind: ProcessKind
    name: str
    host_id: str
    pid: int
    pool: str | None
    version: str
    scaling_mode: str | None
    started_at: datetime
    seen_at: datetime
    stopped_at: datetime | None
    problems: Mapping[str, str]
    is_alive: bool
    silent_s: float
    end_reason: str | None = None

    @property
    def was_lost(self) -> bool:
        """True if it ended without saying so, or hangs."""
        return self.stopped_at is None and not self.is_alive


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """What a worker reports about itself once its engine is up; `EngineLimits` documents the sizes.

    Attributes:
        payload_version: the highest version of jobs' prompts that it reads.
    """

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
    payload_version: int = PAYLOAD_VERSION


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """What a worker reports of itself with each renewal of its lease.

    Attributes:
        running: attempts that it runs.
        ready: it takes jobs.
        draining: it takes none because its host drains.
    """

    running: int
    ready: bool
    draining: bool = False


@dataclass(frozen=True, slots=True)
class Renewal:
    """What Postgres answers to a renewal.

    Attributes:
        held: the attempts under the worker's lease.
        host_drains: the worker's host is to be drained.
        confined: the confined apps of the worker's pool, each with the job that only another worker may run, if any.
    """

    held: tuple[HeldAttempt, ...]
    host_drains: bool
    confined: Mapping[UUID, UUID | None]


@dataclass(frozen=True, slots=True)
class Fleet:
    """The live workers of one pool, added up.

    Attributes:
        workers: all of them.
        hosts: of the workers that take jobs: those on a host that is not draining. Several workers may share a host.
        slots: jobs that these workers can run at once.
        running: jobs that they run.
        max_model_tokens: the smallest limit among them, which every one of them can serve.
        kv_tokens: the smallest KV cache among them.
        kv_use: share of their KV caches in use lately; None if no worker reports it.
        kv_reserved: share that their KV ledgers lately expected to be in use at its peak; None if no worker has one.
        payload_version: the highest version of jobs' prompts that every one of them reads; None without workers.
        ran_s: how long the job has run that has run longest; None: none runs.
    """

    pool: str
    workers: int
    hosts: int
    slots: int
    running: int
    max_model_tokens: int | None
    kv_tokens: int | None
    kv_use: float | None = None
    kv_reserved: float | None = None
    payload_version: int | None = None
    ran_s: float | None = None

    @property
    def is_too_old(self) -> bool:
        """True if a worker among them does not read every job that this release may write."""
        return self.payload_version is not None and self.payload_version < PAYLOAD_VERSION

    @property
    def takes_at_once(self) -> int:
        """More jobs that fit now, if they are like those that run: into the slots, and into the KV caches."""
        free = max(0, self.slots - self.running)
        if not self.kv_reserved:
            return free
        # Where the KV cache is the limit, most slots stay empty for ever.
        return min(free, max(0, int(self.running / self.kv_reserved) - self.running)) if self.running else free


@dataclass(frozen=True, slots=True)
class PoolGpus:
    """How the GPUs of a pool's workers were used lately, as NVIDIA's driver says; None: it does not say.

    Attributes:
        busy: share of the time in which they ran a kernel, mean of the workers.
        memory: share of their memory that is taken, mean of the workers.
        watts: of all of them.
    """

    busy: float | None
    memory: float | None
    watts: float | None


def fleet_of(pool: str, fleets: Mapping[str, Fleet]) -> Fleet:
    """The pool's fleet; all zeros if it has no live workers."""
    return fleets.get(pool) or Fleet(pool, 0, 0, 0, 0, None, None)


#: The reason of a pool that no worker serves, wherever an app or an operator reads one.
NO_WORKER_REASON: Final = "no_worker"
#: When to try again, in seconds, where a worker comes and its time is unknown.
RETRY_UNSERVED_S = 30

#: Why a worker will likely come: a host is on order; a worker process of the pool was seen within the last minute, and
#: loads its model or was restarted; or the autoscaler may order a host.
Remedy = Literal["host", "process", "autoscaler"]


@dataclass(frozen=True, slots=True)
class Vacancy:
    """A pool that no worker serves now.

    Attributes:
        remedy: None: only an operator can help.
        worker_in_s: seconds until the host on order is likely ready; None without one.
    """

    pool: str
    remedy: Remedy | None
    worker_in_s: float | None = None

    @property
    def retry_after_s(self) -> int | None:
        """Whole seconds after which a retry makes sense; None if it never does."""
        if self.worker_in_s is not None:
            return max(1, math.ceil(self.worker_in_s))
        return None if self.remedy is None else RETRY_UNSERVED_S

    @property
    def comes(self) -> str:
        """Whether a worker comes, as the rest of a sentence."""
        match self.remedy:
            case "host":
                return f"a host is on order, and ready in about {self.retry_after_s} s"
            case "process":
                return "a worker process was seen within the last minute, and may be loading its model"
            case "autoscaler":
                return "the autoscaler may order a host"
        return "none is coming"

    def __str__(self) -> str:
        """What an app should know, and when to try again."""
        who = "calls the paid API" if self.pool == OVERFLOW else f"serves pool {self.pool}"
        when = "Do not retry soon" if self.retry_after_s is None else f"Retry after {self.retry_after_s} s"
        return f"No worker {who}: {self.comes}. {when}."


@dataclass(frozen=True, slots=True)
class QueueSample:
    """One queue at one moment; counts are since the previous sample. See `headrace.tables.queue_samples`.

    Attributes:
        arrivals: jobs accepted into this queue, whichever they wanted.
        offered: jobs that wanted this queue: accepted anywhere, or refused for a reason of `places.ROOM_REASONS`. A job
            that may go to the paid API alone wants the queue of `overflow`. Each job is counted once, and the
            discounted ones are not.
        offered_tokens: their prompts, and the expected length of their answers.
        refused: the refused ones among them.
        discounted, discounted_tokens: further refused jobs, which are no demand. See `Moment`.
        spilled: those that first went to the paid API in this interval, at the door or later. They may have been
            offered in an earlier one.
        finished: jobs that ended on a worker.
        ended, failed, expired: jobs that ended in any way, that failed, and that did not start in time.
        hosts: ready ones, of this queue's pool.
        kv_use: of the pool.
    """

    queue: str
    at: datetime
    depth: int = 0
    oldest_wait_s: float = 0.0
    arrivals: int = 0
    refused: int = 0
    started: int = 0
    running: int = 0
    slots: int = 0
    hosts: int = 0
    depth_tokens: int = 0
    started_tokens: int = 0
    offered: int = 0
    offered_tokens: int = 0
    spilled: int = 0
    finished: int = 0
    ended: int = 0
    failed: int = 0
    expired: int = 0
    hosts_requested: float = 0.0
    hosts_draining: float = 0.0
    kv_use: float | None = None
    discounted: int = 0
    discounted_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Flow:
    """Arrivals and departures of one queue.

    Attributes:
        refused: for lack of room or time, as far as it counts as demand.
        discounted: refused, too, but no demand: repeats, and what one app had refused beyond its share.
    """

    arrivals: int = 0
    refused: int = 0
    discounted: int = 0
    started: int = 0
    ended: int = 0
    failed: int = 0
    expired: int = 0

    @property
    def all_refused(self) -> int:
        """Every refusal for lack of room or time."""
        return self.refused + self.discounted


@dataclass(frozen=True, slots=True)
class ScalingRecord:
    """A scaling decision for a pool with `hosts` hosts. See `headrace.tables.decisions`.

    Attributes:
        inputs: everything that the decision used, so that it can be replayed.
        action: an `Action`.
        policy: what decided.
        version: of the policy's code.
        need: hosts that the load needs; None if the policy does not say.
        spare_need: hosts below which none is spare.
        forecast_tokens_per_s: the load expected at `forecast_at`; None where the policy makes no forecast.
        burst_until: a burst counts until then; None for no burst.
    """

    pool: str
    mode: str
    hosts: int
    target: int
    reason: str
    inputs: Mapping[str, Any]
    action: str = "hold"
    policy: str = "reactive"
    version: int = 0
    need: int | None = None
    spare_need: int | None = None
    forecast_tokens_per_s: float | None = None
    forecast_at: datetime | None = None
    burst_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class QueueActivity:
    """What Postgres knows about a queue since a given time."""

    oldest_wait_s: float = 0.0
    running: int = 0
    finished: int = 0


@dataclass(frozen=True, slots=True)
class TimedJobs:
    """Jobs of one queue whose times fall into one bucket of a histogram.

    Attributes:
        bucket: how many of the histogram's bounds are below each of the times.
        seconds: the sum of the times.
    """

    queue: str
    bucket: int
    jobs: int
    seconds: float


@dataclass(frozen=True, slots=True)
class EndedJobs:
    """Jobs of one queue that ended alike.

    Attributes:
        error_code: empty without an error.
        bucket, seconds: as those of `TimedJobs`, for the time from the first start to the end; None if they did not
            start.
    """

    queue: str
    state: str
    error_code: str
    bucket: int | None
    jobs: int
    seconds: float


@dataclass(frozen=True, slots=True)
class AlikeJobs:
    """Jobs of one pool, lane and queue, and of the same `overflow`, `max_tokens` and `n`.

    Attributes:
        prompt_tokens: of all of them.
    """

    pool: str
    lane: str
    queue: str
    overflow: str
    max_tokens: int
    jobs: int
    prompt_tokens: int
    n: int = 1


@dataclass(frozen=True, slots=True)
class WorkerSample:
    """What a worker's engine did since its previous sample. See `headrace.tables.worker_samples`."""

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
    gpu_use: float | None = None
    gpu_memory: float | None = None
    gpu_watts: float | None = None
