"""What vLLM says of itself after each step, added up over all cores that a worker has had. Does not import vllm."""

from dataclasses import replace
from typing import Any

from workers.engines.base import EngineStats


class Tally:
    """The engine's stats. One thread at a time records; any may read."""

    def __init__(self) -> None:
        # Replaced whole by whoever records, so that a reader needs no lock.
        self._stats = EngineStats(kv_use=0.0)

    @property
    def stats(self) -> EngineStats:
        """As of the last step."""
        return self._stats

    def emptied(self) -> None:
        """The core is gone, and with it all that it held."""
        self._stats = replace(self._stats, running=0, waiting=0, kv_use=0.0)

    def record(self, scheduler: Any, iteration: Any) -> None:
        """Add what a core reports after a step.

        Args:
            scheduler: vLLM's `SchedulerStats`, as things stand after the step; None where nothing was scheduled.
            iteration: its `IterationStats`, of the requests that got a token in the step; None when none did.
        """
        now = self._stats
        if scheduler is not None:
            now = _stepped(now, scheduler, is_work=iteration is not None or scheduler.num_running_reqs > 0)
        if iteration is not None:
            now = _made(now, iteration)
        self._stats = now


def _stepped(before: EngineStats, scheduler: Any, *, is_work: bool) -> EngineStats:
    """Args: is_work: False for the step in which a core tidies up after its last request: no batch was computed."""
    running, kv_use = scheduler.num_running_reqs, scheduler.kv_cache_usage
    return replace(
        before,
        running=running,
        waiting=scheduler.num_waiting_reqs + scheduler.num_skipped_waiting_reqs,
        kv_use=kv_use,
        steps=before.steps + is_work,
        kv_use_sum=before.kv_use_sum + kv_use * is_work,
        running_sum=before.running_sum + running * is_work,
    )


def _made(before: EngineStats, iteration: Any) -> EngineStats:
    first_tokens = iteration.time_to_first_tokens_iter
    return replace(
        before,
        prompt_tokens=before.prompt_tokens + iteration.num_prompt_tokens,
        output_tokens=before.output_tokens + iteration.num_generation_tokens,
        preemptions=before.preemptions + iteration.num_preempted_reqs,
        first_tokens=before.first_tokens + len(first_tokens),
        first_token_s=before.first_token_s + sum(first_tokens),
    )
