"""Compresses a claimed job's prompt right before the engine gets it. The stored prompt stays as it is.

Compression never fails a job, and never holds it for longer than its pool allows: what cannot be measured is not cut.
"""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from uuid import UUID

from headrace.broker.compressions import CompressionReply, Compressions
from headrace.config import PoolSettings
from headrace.domain.attempts import Claim
from headrace.domain.ids import new_id, show_id
from headrace.domain.prompts import Message
from headrace.domain.prompts.compression import Compression, Cut
from headrace.domain.queues import Lane
from headrace.errors import (
    BrokerUnavailable,
    EngineCrash,
    EngineError,
    InvalidRequest,
    PayloadUnreadable,
    StoreUnavailable,
)
from headrace.policies.compression import apply, digest, open_turns, plain, surprising
from headrace.policies.tokens import PromptTokenizer
from headrace.store import Store
from headrace.store.jobs import texts
from workers.engines.base import Engine, SurpriseMeter
from workers.taking.kv_budget import KvBudget

log = logging.getLogger(__name__)

#: Prompts that are measured at once: the engine reads them in one batch.
AT_ONCE = 4
#: The longest prompt that is measured for another pool, in tokens: longer ones would hold up this pool's own jobs.
MOST_TOKENS = 32_768
#: Seconds between two tries while Redis is down, or this worker is not ready.
PAUSE_S = 1.0

Messages = tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Compressor:
    """Serves all threads of one worker.

    Attributes:
        pools: all pools, by name: a job's own says which pool measures surprise.
        pool: the pool that this worker's engine serves.
        tokenizer: gives what counts a prompt: the engine's own tokenizer, or an estimate where that is unknown.
        shrunk: called with a job and the tokens of its prompt once that is shorter.
    """

    pools: Mapping[str, PoolSettings]
    pool: str
    engine: Engine
    tokenizer: Callable[[], PromptTokenizer]
    compressions: Compressions
    shrunk: Callable[[UUID, int], None]

    def compress(self, claim: Claim) -> Claim:
        """The claim with the messages to send. Raises: EngineCrash: this worker's engine died while it measured."""
        compression = claim.sampling.compression
        if compression is None:
            return claim
        how = claim.sampling.reasoning_effort, claim.sampling.template_variables
        try:
            messages = self._compressed(claim, compression)
            tokens = self.tokenizer().count(messages, *how)
            # Other tokens meet where text is cut out, so a prompt may also grow by one or two.
            if tokens >= self.tokenizer().count(claim.messages, *how):
                return claim
        except InvalidRequest:
            # The chat template refuses these messages, as it may refuse the original: the engine's error says why.
            return claim
        self.shrunk(claim.job_id, tokens)
        return replace(claim, compressed=messages)

    def _compressed(self, claim: Claim, compression: Compression) -> Messages:
        messages = plain(claim.messages, compression)
        if compression.method == "plain":
            return messages
        try:
            return self._without_spare(claim, messages, compression)
        except EngineCrash:
            raise
        except (BrokerUnavailable, EngineError) as error:
            log.warning("surprise_not_measured", extra={"job_id": show_id(claim.job_id), "error": str(error)})
            return messages

    def _without_spare(self, claim: Claim, messages: Messages, compression: Compression) -> Messages:
        settings = self.pools.get(claim.pool)
        if settings is None or settings.compress_by is None:
            return messages
        if settings.compress_by == self.pool and isinstance(self.engine, SurpriseMeter):
            priority = claim.lane.priority
            return apply(messages, find_spare(self.engine, claim.request_id, messages, compression, priority))
        found = self.compressions.ask(settings.compress_by, claim.job_id, settings.compress_within_s)
        if found is None or found.digest != digest(messages):
            # A worker of another release may have cut another text.
            reason = "no answer in time" if found is None else "another text was measured"
            log.warning("surprise_not_measured", extra={"job_id": show_id(claim.job_id), "error": reason})
            return messages
        return apply(messages, found.cuts)


def find_spare(
    engine: SurpriseMeter, request_id: str, messages: Sequence[Message], compression: Compression, priority: int
) -> list[Cut]:
    """What to cut of these messages. Raises: as `SurpriseMeter.surprise`."""
    turns = [number for number in open_turns(messages, compression) if messages[number].content]
    if not turns:
        return []
    measured = engine.surprise(request_id, [messages[number].content for number in turns], priority)
    return surprising(messages, dict(zip(turns, measured, strict=True)), compression.to)


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

    def _find(self, job_id: UUID) -> CompressionReply | None:
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
        return None if cuts is None else CompressionReply(digest(messages), tuple(cuts))

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
