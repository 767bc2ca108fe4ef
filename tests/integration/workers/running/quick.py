"""An engine that answers at once, and notices that keep what they are told."""

import threading
from dataclasses import dataclass, field
from uuid import UUID

from headrace.domain.attempts import Usage
from headrace.errors import EngineFault
from workers.engines.base import Delta, EngineLimits, Generation, GenerationRequest, OnDelta, Progress
from workers.running.publisher import Notices

DEADLINE_S = 20
ANSWER = "An answer."


@dataclass
class QuickEngine:
    """Answers at once, or says its answer and waits for its abort.

    Attributes:
        said: set once it has said its answer.
        may_end: what it says, it ends once this is set.
    """

    name: str = "quick"
    continues: bool = True
    waits_for_abort: bool = False
    error: EngineFault | None = None
    requests: list[str] = field(default_factory=list)
    said: threading.Event = field(default_factory=threading.Event)
    may_end: threading.Event = field(default_factory=threading.Event)
    aborted: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.may_end.set()

    def start(self) -> EngineLimits:
        return EngineLimits(2048, 4)

    def generate(self, request: GenerationRequest, on_delta: OnDelta | None = None) -> Generation:
        self.requests.append(request.request_id)
        if on_delta is not None:
            on_delta(Delta(ANSWER.removeprefix(request.prefix)))
        self.said.set()
        assert self.may_end.wait(DEADLINE_S)
        if self.error is not None:
            raise self.error
        if self.waits_for_abort:
            assert self.aborted.wait(DEADLINE_S)
        return Generation(ANSWER, Usage(8, 3), "abort" if self.waits_for_abort else "stop", "quick-model")

    def abort(self, request_id: str) -> None:
        self.aborted.set()

    def progress(self) -> dict[str, Progress]:
        return {}

    def check(self) -> None: ...

    def stop(self) -> None: ...


class Heard(Notices):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.announced, self.places = list[UUID](), list[tuple[UUID, int]]()

    def claimed(self, job_id: UUID, enqueue_no: int) -> None:
        self.places.append((job_id, enqueue_no))

    def ended(self, job_id: UUID, *, has_webhook: bool) -> None:
        self.announced.append(job_id)
