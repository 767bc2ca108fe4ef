"""The state of a worker, which its threads share: its attempts, its engine's crashes, its confined apps. Pure."""

import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal
from uuid import UUID

from headrace.domain.ids import new_id
from headrace.metrics import Counts

StopReason = Literal["cancelled", "deadline_exceeded", "run_timeout", "lease_lost", "draining"]


class RunningAttempts:
    """The running request ids, each with its reason to stop, if any. Safe for many threads.

    Task threads run the attempts; the lease's thread receives cancels and deadlines.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._changed = threading.Condition()
        self._clock = clock
        self._running: dict[str, StopReason | None] = {}
        self._since: dict[str, float] = {}

    @contextmanager
    def running(self, request_id: str) -> Iterator[None]:
        """Hold the attempt as running."""
        with self._changed:
            self._running[request_id] = None
            self._since[request_id] = self._clock()
        try:
            yield
        finally:
            with self._changed:
                del self._running[request_id], self._since[request_id]
                self._changed.notify_all()

    def stop(self, request_id: str, reason: StopReason) -> bool:
        """Note why an attempt must stop. Keeps the first reason. False if it has ended or already has a reason."""
        with self._changed:
            if self._running.get(request_id, reason) is not None:
                return False
            self._running[request_id] = reason
            return True

    def reason(self, request_id: str) -> StopReason | None:
        """Why this running attempt must stop, or None."""
        with self._changed:
            return self._running.get(request_id)

    def ids(self) -> list[str]:
        with self._changed:
            return list(self._running)

    def stopping(self) -> list[str]:
        with self._changed:
            return [request_id for request_id, reason in self._running.items() if reason is not None]

    def longer_than(self, seconds: float) -> list[str]:
        """The attempts that have run for longer than `seconds`."""
        with self._changed:
            before = self._clock() - seconds
            return [request_id for request_id, since in self._since.items() if since < before]

    def __len__(self) -> int:
        with self._changed:
            return len(self._running)

    def wait_until_idle(self, timeout_s: float) -> bool:
        """Wait until no attempt runs. False if one still runs after `timeout_s`."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._running, timeout_s)


#: This many unexplained crashes within this many seconds are too many.
MOST_CRASHES, WITHIN_S = 3, 600.0


class Crashes:
    """Counts recent crashes of an engine. A worker whose engine dies too often stops itself. Safe for many threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._crashes: deque[float] = deque()
        self._explained: deque[float] = deque()

    def note(self) -> bool:
        """Count a crash. Returns: True when there were too many."""
        with self._lock:
            self._crashes.append(self._clock())
            return self._recent(self._crashes) - self._recent(self._explained) >= MOST_CRASHES

    def explain(self) -> None:
        """Discount a crash: a job caused it, not the worker, and that job will not run again."""
        with self._lock:
            self._explained.append(self._clock())

    def _recent(self, times: deque[float]) -> int:
        while times and self._clock() - times[0] > WITHIN_S:
            times.popleft()
        return len(times)


class ConfinedInPool:
    """The confined apps of a worker's pool, as of its last renewal. Safe for many threads."""

    def __init__(self) -> None:
        # Replaced as a whole, so reading it needs no lock.
        self._apps: Mapping[UUID, UUID | None] = {}

    def __len__(self) -> int:
        return len(self._apps)

    def __contains__(self, app_id: UUID) -> bool:
        return app_id in self._apps

    def set(self, apps: Mapping[UUID, UUID | None]) -> None:
        """Replace them. Args: apps: each with the job that only another worker may run now, if any."""
        self._apps = apps

    def elsewhere(self) -> Collection[UUID]:
        """The jobs that only other workers may run now. They stay in their lists, and no other job waits for them."""
        return [job_id for job_id in self._apps.values() if job_id is not None] if self._apps else ()


@dataclass(frozen=True, slots=True)
class WorkerState:
    """A worker's identity and state. Safe for many threads.

    Attributes:
        id: the id of its row in `workers`; fences every claim.
        ready: set while its engine can answer, and it is not stopping.
        host_drains: set while its host drains: it takes no more jobs, and finishes those that it has. Separate from
            `ready`, so that an engine that starts again does not open a draining worker.
        unchecked: counts the answers whose JSON a cascade could not check, and let pass.
        unread: counts the claimed jobs whose prompts this process could not read, by error code.
    """

    id: UUID = field(default_factory=new_id)
    ready: threading.Event = field(default_factory=threading.Event)
    host_drains: threading.Event = field(default_factory=threading.Event)
    attempts: RunningAttempts = field(default_factory=RunningAttempts)
    crashes: Crashes = field(default_factory=Crashes)
    unchecked: Counts = field(default_factory=lambda: Counts("unchecked_answers", "", []))
    confined: ConfinedInPool = field(default_factory=ConfinedInPool)
    unread: Counts = field(default_factory=lambda: Counts("payloads_unread", "", ["code"]))

    def takes(self) -> bool:
        return self.ready.is_set() and not self.host_drains.is_set()
