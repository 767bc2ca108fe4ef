"""Has a worker's engine answer claims, with room in its KV cache, and publishes what it makes."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import UUID

from headrace.domain.attempts import ApiTier, Claim
from headrace.errors import EngineError
from headrace.policies.retries import is_continuable
from workers.engines.base import Engine, Generation, GenerationRequest, OnDelta
from workers.running.publisher import Publisher
from workers.taking.kv_budget import KvBudget


@dataclass(frozen=True, slots=True)
class Generating:
    """Answers for all threads of one worker.

    Attributes:
        kv_budget: what the engine's KV cache has room for. The caller has let the job in.
        publisher: takes what is made of jobs that are streamed.
    """

    engine: Engine
    kv_budget: KvBudget
    publisher: Publisher

    def generate(self, claim: Claim, tier: ApiTier | None) -> tuple[Generation | EngineError, float]:
        """Answer one claim. What was made is with its readers when this returns.

        Args: tier: of a paid API's service. Returns: what the engine made of it, and how long that took, in seconds.
        """
        outcome: Generation | EngineError
        with self._published(claim) as (prefix, on_delta):
            asked = (claim.request_id, claim.messages, claim.sampling, claim.lane.priority, claim.model)
            request = GenerationRequest(*asked, prefix, claim.adapter, tier)
            started = time.monotonic()
            self.kv_budget.running(claim.job_id, claim.request_id)
            try:
                outcome = self.engine.generate(request, on_delta)
            except EngineError as error:
                outcome = error
            engine_s = time.monotonic() - started
        return outcome, engine_s

    def release(self, job_id: UUID, outcome: Generation | EngineError | None = None) -> None:
        """The job needs its room no more. Args: outcome: what came of it, if it came to the engine."""
        self.kv_budget.release(job_id, outcome if isinstance(outcome, Generation) else None)

    @contextmanager
    def _published(self, claim: Claim) -> Iterator[tuple[str, OnDelta | None]]:
        """Publish what the engine makes of a job that is streamed; yields what it must go on from, and its listener."""
        if not claim.stream:
            yield "", None
            return

        def can_continue(text: str) -> bool:
            return self.engine.continues and is_continuable(text, claim.sampling)

        with self.publisher.publishing(claim.job_id, claim.enqueue_no, can_continue) as published:
            yield published
