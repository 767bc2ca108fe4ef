"""What a control process has counted: of its sweeps, when each last came to its end."""

import time

from prometheus_client import CollectorRegistry

from scheduler.sweeper import Sweep
from scheduler.tallies import Tallies

EXPIRE, RESCUE = (Sweep(name, 0.5, int) for name in ("expire", "rescue"))


def test_a_sweep_that_fails_or_is_skipped_keeps_the_time_of_its_last_good_run() -> None:
    tallies, registry = Tallies(), CollectorRegistry()
    registry.register(tallies)
    before = time.time()
    tallies.note_sweep(EXPIRE, "done")
    after = time.time()
    for _ in range(2):
        tallies.note_sweep(EXPIRE, "failed")
    for _ in range(3):
        tallies.note_sweep(EXPIRE, "skipped")
    tallies.note_sweep(RESCUE, "failed")

    done_at = registry.get_sample_value("headrace_sweep_done_timestamp_seconds", {"sweep": "expire"})
    assert done_at is not None
    assert before <= done_at <= after
    assert registry.get_sample_value("headrace_sweep_done_timestamp_seconds", {"sweep": "rescue"}) is None
    counts = {
        (sweep, outcome): registry.get_sample_value("headrace_sweep_runs_total", {"sweep": sweep, "outcome": outcome})
        for sweep in ("expire", "rescue")
        for outcome in ("done", "failed", "skipped")
    }
    assert counts == {
        **{("expire", "done"): 1, ("expire", "failed"): 2, ("expire", "skipped"): 3},
        **{("rescue", "done"): None, ("rescue", "failed"): 1, ("rescue", "skipped"): None},
    }
    assert registry.get_sample_value("headrace_sweep_interval_seconds", {"sweep": "expire"}) == 0.5
