"""The state of a running worker, which its threads share."""

import threading
from dataclasses import dataclass, field
from uuid import UUID

from headrace.domain.ids import new_id
from workers.running.attempts import RunningAttempts
from workers.running.crashes import Crashes


class UncheckedAnswers:
    """Counts the answers that a cascade could not check. Safe for many threads."""

    def __init__(self) -> None:
        self._lock, self.total = threading.Lock(), 0

    def add(self) -> None:
        with self._lock:
            self.total += 1


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
    """

    id: UUID = field(default_factory=new_id)
    ready: threading.Event = field(default_factory=threading.Event)
    host_drains: threading.Event = field(default_factory=threading.Event)
    attempts: RunningAttempts = field(default_factory=RunningAttempts)
    crashes: Crashes = field(default_factory=Crashes)
    unchecked: UncheckedAnswers = field(default_factory=UncheckedAnswers)

    def takes(self) -> bool:
        """True while the worker takes jobs."""
        return self.ready.is_set() and not self.host_drains.is_set()
