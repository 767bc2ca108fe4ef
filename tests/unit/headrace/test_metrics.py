"""The counters and histograms that a process keeps for Prometheus."""

import threading
from bisect import bisect_left

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.registry import Collector

from headrace.metrics import Counts, Durations


def served(collector: Collector) -> list[str]:
    registry = CollectorRegistry()
    registry.register(collector)
    return [line for line in generate_latest(registry).decode().splitlines() if not line.startswith("#")]


def test_a_counter_has_what_was_added_by_its_labels() -> None:
    counts = Counts("ends", "Ends.", ("lane", "state"))
    assert served(counts) == []
    counts.add("high", "failed")
    counts.add("high", "failed", count=2)
    counts.add("low", "failed", count=0)
    assert served(counts) == ['ends_total{lane="high",state="failed"} 3.0', 'ends_total{lane="low",state="failed"} 0.0']
    assert counts.snapshot() == {("high", "failed"): 3, ("low", "failed"): 0}


@pytest.mark.parametrize(
    ("seconds", "buckets"), [(0.0, (1, 1, 1)), (0.5, (1, 1, 1)), (0.6, (0, 1, 1)), (2.0, (0, 1, 1)), (2.1, (0, 0, 1))]
)
def test_a_duration_is_in_the_first_bucket_that_is_not_below_it(seconds: float, buckets: tuple[int, ...]) -> None:
    durations = Durations("wait_seconds", "Waits.", ("lane",), (0.5, 2.0))
    durations.add("high", seconds=seconds)
    bounds = ("0.5", "2.0", "+Inf")
    assert served(durations) == [
        *(f'wait_seconds_bucket{{lane="high",le="{le}"}} {float(n)}' for le, n in zip(bounds, buckets, strict=True)),
        'wait_seconds_count{lane="high"} 1.0',
        f'wait_seconds_sum{{lane="high"}} {seconds}',
    ]


def test_durations_of_one_bucket_are_added_at_once() -> None:
    one_by_one, at_once = (Durations("wait_seconds", "Waits.", ("lane",), (0.5, 2.0)) for _ in range(2))
    for seconds in (0.75, 1.0, 1.25):
        one_by_one.add("low", seconds=seconds)
    at_once.add_many("low", bucket=bisect_left((0.5, 2.0), 1.0), count=3, seconds=3.0)
    assert served(one_by_one) == served(at_once)


def test_no_addition_of_many_threads_is_lost() -> None:
    counts, durations = Counts("ends", "Ends.", ("lane",)), Durations("run_seconds", "Runs.", ("lane",), (1.0,))

    def add() -> None:
        for _ in range(1000):
            counts.add("high")
            durations.add("high", seconds=0.5)

    threads = [threading.Thread(target=add) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert served(counts) == ['ends_total{lane="high"} 8000.0']
    assert 'run_seconds_sum{lane="high"} 4000.0' in served(durations)
