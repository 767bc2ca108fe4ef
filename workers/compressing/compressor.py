"""Compresses a claimed job's prompt right before the engine gets it. The stored prompt stays as it is.

Compression never fails a job, and never holds it for longer than its pool allows: what cannot be measured is not cut.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from uuid import UUID

from headrace.broker.compressions import Compressions
from headrace.config import PoolSettings
from headrace.domain.attempts import Claim
from headrace.domain.compression import Compression
from headrace.domain.ids import show_id
from headrace.domain.prompts import Message
from headrace.errors import BrokerUnavailable, EngineCrash, EngineError, InvalidRequest
from headrace.policies.compression import apply, digest, plain
from headrace.policies.tokens import PromptTokenizer
from workers.compressing.phrases import find_spare
from workers.engines.base import Engine, SurpriseMeter

log = logging.getLogger(__name__)

Messages = tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Compressor:
    """Serves all threads of one worker.

    Attributes:
        pools: all pools, by name: a job's own says which pool measures surprise.
        pool: the pool that this worker's engine serves.
        tokenizer: gives what counts a prompt: the engine's own tokenizer, or an estimate where that is unknown.
        compressions: asks other pools.
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
