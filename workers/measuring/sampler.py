"""Samples a worker's engine: one thread writes a row into `worker_samples` every few seconds."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import UUID

from sqlalchemy import Connection

from headrace import store
from headrace.domain.fleet import WorkerSample
from headrace.errors import StoreUnavailable
from headrace.policies.answers import ExpectedOutputs
from headrace.store import Store
from workers.engines.base import Engine, EngineStats
from workers.taking.kv_budget import KvBudget

log = logging.getLogger(__name__)

#: Seconds that `end` waits for the last sample. A worker that stops while Postgres hangs loses that sample.
END_TIMEOUT_S = 5.0


@dataclass(slots=True)
class Sampler:
    """Samples one worker's engine until `end`.

    Attributes:
        also: what else is done in the transaction of each sample.
    """

    store: Store
    engine: Engine
    kv_budget: KvBudget
    worker_id: UUID
    pool: str
    every_s: float
    clock: Callable[[], float] = time.monotonic
    also: Callable[[Connection], None] = lambda _: None
    _ended: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    _before: EngineStats = field(default_factory=EngineStats)
    _since: float = 0.0
    _outputs: ExpectedOutputs | None = None

    def begin(self) -> None:
        """Start sampling; the first interval begins now."""
        self._before, self._since = self.engine.stats(), self.clock()
        self._thread = threading.Thread(target=self._sample_until_ended, name="sampler", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Stop after a last sample, so that a short-lived worker has one too. Does nothing before `begin`."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(END_TIMEOUT_S)

    def _sample_until_ended(self) -> None:
        while not self._ended.wait(self.every_s):
            self._try_to_sample()
        self._try_to_sample()

    def _try_to_sample(self) -> None:
        try:
            self.sample()
        except StoreUnavailable as error:
            log.warning("sample_not_written", extra={"worker_id": str(self.worker_id), "error": str(error)})
        except Exception:
            # A fault here must not end the thread: the worker would write no more samples.
            log.exception("sample_fault", extra={"worker_id": str(self.worker_id)})

    def sample(self) -> None:
        """Write one sample. After an outage the next sample covers the gap with a longer interval.

        Raises: StoreUnavailable.
        """
        stats, now, reserved = self.engine.stats(), self.clock(), self.kv_budget.reserved()
        with self.store.begin() as db:
            kv_reserved = None if reserved is None else reserved.share
            sample = self._sample_to(stats, now - self._since, kv_reserved)
            store.observations.add_worker_sample(db, sample)
            outputs = self.kv_budget.expected_outputs()
            if outputs and outputs != self._outputs:
                store.workers.learn(db, self.worker_id, outputs)
            self.also(db)
        self._before, self._since, self._outputs = stats, now, outputs

    def _sample_to(self, after: EngineStats, interval_s: float, kv_reserved: float | None) -> WorkerSample:
        """The sample of the engine's work since the last one."""
        before = self._before
        steps, first_tokens = after.steps - before.steps, after.first_tokens - before.first_tokens
        return WorkerSample(
            worker_id=self.worker_id,
            pool=self.pool,
            interval_s=interval_s,
            running=(after.running_sum - before.running_sum) / steps if steps else after.running,
            waiting=after.waiting,
            steps=steps,
            kv_use=(after.kv_use_sum - before.kv_use_sum) / steps if steps and after.kv_use is not None else None,
            kv_reserved=kv_reserved,
            prompt_tokens=after.prompt_tokens - before.prompt_tokens,
            output_tokens=after.output_tokens - before.output_tokens,
            preemptions=after.preemptions - before.preemptions,
            first_token_s=(after.first_token_s - before.first_token_s) / first_tokens if first_tokens else None,
        )
