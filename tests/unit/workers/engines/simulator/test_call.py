"""The simulator's steps and totals, on a clock of the test's own."""

from workers.engines.base import EngineStats
from workers.engines.simulator.call import Totals


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_step_is_the_time_of_a_token_while_anything_runs() -> None:
    clock = Clock()
    totals = Totals(step_s=0.5, clock=clock)
    clock.now += 5
    totals.pass_time(0, 0.0)
    clock.now += 1.25
    totals.pass_time(2, 0.25)
    clock.now += 1.5
    totals.pass_time(4, 0.75)
    stats = totals.stats(1, 3, 0.5)
    assert (stats.running, stats.waiting, stats.kv_use) == (1, 3, 0.5)
    # Two whole steps, then three: what was left of the first stretch is in the second.
    assert (stats.steps, stats.running_sum, stats.kv_use_sum) == (5, 2 * 2 + 3 * 4, 2 * 0.25 + 3 * 0.75)


def test_part_of_a_step_is_forgotten_once_nothing_runs() -> None:
    clock = Clock()
    totals = Totals(step_s=1.0, clock=clock)
    for _ in range(10):
        clock.now += 0.75
        totals.pass_time(1, 0.5)
        totals.pass_time(0, 0.0)
    assert totals.stats(0, 0, 0.0) == EngineStats(kv_use=0.0)


def test_tokens_add_up() -> None:
    totals = Totals(step_s=1.0)
    totals.read(30)
    totals.made(1, first_token_s=0.25)
    totals.made(4, None)
    expected = EngineStats(kv_use=0.0, prompt_tokens=30, output_tokens=5, first_tokens=1, first_token_s=0.25)
    assert totals.stats(0, 0, 0.0) == expected
