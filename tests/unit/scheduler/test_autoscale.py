"""How the samples of a pool's lanes become the one snapshot that the policy sees."""

from datetime import UTC, datetime, timedelta

from headrace.domain.fleet import QueueSample
from headrace.policies.scaling import Snapshot
from scheduler.autoscale import snapshot_of

AT = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


def sample(queue: str, at: datetime, depth: int, running: int, slots: int) -> QueueSample:
    return QueueSample(queue, at, depth, 0.0, 0, 0, 0, running, slots, 1)


def test_lanes_are_added_up_and_the_pools_slots_are_counted_once() -> None:
    high, low = sample("chat.high", AT, 3, 5, 32), sample("chat.low", AT, 4, 6, 32)
    assert snapshot_of([high, low]) == Snapshot(AT, depth=7, running=11, slots=32)


def test_a_snapshot_is_as_old_as_its_oldest_sample() -> None:
    old = AT - timedelta(seconds=90)
    snapshot = snapshot_of([sample("chat.high", AT, 0, 0, 0), sample("chat.low", old, 0, 0, 0)])
    assert snapshot is not None
    assert snapshot.at == old


def test_a_pool_without_samples_has_no_snapshot() -> None:
    assert snapshot_of([]) is None
