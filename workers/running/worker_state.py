"""The state of a running worker, which its threads share."""

import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from uuid import UUID

from headrace.domain.ids import new_id
from headrace.metrics import Counts
from workers.running.attempts import RunningAttempts
from workers.running.crashes import Crashes


class UncheckedAnswers:
    """Counts the answers that a cascade could not check. Safe for many threads."""

    def __init__(self) -> None:
        self._lock, self.total = threading.Lock(), 0

    def add(self) -> None:
        with self._lock:
            self.total += 1


class ConfinedApps:
    """The confined apps of a worker's pool, as of its last renewal. Safe for many threads."""

    def __init__(self) -> None:
        """None."""
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
        id: of its row in `workers`; fences every claim.
        ready: set while its engine can answer, and it is not stopping.
        host_drains: set while its host drains: it takes no more jobs, and finishes those that it has. Separate from
            `ready`, so that an engine that starts again does not open a draining worker.
        attempts: the running attempts.
        crashes: the engine's recent crashes.
        unchecked: the answers whose JSON passed unchecked.
        confined: the confined apps of its pool.
        unread: counts the claimed jobs whose prompts this process could not read, by error code.
    """

    id: UUID = field(default_factory=new_id)
    ready: threading.Event = field(default_factory=threading.Event)
    host_drains: threading.Event = field(default_factory=threading.Event)
    attempts: RunningAttempts = field(default_factory=RunningAttempts)
    crashes: Crashes = field(default_factory=Crashes)
    unchecked: UncheckedAnswers = field(default_factory=UncheckedAnswers)
    confined: ConfinedApps = field(default_factory=ConfinedApps)
    unread: Counts = field(default_factory=lambda: Counts("payloads_unread", "", ["code"]))

    def takes(self) -> bool:
        """True while the worker takes jobs."""
        return self.ready.is_set() and not self.host_drains.is_set()
