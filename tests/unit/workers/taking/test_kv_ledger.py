"""The KV ledger: who is let in, by what the cache holds now and will most likely hold later."""

import itertools

import pytest

from headrace.domain.queues import Lane
from workers.taking.kv_ledger import (
    HEADROOM,
    HEADROOM_LEAST,
    HEADROOM_MOST,
    HEADROOM_STEP,
    MOMENTS,
    PREEMPTED_SHARE,
    HeldJob,
    KvLedger,
)
from workers.taking.lengths import Lengths, by_lane

BLOCK_TOKENS = 16


def job(prompt_tokens: int = 100, max_tokens: int = 512, lane: Lane = Lane.NORMAL, produced: int = 0) -> HeldJob:
    return HeldJob(lane, prompt_tokens, max_tokens, produced)


def known(*tokens: int) -> dict[Lane, Lengths]:
    """Every lane has seen these answers."""
    lanes = dict(by_lane())
    for lengths in lanes.values():
        for each in tokens:
            lengths.learn(each)
    return lanes


def ledger(blocks: int = 64, lengths: dict[Lane, Lengths] | None = None, high_share: float = 0.0) -> KvLedger:
    return KvLedger(blocks, BLOCK_TOKENS, lengths or known(*[64] * 500), high_share)


def let_in(kv: KvLedger, like: HeldJob, most: int = 1000) -> int:
    """How many such jobs fit beside each other."""
    for count in range(most):
        each = job(like.prompt_tokens, like.max_tokens, like.lane)
        if not kv.fits(each):
            return count
        kv.hold(f"{like.lane}-{count}", each)
    return most


def test_an_empty_cache_takes_whatever_can_fit_at_all() -> None:
    assert ledger(blocks=40).fits(job(prompt_tokens=128, max_tokens=512))
    assert not ledger(blocks=39).fits(job(prompt_tokens=128, max_tokens=512))


def test_blocks_are_counted_whole() -> None:
    kv = ledger()
    kv.hold("a", job(prompt_tokens=17))
    kv.hold("b", job(prompt_tokens=16))
    assert (kv.used_blocks, kv.most_blocks) == (3, 34 + 33)
    kv.produced("b", 1)
    assert kv.used_blocks == 4


def test_more_fit_than_in_the_worst_case_when_answers_are_short() -> None:
    # 100 + 64 tokens are 11 blocks; the worst case is 39.
    assert 4 <= let_in(ledger(blocks=64), job()) <= 6


def test_nobody_is_let_in_whose_prompt_has_no_room_now() -> None:
    kv = ledger(blocks=64, lengths=known(*[4] * 500))
    kv.hold("a", job(prompt_tokens=900, max_tokens=20))
    assert not kv.fits(job(prompt_tokens=120, max_tokens=8))


def test_the_highest_use_at_one_moment_counts_and_not_the_sum_of_all_ends() -> None:
    kv = ledger(blocks=60, lengths=known(*[400] * 500))
    kv.hold("ends soon", job(prompt_tokens=100, produced=390))
    # Its 31 blocks are free again long before the other, which will have 32 blocks, needs them.
    assert kv.fits(job(prompt_tokens=100))
    kv = ledger(blocks=60, lengths=known(*[400] * 500))
    kv.hold("begins as well", job(prompt_tokens=100))
    assert not kv.fits(job(prompt_tokens=100)), "two that end together take 64"


def test_a_share_of_the_cache_is_kept_for_high() -> None:
    kv = ledger(blocks=100, high_share=0.25)
    normal = let_in(kv, job())
    assert let_in(ledger(blocks=75), job()) == normal
    assert let_in(kv, job(lane=Lane.HIGH)) >= 2


def test_the_peak_is_the_fullest_moment_with_its_head_room() -> None:
    kv = ledger(blocks=100, lengths=known(*[400] * 500))
    assert kv.peak_share == 0.0
    # 500 tokens are 32 blocks, and hardly any answer is known to be shorter.
    kv.hold("a", job(prompt_tokens=100, max_tokens=4096))
    alone = kv.peak_share
    assert 0.32 <= alone < 0.4
    kv.hold("ends soon", job(prompt_tokens=100, max_tokens=4096, produced=390))
    assert alone < kv.peak_share < 2 * 0.32, "they are not at their largest together"
    kv.release("ends soon", has_ended=False)
    assert kv.peak_share == alone


def test_the_peak_is_never_beyond_the_most_that_the_jobs_may_take() -> None:
    kv = ledger(blocks=100, lengths=known(*range(1, 512)))
    kv.hold("a", job(prompt_tokens=16, max_tokens=64))
    assert kv.peak_share == 0.05


def test_the_peak_grows_with_the_head_room_and_with_what_is_made() -> None:
    kv = ledger(blocks=100)
    kv.hold("a", job())
    before = kv.peak_share
    kv.preempted("a")
    assert kv.peak_share > before
    # Further than any answer got before: more of them are believed to be long.
    kv.produced("a", 200)
    assert kv.peak_share >= kv.used_blocks / 100 > before - 0.1


def test_the_peak_is_at_most_all_of_the_cache() -> None:
    kv = ledger(blocks=4)
    kv.hold("a", job(prompt_tokens=1000))
    assert kv.peak_share == 1.0


def test_what_leaves_makes_room() -> None:
    kv = ledger()
    count = let_in(kv, job())
    kv.release("normal-0", has_ended=False)
    assert kv.fits(job())
    for number in range(1, count):
        kv.release(f"normal-{number}", has_ended=False)
    assert kv.used_blocks == 0
    kv.release("normal-0", has_ended=True)
    kv.produced("normal-0", 5)
    kv.preempted("normal-0")


def test_lengths_are_learned_from_whole_answers_alone() -> None:
    lengths = known()
    kv = ledger(lengths=lengths)
    for has_ended in (False, True):
        before = lengths[Lane.NORMAL].alive(0, 100, 512)
        kv.hold("a", job())
        kv.produced("a", 10)
        kv.release("a", has_ended=has_ended)
        assert (lengths[Lane.NORMAL].alive(0, 100, 512) < before) == has_ended


def test_a_preemption_widens_the_head_room_and_jobs_without_one_narrow_it() -> None:
    kv = ledger()
    kv.hold("a", job())
    kv.preempted("a")
    kv.preempted("a")
    assert kv.headroom == HEADROOM + HEADROOM_STEP, "once for one job"
    kv.release("a", has_ended=True)
    # In balance where that share is preempted.
    for _ in range(round(1 / PREEMPTED_SHARE) - 1):
        kv.hold("b", job())
        kv.release("b", has_ended=True)
    assert kv.headroom == pytest.approx(HEADROOM, abs=0.01)


def test_the_head_room_has_bounds() -> None:
    kv = ledger()
    for number in range(20):
        kv.hold(str(number), job())
        kv.preempted(str(number))
        kv.release(str(number), has_ended=False)
    assert kv.headroom == HEADROOM_MOST
    for _ in range(4000):
        kv.hold("b", job())
        kv.release("b", has_ended=True)
    assert kv.headroom == HEADROOM_LEAST


def test_the_moments_reach_the_end_of_the_longest_answer() -> None:
    assert MOMENTS[:4] == (1, 2, 3, 4)
    assert MOMENTS[-1] >= 2**17
    assert all(later > earlier for earlier, later in itertools.pairwise(MOMENTS))
    assert len(MOMENTS) < 50
