"""Admission control for a worker's engine: a KV ledger that follows the engine's progress."""

import math
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from headrace.domain.queues import Lane
from headrace.policies.answers import AnswerLength, ExpectedOutputs
from headrace.policies.lanes import HIGH_LATELY_S, kept_slots
from workers.engines.base import Engine, EngineLimits, Generation, Progress
from workers.taking.kv_ledger import HeldJob, KvLedger
from workers.taking.lengths import by_lane

#: The values of `PoolSettings.kv_admission`.
KvAdmission = Literal["expected", "worst_case", "open"]
#: Seconds that an admitted job may take to reach the engine. A job whose task an operator revoked never reaches it, and
#: must not keep its room.
ARRIVES_WITHIN_S = 60.0


@dataclass(slots=True)
class _LetIn:
    """An admitted job: since when, how many messages it has, and its request id in the engine.

    Attributes: keys: name its sequences in the ledger, one for each of its answers.
    """

    since: float
    alone: bool
    keys: tuple[str, ...]
    messages: int = 1
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Reserved:
    """What is reserved for the admitted jobs; see `KvLedger.peak_share` and `KvLedger.headroom`."""

    share: float
    headroom: float


class KvBudget:
    """Admits jobs as long as their KV cache most likely fits. Safe for many threads."""

    def __init__(
        self,
        engine: Engine,
        kv_admission: KvAdmission,
        high_share: float,
        freed: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start empty and without limits.

        Args:
            kv_admission: what must fit; see `PoolSettings`.
            high_share: the share of the KV pool that is kept for the lane `high`. While the lane is in use, the same
                share of the engine's slots is kept too.
            freed: called when a job has released its room.
        """
        self._engine, self._kv_admission, self._high_share = engine, kv_admission, high_share
        self._freed, self._clock = freed, clock
        self._lock = threading.Lock()
        self._entries: dict[str, _LetIn] = {}
        self._ledger: KvLedger | None = None
        self._max_running = 0
        self._high_until = -math.inf
        self._high_waits = False
        #: Free slots that are set aside for `high`.
        self._set_aside = 0

    def open(self, limits: EngineLimits, answers: Iterable[AnswerLength] = ()) -> None:
        """Set the limits of a started engine. An engine without its own KV pool has room for every job.

        Args: answers: past answers, oldest first. They predict the length of new ones.
        """
        self._max_running = limits.max_running
        if limits.kv_tokens is not None and limits.kv_block_tokens is not None:
            blocks = limits.kv_tokens // limits.kv_block_tokens
            lengths = by_lane(answers)
            self._ledger = KvLedger(
                blocks, limits.kv_block_tokens, lengths, self._high_share, shares_prompts=limits.shares_prompts
            )

    def hold(
        self, job_id: UUID, lane: Lane, prompt_tokens: int, max_tokens: int, alone: bool = False, n: int = 1
    ) -> bool:
        """Reserve room for a job until its `release`. False if the room is too small now.

        A job that can never fit is admitted, because the engine's own error explains best why.

        Args:
            alone: the job may have killed an engine, so nothing else may run beside it.
            n: the number of its answers, each of `max_tokens` at most.
        """
        with self._lock:
            if self._ledger is None:
                return True
            if entry := self._entries.get(job_id.hex):
                # The queue held its message twice. Only one of them gets the claim.
                entry.messages += 1
                return True
            if any(each.alone for each in self._entries.values()) or (alone and self._entries):
                return False
            if lane is Lane.HIGH:
                self._high_until = self._clock() + HIGH_LATELY_S
            if not self._has_slot(lane):
                return False
            sequences = self._ledger.sequences(HeldJob(lane, prompt_tokens, max_tokens), n)
            if not self._fits(self._ledger, sequences):
                return False
            keys = tuple(f"{job_id.hex}.{number}" for number in range(n))
            for key, sequence in zip(keys, sequences, strict=True):
                self._ledger.hold(key, sequence)
            self._entries[job_id.hex] = _LetIn(self._clock(), alone, keys)
            self._set_aside = min(self._set_aside, self._free_slots)
            return True

    def see(self, *, high_waits: bool) -> None:
        """Note whether a job of `high` waits now.

        While none waits, freed slots are set aside for the next `high` jobs, which take them out of turn. When those
        slots are used up and more `high` jobs wait, the lanes share freed slots by their turns. Otherwise a queue in
        `high` would starve the other lanes.
        """
        with self._lock:
            self._high_waits = high_waits
            if not high_waits:
                self._set_aside = min(self._kept_slots, self._free_slots)

    def has_slot(self, lane: Lane) -> bool:
        """True if the engine's batch has a slot for this lane. Without a slot, freed KV room does not help its jobs."""
        with self._lock:
            return self._free_slots > 0 and self._has_slot(lane)

    @property
    def is_idle(self) -> bool:
        """True while no job has room here."""
        return not self._entries

    @property
    def free_slots(self) -> float:
        """Free slots of the engine's batch. Without a KV cache of its own, an engine has a slot for every job."""
        with self._lock:
            return math.inf if self._ledger is None else max(0, self._free_slots)

    def running(self, job_id: UUID, request_id: str) -> None:
        """Note that the engine has the job, under this request id."""
        with self._lock:
            if entry := self._entries.get(job_id.hex):
                entry.request_id = request_id

    def shrunk(self, job_id: UUID, prompt_tokens: int) -> None:
        """Release the room that a job's prompt no longer needs, because it was compressed."""
        with self._lock:
            if self._ledger is None:
                return
            if entry := self._entries.get(job_id.hex):
                for key in entry.keys:
                    self._ledger.shrunk(key, prompt_tokens)
        self._freed()

    def release(self, job_id: UUID, generation: Generation | None = None) -> None:
        """Release the room of a job, or of its second message. Args: generation: its answer, if any."""
        with self._lock:
            entry = self._entries.get(job_id.hex)
            if entry is None or self._ledger is None:
                return
            entry.messages -= 1
            if entry.messages > 0:
                return
            if generation is not None:
                _note(self._ledger, entry, Progress(generation.usage.output_tokens, generation.preemptions))
            reason = generation.finish_reason if generation is not None else "abort"
            self._forget(self._ledger, job_id.hex, has_ended=reason != "abort", is_cut=reason == "length")
        self._freed()

    def reserved(self) -> Reserved | None:
        """How much of the KV cache is reserved for the admitted jobs; None for an engine without one."""
        with self._lock:
            if self._ledger is None:
                return None
            self._look(self._ledger)
            return Reserved(self._ledger.peak_share, self._ledger.headroom)

    def expected_outputs(self) -> ExpectedOutputs | None:
        """Expected answer lengths of each lane with past answers; None for an engine without its own KV cache."""
        with self._lock:
            return None if self._ledger is None else self._ledger.expected_outputs()

    def _forget(self, ledger: KvLedger, job: str, *, has_ended: bool, is_cut: bool = False) -> None:
        for key in self._entries.pop(job).keys:
            ledger.release(key, has_ended=has_ended, is_cut=is_cut)

    def _fits(self, ledger: KvLedger, sequences: Sequence[HeldJob]) -> bool:
        if self._kv_admission == "open" or ledger.surely_fits(*sequences):
            return True
        self._look(ledger)
        if not ledger.can_ever_fit(*sequences):
            return True
        if self._kv_admission == "worst_case":
            # A job alone in the cache may also use the share that is kept for `high`.
            return not self._entries or ledger.surely_fits(*sequences)
        return ledger.fits(*sequences)

    def _has_slot(self, lane: Lane) -> bool:
        """True if the lane's share of the engine's slots is not used up."""
        if lane is Lane.HIGH or self._clock() > self._high_until:
            return True
        return self._free_slots > (self._set_aside if self._high_waits else self._kept_slots)

    @property
    def _free_slots(self) -> int:
        return self._max_running - sum(len(entry.keys) for entry in self._entries.values())

    @property
    def _kept_slots(self) -> int:
        return kept_slots(self._max_running, self._high_share)

    def _look(self, ledger: KvLedger) -> None:
        """Update the running jobs' progress, and forget jobs that never reached the engine."""
        progress = self._engine.progress()
        for job, entry in list(self._entries.items()):
            if entry.request_id is None:
                if self._clock() - entry.since > ARRIVES_WITHIN_S:
                    self._forget(ledger, job, has_ended=False)
            elif of_job := progress.get(entry.request_id):
                _note(ledger, entry, of_job)


def _note(ledger: KvLedger, entry: _LetIn, progress: Progress) -> None:
    """Note a job's progress, as if its answers grew alike."""
    for key in entry.keys:
        ledger.produced(key, progress.tokens // len(entry.keys))
    if progress.preemptions:
        ledger.preempted(entry.keys[0])
