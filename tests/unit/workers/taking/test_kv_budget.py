"""The KV budget of a worker: what it asks of its ledger, and what it tells it."""

from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from headrace.domain.attempts import Usage
from headrace.domain.ids import new_id
from headrace.domain.queues import Lane
from headrace.policies.lanes import HIGH_LATELY_S, SMALL_BATCH
from workers.engines.base import EngineLimits, FinishReason, Generation, Progress
from workers.taking.kv_budget import ARRIVES_WITHIN_S, KvAdmission, KvBudget, Reserved
from workers.taking.kv_ledger import KvLedger
from workers.taking.lengths import by_lane

#: Ten blocks of 16 tokens.
LIMITS = EngineLimits(max_model_tokens=None, max_running=8, kv_tokens=160, kv_block_tokens=16)


class Engine:
    """Says what it is told to."""

    def __init__(self) -> None:
        self.says: dict[str, Progress] = {}

    def progress(self) -> dict[str, Progress]:
        return self.says


class Bench:
    """A KV budget, its engine, the number of calls that reported freed room, and the time."""

    def __init__(
        self, limits: EngineLimits = LIMITS, high_share: float = 0.0, kv_admission: KvAdmission = "expected"
    ) -> None:
        self.engine: Any = Engine()
        self.freed, self.now = 0, 0.0
        self.kv_budget = KvBudget(self.engine, kv_admission, high_share, self._note, clock=lambda: self.now)
        self.kv_budget.open(limits)

    def _note(self) -> None:
        self.freed += 1

    def enter(self, blocks: int, lane: Lane = Lane.NORMAL, prompt_tokens: int = 16) -> Any:
        """Let in a job that may come to hold this number of blocks; its id, or None."""
        job = new_id()
        return job if self.kv_budget.hold(job, lane, prompt_tokens, blocks * 16 - prompt_tokens) else None


def answered(tokens: int, finish_reason: FinishReason = "stop", preemptions: int = 0) -> Generation:
    return Generation("text", Usage(16, tokens), finish_reason, "m", preemptions=preemptions)


def test_a_full_batch_has_a_slot_for_no_lane_until_a_job_has_left_it() -> None:
    bench = Bench(EngineLimits(max_model_tokens=None, max_running=2, kv_tokens=16_000, kv_block_tokens=16))
    first, second = bench.enter(1, Lane.HIGH), bench.enter(1)
    assert second
    assert bench.kv_budget.free_slots == 0
    assert not bench.kv_budget.has_slot(Lane.HIGH)
    bench.kv_budget.release(first)
    assert bench.kv_budget.free_slots == 1
    assert bench.kv_budget.has_slot(Lane.NORMAL)


def test_an_engine_without_a_cache_of_its_own_has_a_slot_for_every_job() -> None:
    bench = Bench(EngineLimits(max_model_tokens=None, max_running=1))
    assert all(bench.enter(1) for _ in range(3))
    assert bench.kv_budget.free_slots > 3


def test_jobs_enter_until_the_cache_is_full_and_again_once_one_has_left() -> None:
    bench = Bench()
    first, second = bench.enter(5), bench.enter(5)
    assert first
    assert second
    assert bench.enter(2) is None
    assert bench.freed == 0
    bench.kv_budget.release(first)
    assert bench.freed == 1
    assert bench.enter(5)


def test_each_answer_of_a_job_takes_its_room_and_its_slot() -> None:
    bench = Bench()
    job = new_id()
    # A full block of the prompt that all share, and three answers of three blocks.
    assert bench.kv_budget.hold(job, Lane.NORMAL, 16, 48, n=3)
    assert bench.enter(1) is None
    reserved = bench.kv_budget.reserved()
    assert reserved is not None
    assert reserved.share == 1.0
    bench.kv_budget.release(job, answered(48))
    assert bench.enter(10)


@pytest.mark.parametrize(("shares_prompts", "fitting"), [(True, 8), (False, 4)])
def test_an_engine_that_shares_no_prompts_holds_one_for_each_answer(shares_prompts: bool, fitting: int) -> None:
    """Of ten blocks one is taken. A prompt takes one, and an answer another one."""
    for n, fits in ((fitting, True), (fitting + 1, False)):
        limits = replace(LIMITS, max_running=16, shares_prompts=shares_prompts)
        bench = Bench(limits, kv_admission="worst_case")
        assert bench.kv_budget.hold(new_id(), Lane.NORMAL, 1, 1)
        assert bench.kv_budget.hold(new_id(), Lane.NORMAL, 16, 16, n=n) is fits


def test_compression_shrinks_the_prompt_of_each_answer() -> None:
    bench = Bench(replace(LIMITS, shares_prompts=False), kv_admission="worst_case")
    job = new_id()
    assert bench.kv_budget.hold(job, Lane.NORMAL, 32, 16, n=3)
    bench.kv_budget.shrunk(job, 16)
    assert bench.enter(4)
    assert bench.enter(1) is None


def test_answers_that_do_not_fit_together_wait_together() -> None:
    bench = Bench(kv_admission="worst_case")
    first = bench.enter(2)
    assert not bench.kv_budget.hold(new_id(), Lane.NORMAL, 16, 48, n=3)
    bench.kv_budget.release(first, answered(1))
    assert bench.kv_budget.hold(new_id(), Lane.NORMAL, 16, 48, n=3)


def test_what_all_answers_have_made_counts() -> None:
    bench = Bench()
    for _ in range(2000):
        bench.kv_budget.release(bench.enter(10), answered(1))
    job = new_id()
    assert bench.kv_budget.hold(job, Lane.NORMAL, 16, 48, n=3)
    bench.kv_budget.running(job, "r1")
    assert bench.enter(5)
    bench.engine.says = {"r1": Progress(3 * 40)}
    assert bench.enter(5) is None


def test_slots_are_counted_by_answers() -> None:
    bench = Bench(EngineLimits(max_model_tokens=None, max_running=8, kv_tokens=16_000, kv_block_tokens=16), 0.25)
    assert bench.enter(1, Lane.HIGH)
    assert bench.kv_budget.hold(new_id(), Lane.NORMAL, 16, 16, n=5)
    assert bench.enter(1) is None, "the two free slots are kept for the lane high"
    assert bench.enter(1, Lane.HIGH)


def test_an_engine_without_a_cache_of_its_own_has_room_for_all() -> None:
    bench = Bench(EngineLimits(max_model_tokens=None, max_running=8))
    assert all(bench.enter(1000) for _ in range(100))


def test_a_job_that_can_never_fit_goes_to_the_engine_which_says_why() -> None:
    bench = Bench()
    assert bench.enter(9)
    assert bench.enter(11)


def test_what_a_running_job_has_made_counts() -> None:
    bench = Bench()
    for _ in range(2000):
        # Answers are known to be short, so that most of a job's room is believed to stay free.
        bench.kv_budget.release(bench.enter(10), answered(1))
    job = bench.enter(10)
    bench.kv_budget.running(job, "r1")
    assert bench.enter(5)
    bench.engine.says = {"r1": Progress(9 * 16)}
    assert bench.enter(5) is None


def test_a_prompt_that_was_compressed_leaves_room_for_another_job() -> None:
    bench = Bench()
    job = bench.enter(9, prompt_tokens=128)
    assert bench.enter(5) is None

    bench.kv_budget.shrunk(job, 48)

    assert bench.freed == 1
    assert bench.enter(5)
    # It never grows, and another worker's job is no error.
    bench.kv_budget.shrunk(job, 160)
    bench.kv_budget.shrunk(new_id(), 16)
    assert bench.enter(1)


def test_a_message_that_is_there_twice_keeps_the_room_until_both_are_done() -> None:
    bench = Bench()
    job = new_id()
    assert bench.kv_budget.hold(job, Lane.NORMAL, 80, 80)
    assert bench.kv_budget.hold(job, Lane.NORMAL, 80, 80)
    bench.kv_budget.release(job)
    assert bench.enter(1) is None
    bench.kv_budget.release(job, answered(80))
    assert bench.enter(1)


def test_leaving_twice_is_leaving_once() -> None:
    bench = Bench()
    job = bench.enter(10)
    bench.kv_budget.release(job, answered(1))
    bench.kv_budget.release(job)
    assert bench.freed == 1


def test_a_job_that_never_got_to_run_does_not_keep_its_room_for_ever() -> None:
    bench = Bench()
    assert bench.enter(10)
    bench.now = ARRIVES_WITHIN_S
    assert bench.enter(5) is None
    bench.now += 1
    assert bench.enter(5)


def test_a_job_that_runs_keeps_its_room_however_long_it_takes() -> None:
    bench = Bench()
    job = bench.enter(10)
    bench.kv_budget.running(job, "r1")
    bench.now = 100 * ARRIVES_WITHIN_S
    assert bench.enter(5) is None


@pytest.mark.parametrize("while_it_runs", [True, False])
def test_a_preemption_leaves_more_room_free(while_it_runs: bool) -> None:
    bench = Bench()
    ledger = bench.kv_budget._ledger
    assert ledger is not None
    before = ledger.headroom
    job = bench.enter(10)
    bench.kv_budget.running(job, "r1")
    if while_it_runs:
        bench.engine.says = {"r1": Progress(20, preemptions=1)}
        assert bench.enter(5) is None
    else:
        bench.kv_budget.release(job, answered(20, preemptions=1))
    assert ledger.headroom > before


def test_an_answer_that_was_broken_off_teaches_no_length() -> None:
    bench = Bench()
    for _ in range(500):
        job = bench.enter(10)
        bench.kv_budget.release(job, answered(1, "abort"))
    assert bench.enter(8)
    assert bench.enter(8) is None


def test_what_may_have_killed_an_engine_runs_alone() -> None:
    bench = Bench()
    first, suspect = bench.enter(1), new_id()
    assert not bench.kv_budget.hold(suspect, Lane.HIGH, 16, 16, alone=True)
    bench.kv_budget.release(first)
    assert bench.kv_budget.hold(suspect, Lane.HIGH, 16, 16, alone=True)
    assert bench.enter(1) is None
    assert not bench.kv_budget.hold(new_id(), Lane.HIGH, 16, 16, alone=True)
    bench.kv_budget.release(suspect, answered(16))
    assert bench.enter(1)


def test_what_is_reserved_is_what_the_ledger_expects_of_those_that_are_in() -> None:
    bench = Bench()
    ledger = bench.kv_budget._ledger
    assert ledger is not None
    assert bench.kv_budget.reserved() == Reserved(0.0, ledger.headroom)
    for _ in range(2000):
        # Answers are known to be short.
        bench.kv_budget.release(bench.enter(10), answered(1))
    job = bench.enter(10)
    bench.kv_budget.running(job, "r1")
    before = bench.kv_budget.reserved()
    assert before is not None
    assert 0 < before.share < 0.5
    bench.engine.says = {"r1": Progress(8 * 16)}
    after = bench.kv_budget.reserved()
    assert after is not None
    assert 0.9 <= after.share <= 1.0, "nine blocks are in use by now"
    bench.kv_budget.release(job, answered(8 * 16))
    assert bench.kv_budget.reserved() == Reserved(0.0, ledger.headroom)


def test_nothing_is_reserved_by_an_engine_without_a_cache_of_its_own() -> None:
    bench = Bench(EngineLimits(max_model_tokens=None, max_running=8))
    bench.enter(10)
    assert bench.kv_budget.reserved() is None


def test_a_share_is_kept_for_the_best_lane() -> None:
    bench = Bench(high_share=0.5)
    assert bench.enter(5)
    assert bench.enter(1) is None
    assert bench.enter(5, Lane.HIGH)


@pytest.mark.parametrize(("kv_admission", "let_in"), [("worst_case", 2), ("expected", 4), ("open", 50)])
def test_what_must_fit_is_the_operator_s_choice(kv_admission: KvAdmission, let_in: int) -> None:
    bench = Bench(kv_admission=kv_admission)
    for _ in range(1000):
        bench.kv_budget.release(bench.enter(5), answered(1))
    entered = [bench.enter(5) for _ in range(50)]
    assert sum(job is not None for job in entered) == let_in


def test_the_worst_case_lets_a_job_have_the_whole_cache() -> None:
    bench = Bench(high_share=0.5, kv_admission="worst_case")
    whole = bench.enter(10)
    assert whole
    assert bench.enter(1, Lane.HIGH) is None
    bench.kv_budget.release(whole)
    assert bench.enter(5)
    assert bench.enter(1) is None


#: A cache that is never full, and slots for 8.
SLOTS = EngineLimits(max_model_tokens=None, max_running=8, kv_tokens=16_000, kv_block_tokens=16)


def test_slots_are_kept_for_the_lane_high_while_it_is_in_use() -> None:
    bench = Bench(SLOTS, high_share=0.2)
    assert all(bench.enter(1) for _ in range(8)), "no job uses the lane: all slots are for all"
    for job in list(bench.kv_budget._entries):
        bench.kv_budget.release(UUID(job))

    assert bench.enter(1, Lane.HIGH)
    assert sum(bench.enter(1) is not None for _ in range(8)) == 5, "two of the eight are kept"
    assert all(bench.enter(1, Lane.HIGH) for _ in range(2))
    assert bench.enter(1, Lane.BATCH) is None

    bench.now += HIGH_LATELY_S / 2
    assert bench.enter(1) is None
    bench.now += HIGH_LATELY_S
    assert bench.enter(1), "it is not in use any more"


def test_a_lane_high_with_a_queue_takes_the_slots_that_are_set_aside_and_then_shares_by_turns() -> None:
    bench = Bench(SLOTS, high_share=0.2)
    assert bench.enter(1, Lane.HIGH)
    bench.kv_budget.see(high_waits=False)
    others = [job for job in (bench.enter(1) for _ in range(8)) if job]
    assert len(others) == 5, "two of the eight are set aside"

    bench.kv_budget.see(high_waits=True)
    assert not bench.kv_budget.has_slot(Lane.NORMAL), "one that comes takes what is set aside, whatever the turn"
    high = [bench.enter(1, Lane.HIGH) for _ in range(2)]
    bench.kv_budget.release(others.pop())
    assert bench.kv_budget.has_slot(Lane.NORMAL), "nothing is set aside any more: the turn decides"
    assert bench.enter(1)

    bench.kv_budget.see(high_waits=False)
    bench.kv_budget.release(high.pop())
    assert not bench.kv_budget.has_slot(Lane.NORMAL), "what frees while none waits is set aside again"


@pytest.mark.parametrize(
    ("slots", "share", "others"), [(1, 0.05, 1), (SMALL_BATCH - 1, 0.5, 3), (SMALL_BATCH, 0.05, 3), (8, 1.0, 1)]
)
def test_other_lanes_never_stand_still_for_the_lane_high(slots: int, share: float, others: int) -> None:
    bench = Bench(EngineLimits(None, max_running=slots, kv_tokens=16_000, kv_block_tokens=16), high_share=share)
    bench.kv_budget._ledger = KvLedger(1000, 16, by_lane(), 0.0)  # Of the cache, they have enough.
    first = bench.enter(1, Lane.HIGH)
    assert first
    bench.kv_budget.release(first)
    entered = 0
    while entered < slots and bench.enter(1):
        entered += 1
    assert entered == others
