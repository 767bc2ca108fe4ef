"""The running worker, as its threads share it."""

import threading
from dataclasses import dataclass, field
from uuid import UUID

from headrace.domain.ids import new_id
from workers.running.attempts import RunningAttempts
from workers.running.crashes import Crashes


@dataclass(frozen=True, slots=True)
class WorkerState:
    """Who this worker is, and how it is. Safe for many threads.

    Attributes:
        id: its row in `workers`: the fence of every claim.
        ready: set while its engine can answer.
        attempts: those that run.
        crashes: of its engine.
    """

    id: UUID = field(default_factory=new_id)
    ready: threading.Event = field(default_factory=threading.Event)
    attempts: RunningAttempts = field(default_factory=RunningAttempts)
    crashes: Crashes = field(default_factory=Crashes)
