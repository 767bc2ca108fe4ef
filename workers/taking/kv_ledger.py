"""The KV ledger: does one more job fit into an engine's KV cache, now and at every later moment? Pure.

What must fit is the highest use at any future moment, not the sum of final sizes, because jobs end at different times.
The idea comes from LightLLM's Past-Future scheduler (Gong et al., ASPLOS 2025). There each running job is expected to
stop at a quantile of past lengths. Here a job's blocks at each moment are a random variable, and the mean of their sum
plus some standard deviations must fit. The number of standard deviations is learned from preemptions.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from headrace.domain.queues import Lane
from headrace.policies.answers import ExpectedOutputs
from workers.taking.lengths import STEP_TOKENS, Lengths

#: Target share of preempted jobs, which the learned head-room holds. A lower share leaves more of the cache empty.
PREEMPTED_SHARE = 0.007
#: Head-room in standard deviations: the first value, the least, the most, and the increase after a preemption.
HEADROOM, HEADROOM_LEAST, HEADROOM_MOST, HEADROOM_STEP = 2.0, -2.0, 4.0, 0.25


def _moments(last: int, growth: float = 1.35) -> tuple[int, ...]:
    """Future steps at which the use is checked, at growing distances. In one step each job gets one token."""
    moments = [1]
    while moments[-1] < last:
        moments.append(max(moments[-1] + 1, int(moments[-1] * growth)))
    return tuple(moments)


#: They reach to the end of the longest possible answer.
MOMENTS = _moments(2**17)


@dataclass(slots=True)
class HeldJob:
    """A job in the cache. `produced`: tokens of its answer so far."""

    lane: Lane
    prompt_tokens: int
    max_tokens: int
    produced: int = 0
    is_preempted: bool = False


#: Blocks in use at each moment: the mean and the variance.
_Load = tuple[list[float], list[float]]


class KvLedger:
    """The present and expected use of one engine's cache. Not safe for many threads."""

    def __init__(
        self,
        blocks: int,
        block_tokens: int,
        lengths: Mapping[Lane, Lengths],
        high_share: float = 0.0,
        shares_prompts: bool = True,
    ) -> None:
        """An empty cache.

        Args:
            high_share: the share of blocks that is kept for the lane `high`.
            shares_prompts: False if each of several answers holds the whole prompt.
        """
        self._blocks, self._block_tokens, self._lengths = blocks, block_tokens, lengths
        self._shares_prompts = shares_prompts
        self._kept = {lane: 0.0 if lane is Lane.HIGH else blocks * high_share for lane in Lane}
        self._held: dict[str, HeldJob] = {}
        self._headroom = HEADROOM
        self._load: _Load | None = None
        self._chances = {lane: _Chances(0) for lane in Lane}

    @property
    def headroom(self) -> float:
        """Standard deviations that are kept free above the mean."""
        return self._headroom

    @property
    def used_blocks(self) -> int:
        """Blocks that the jobs have filled or begun."""
        return sum(self._blocks_of(each.prompt_tokens + each.produced) for each in self._held.values())

    @property
    def most_blocks(self) -> int:
        """Blocks that the jobs fill if each answer reaches its maximum."""
        return sum(self._most_blocks_of(each) for each in self._held.values())

    @property
    def peak_share(self) -> float:
        """Expected share (0 to 1) of the blocks in use at the fullest moment, head-room included."""
        if not self._held:
            return 0.0
        self._load = self._load or self._sum()
        peak = max(mean + self._headroom * math.sqrt(variance) for mean, variance in zip(*self._load, strict=True))
        # With few jobs, the head-room exceeds the most that they may take. With many, just after a preemption, it
        # exceeds the whole cache.
        return min(1.0, min(peak, self.most_blocks) / max(1, self._blocks))

    def sequences(self, job: HeldJob, n: int) -> list[HeldJob]:
        """The sequences of a job of `n` answers. They share the full blocks of the prompt, if the engine does so."""
        own = job.prompt_tokens % self._block_tokens if self._shares_prompts else job.prompt_tokens
        return [job, *(HeldJob(job.lane, own, job.max_tokens) for _ in range(n - 1))]

    def can_ever_fit(self, *together: HeldJob) -> bool:
        """True when an empty cache has room for this job, or for these sequences of one job."""
        return sum(map(self._most_blocks_of, together)) <= self._blocks

    def surely_fits(self, *together: HeldJob) -> bool:
        """True when the cache has room for this job however long all answers become."""
        more = sum(map(self._most_blocks_of, together))
        return self.most_blocks + more <= self._blocks - self._kept[together[0].lane]

    def fits(self, *together: HeldJob) -> bool:
        """True when the cache will most likely have room for this job until it ends.

        A job that finds the cache empty fits if it can fit at all.
        """
        if not self._held:
            return self.can_ever_fit(*together)
        room = self._blocks - self._kept[together[0].lane]
        if self.used_blocks + sum(self._blocks_of(job.prompt_tokens + 1) for job in together) > room:
            return False
        self._load = self._load or self._sum()
        means, variances = (list(part) for part in self._load)
        for job in together:
            self._add(job, (means, variances))
        return all(
            mean + self._headroom * math.sqrt(variance) <= room for mean, variance in zip(means, variances, strict=True)
        )

    def hold(self, request_id: str, job: HeldJob) -> None:
        """Add a job that was given to the engine."""
        self._held[request_id] = job
        self._load = None

    def produced(self, request_id: str, tokens: int) -> None:
        """Set how many tokens the job's answer has by now."""
        if held := self._held.get(request_id):
            held.produced = tokens
            self._load = None

    def shrunk(self, request_id: str, prompt_tokens: int) -> None:
        """Set the tokens of a prompt that was compressed. It never grows."""
        if held := self._held.get(request_id):
            held.prompt_tokens = min(held.prompt_tokens, prompt_tokens)
            self._load = None

    def preempted(self, request_id: str) -> None:
        """Note that the engine preempted the job: the head-room was too small, so it grows."""
        if (held := self._held.get(request_id)) and not held.is_preempted:
            held.is_preempted = True
            self._headroom = min(HEADROOM_MOST, self._headroom + HEADROOM_STEP)

    def expected_outputs(self) -> ExpectedOutputs:
        """Expected answer lengths of each lane with past answers."""
        return {lane: output for lane, each in self._lengths.items() if (output := each.expected())}

    def release(self, request_id: str, *, has_ended: bool, is_cut: bool = False) -> None:
        """Remove a job that has left the engine.

        Args:
            has_ended: its answer is whole, so its length is learned.
            is_cut: `max_tokens` ended the answer.
        """
        held = self._held.pop(request_id, None)
        self._load = None
        if held is None or not has_ended:
            return
        self._lengths[held.lane].learn(
            held.produced,
            (each.produced for each in self._held.values() if each.lane is held.lane),
            is_cut=is_cut,
        )
        # This step balances the step up when exactly `PREEMPTED_SHARE` of the jobs are preempted. Source: Robbins,
        # Monro: A Stochastic Approximation Method, 1951.
        if not held.is_preempted:
            step = HEADROOM_STEP * PREEMPTED_SHARE / (1 - PREEMPTED_SHARE)
            self._headroom = max(HEADROOM_LEAST, self._headroom - step)

    def _blocks_of(self, tokens: int) -> int:
        return -(-tokens // self._block_tokens)

    def _most_blocks_of(self, job: HeldJob) -> int:
        return self._blocks_of(job.prompt_tokens + job.max_tokens)

    def _sum(self) -> _Load:
        load = [0.0] * len(MOMENTS), [0.0] * len(MOMENTS)
        for each in self._held.values():
            self._add(each, load)
        return load

    def _add(self, job: HeldJob, load: _Load) -> None:
        means, variances = load
        for at, chance in enumerate(self._chances_of(job)):
            blocks = self._blocks_of(job.prompt_tokens + min(job.produced + MOMENTS[at], job.max_tokens))
            means[at] += chance * blocks
            variances[at] += chance * (1.0 - chance) * blocks * blocks

    def _chances_of(self, job: HeldJob) -> list[float]:
        """The probability at each moment that the job still runs. Jobs with about the same progress share it."""
        lengths, produced = self._lengths[job.lane], job.produced // STEP_TOKENS * STEP_TOKENS
        of_lane = self._chances[job.lane]
        if of_lane.edition != lengths.edition:
            of_lane = self._chances[job.lane] = _Chances(lengths.edition)
        key = (produced, job.max_tokens)
        if key not in of_lane.known:
            of_lane.known[key] = _chances(lengths, produced, job.max_tokens)
        return of_lane.known[key]


@dataclass(frozen=True, slots=True)
class _Chances:
    """The probabilities that were computed from one edition of a lane's lengths."""

    edition: int
    known: dict[tuple[int, int], list[float]] = field(default_factory=dict)


def _chances(lengths: Lengths, produced: int, max_tokens: int) -> list[float]:
    # For the time between two moments, count the jobs that run at its begin with their sizes at its end. So a peak
    # between two moments is not missed.
    chances, before = [1.0], MOMENTS[0]
    for more in MOMENTS[1:]:
        chance = lengths.alive(produced, before + 1, max_tokens)
        if chance <= 0.0:
            break
        chances.append(chance)
        before = more
    return chances
