"""Adds up vLLM's statistics of each step, over all cores that a worker has had. Does not import vllm."""

from dataclasses import replace
from typing import Any

from workers.engines.base import EngineStats


class Tally:
    """The engine's stats. One thread at a time records; any may read."""

    def __init__(self) -> None:
        # The recording thread replaces the whole object, so that a reader needs no lock.
        self._stats = EngineStats(kv_use=0.0)

    @property
    def stats(self) -> EngineStats:
        """As of the last step."""
        return self._stats

    def emptied(self) -> None:
        """Clear the present load, because the core is gone."""
        self._stats = replace(self._stats, running=0, waiting=0, kv_use=0.0)

    def record(self, scheduler: Any, iteration: Any) -> None:
        """Add what a core reports after a step.

        Args:
            scheduler: vLLM's `SchedulerStats` after the step; None if nothing was scheduled.
            iteration: vLLM's `IterationStats` of the requests that got a token in the step; None if none did.
        """
        now = self._stats
        if scheduler is not None:
            now = _stepped(now, scheduler, is_work=iteration is not None or scheduler.num_running_reqs > 0)
        if iteration is not None:
            now = _made(now, iteration)
        self._stats = now


def _stepped(before: EngineStats, scheduler: Any, *, is_work: bool) -> EngineStats:
    """Args: is_work: False for the step in which a core cleans up after its last request, without a batch."""
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
