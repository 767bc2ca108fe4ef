"""Why a job waits, in sentences for operators. Pure."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from headrace.domain.ids import show_id
from headrace.domain.states import JobState


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is around a job that waits.

    Attributes:
        ahead: queued jobs of its queue that were queued earlier; None if it is not queued.
        workers: live workers of its queue's pool.
        running, slots: of these workers.
        expected_wait_s: of a job that came now; None if it is unknown.
    """

    now: datetime
    ahead: int | None
    workers: int
    running: int
    slots: int
    expected_wait_s: float | None


def reasons(job: Any, around: Surroundings) -> list[str]:
    """Why a job waits; empty if it does not.

    Args: job: a row with `state`, `queue`, `not_before`, `attempt`, `start_by`, `started_at`, `suspicion` and
        `served_by_job`.
    """
    if job.state == JobState.WAITING:
        found = _waiting(job, around.now)
    elif job.state == JobState.QUEUED:
        found = _queued(job, around)
    else:
        return []
    if job.started_at is None:
        left_s = (job.start_by - around.now).total_seconds()
        found.append(f"It expires in {left_s:,.0f} s unless it starts." if left_s > 0 else "It expires now.")
    return found


def _waiting(job: Any, now: datetime) -> list[str]:
    after = f" after attempt {job.attempt}" if job.attempt else ""
    if job.served_by_job is not None:
        return [f"It waits for the answer of {show_id(job.served_by_job)}, which is asked the same."]
    if job.not_before is None:
        return [f"It is held back{after}: it waits for its budget or for room in {job.queue}."]
    if job.not_before > now:
        return [f"Its next try{after} is due in {(job.not_before - now) / timedelta(seconds=1):,.0f} s."]
    return [f"Its next try{after} is due: it enters {job.queue} as soon as that has room."]


def _queued(job: Any, around: Surroundings) -> list[str]:
    ahead = around.ahead or 0
    found = [f"{ahead:,} jobs entered {job.queue} before it." if ahead else f"It is the oldest job in {job.queue}."]
    if not around.workers:
        found.append("The pool has no live worker.")
    elif around.running >= around.slots:
        found.append(f"All {around.slots} slots of {_workers(around.workers)} are taken.")
    else:
        free = around.slots - around.running
        found.append(f"{free} of {around.slots} slots are free: its turn, its KV cache or its app's share is to come.")
    if job.suspicion > 1:
        found.append("It may have killed an engine, so it waits for a worker that runs nothing else.")
    if around.expected_wait_s is not None:
        found.append(f"A job that came now would wait {around.expected_wait_s:,.0f} s.")
    return found


def _workers(count: int) -> str:
    return "1 worker" if count == 1 else f"{count} workers"
