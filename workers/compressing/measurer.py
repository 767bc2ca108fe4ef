"""Measures surprise for jobs of other pools, beside the jobs of this worker's own pool."""

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from headrace.broker.compressions import Answered, Compressions
from headrace.domain.compression import Compression, Cut
from headrace.domain.ids import new_id, show_id
from headrace.domain.prompts import Message
from headrace.domain.queues import Lane
from headrace.errors import BrokerUnavailable, EngineError, InvalidRequest, PayloadUnreadable, StoreUnavailable
from headrace.policies.compression import digest, plain
from headrace.policies.tokens import PromptTokenizer
from headrace.store import Store
from headrace.store.jobs import texts
from workers.compressing.phrases import find_spare
from workers.engines.base import SurpriseMeter
from workers.taking.kv_budget import KvBudget

log = logging.getLogger(__name__)

#: Prompts that are measured at once: the engine reads them in one batch.
AT_ONCE = 4
#: The longest prompt that is measured for another pool, in tokens: longer ones would hold up this pool's own jobs.
MOST_TOKENS = 32_768
#: Seconds between two tries while Redis is down, or this worker is not ready.
PAUSE_S = 1.0


@dataclass(slots=True)
class Measurer:
    """Answers other pools' requests, in threads of its own.

    Attributes:
        pool: the pool that this worker's engine serves.
        ready: set while the engine can take work.
        kv_budget: a prompt is measured only where the engine's KV cache has room for it beside the jobs.
    """

    pool: str
    engine: SurpriseMeter
    tokenizer: Callable[[], PromptTokenizer]
    store: Store
    compressions: Compressions
    kv_budget: KvBudget
    ready: threading.Event
    _ended: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def begin(self) -> None:
        """Answer requests from now on."""
        self._threads = [threading.Thread(target=self._run, name=f"measurer-{no}") for no in range(AT_ONCE)]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Answer those that run, and no more. Safe to call twice."""
        self._ended.set()
        for thread in self._threads:
            thread.join()
        self._threads = []

    def _run(self) -> None:
        while not self._ended.is_set():
            if not self.ready.is_set():
                self._ended.wait(PAUSE_S)
                continue
            try:
                if job_id := self.compressions.take(self.pool):
                    self.compressions.answer(job_id, self._find(job_id))
            except BrokerUnavailable as error:
                log.warning("measurer_waits", extra={"error": str(error)})
                self._ended.wait(PAUSE_S)

    def _find(self, job_id: UUID) -> Answered | None:
        """What can go of a job's prompt; None if it cannot be measured now."""
        try:
            with self.store.begin() as db:
                found = texts.prompt(db, job_id)
            if found is None or (compression := found[1].compression) is None:
                return None
            messages = plain(found[0], compression)
            cuts = self._cuts(messages, compression)
        except (EngineError, InvalidRequest, PayloadUnreadable, StoreUnavailable) as error:
            log.warning("surprise_not_measured", extra={"job_id": show_id(job_id), "error": str(error)})
            return None
        return None if cuts is None else Answered(digest(messages), tuple(cuts))

    def _cuts(self, messages: Sequence[Message], compression: Compression) -> list[Cut] | None:
        """What to cut; None if the prompt is too long, or the engine has no room for it now."""
        # The windows in which an engine measures a text overlap by a quarter at most.
        tokens, request = self.tokenizer().count(messages) * 4 // 3, new_id()
        if tokens > MOST_TOKENS or not self.kv_budget.hold(request, Lane.NORMAL, tokens, 1):
            return None
        try:
            return find_spare(self.engine, request.hex, messages, compression, Lane.NORMAL.priority)
        finally:
            self.kv_budget.release(request)
