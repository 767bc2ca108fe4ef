"""Runs claims on a worker's engine, within the room in its KV cache, and publishes the output."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import UUID

from headrace import hops
from headrace.domain.attempts import ApiTier
from headrace.errors import EngineError
from headrace.policies.retries import is_continuable
from workers.engines.base import Engine, Generation, GenerationRequest, OnDelta
from workers.running.publisher import Publisher
from workers.running.recorder import Claimed
from workers.taking.kv_budget import KvBudget


@dataclass(frozen=True, slots=True)
class Generating:
    """Serves all threads of one worker.

    Attributes:
        kv_budget: the room in the engine's KV cache. The caller has reserved the job's room already.
        publisher: publishes the output of streamed jobs.
        shares_prefixes: whether apps share the engine's prefix cache. Otherwise each finds its own prompts alone.
    """

    engine: Engine
    kv_budget: KvBudget
    publisher: Publisher
    shares_prefixes: bool = False

    def generate(self, claimed: Claimed, tier: ApiTier | None) -> tuple[Generation | EngineError, float]:
        """Answer one claim. Its output is published before this returns, and the claim is on disk.

        Args: tier: the paid API's service tier. Returns: the answer or the error, and how long it took, in seconds.
        Raises: StoreUnavailable: the claim was not committed; the answer is dropped.
        """
        outcome: Generation | EngineError
        claim, on_disk = claimed
        with self._published(claimed) as (prefix, on_delta):
            hops.reach("begin", claim.job_id)
            request = GenerationRequest(
                request_id=claim.request_id,
                messages=claim.sent,
                sampling=claim.sampling,
                priority=claim.lane.priority,
                model=claim.model,
                prefix=prefix,
                adapter=claim.adapter,
                tier=tier,
                cache_salt=None if self.shares_prefixes else claim.app_id.hex,
            )
            started = time.monotonic()
            self.kv_budget.running(claim.job_id, claim.request_id)
            try:
                outcome = self.engine.generate(request, on_delta)
            except EngineError as error:
                outcome = error
            engine_s = time.monotonic() - started
            on_disk.result()
        return outcome, engine_s

    def release(self, job_id: UUID, outcome: Generation | EngineError | None = None) -> None:
        """Release the job's room. Args: outcome: the engine's answer or error, if the job reached the engine."""
        self.kv_budget.release(job_id, outcome if isinstance(outcome, Generation) else None)

    @contextmanager
    def _published(self, claimed: Claimed) -> Iterator[tuple[str, OnDelta | None]]:
        """Publish a streamed job's output. Yields: the text to continue, and the listener for new pieces."""
        claim, on_disk = claimed
        if not claim.stream:
            yield "", None
            return

        def can_continue(text: str) -> bool:
            return self.engine.continues and is_continuable(text, claim.sampling)

        with self.publisher.publishing(claim.job_id, claim.enqueue_no, can_continue, on_disk) as published:
            yield published
