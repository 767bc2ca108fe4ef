"""What the charts of pools show: samples and their rollups, waits by lane, and decisions that move hosts."""

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
import sqlalchemy as sa

from headrace.domain.queues import Lane, Ticket
from headrace.store import Store, clock
from headrace.store.fleet import history
from headrace.tables import decisions, jobs, queue_rollups, queue_samples

HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
SPAN = timedelta(minutes=10)


@pytest.fixture
def now(store: Store) -> datetime:
    """The beginning of an hour, lately."""
    with store.begin() as db:
        return clock.now(db).replace(minute=0, second=0, microsecond=0)


def sample(queue: str, at: datetime, depth: int, **more: object) -> dict[str, object]:
    counts = {"oldest_wait_s": 1.0, "arrivals": 1, "refused": 0, "started": 1, "running": 1, "slots": 4, "hosts": 2}
    return {"queue": queue, "at": at, "depth": depth, **counts, **more}


def test_a_pool_s_depth_is_the_sum_of_its_lanes_means(store: Store, now: datetime) -> None:
    start = now - HOUR
    with store.begin() as db:
        for row in (
            sample("chat.high", start + MINUTE, 2, kv_use=0.3),
            sample("chat.high", start + 2 * MINUTE, 4, kv_use=0.6),
            sample("chat.low", start + MINUTE, 10),
            sample("chat.high", start + 11 * MINUTE, 7, hosts=3),
            sample("fast.high", start + MINUTE, 99),
            sample("chat.high", start - MINUTE, 99),
        ):
            db.execute(sa.insert(queue_samples).values(**row))
        found = history.pool_trend(db, "chat", start, SPAN)
    assert [(each.at - start, each.depth, each.most, each.hosts, each.kv_use) for each in found] == [
        (timedelta(0), 13.0, 12.0, 2.0, 0.6),
        (SPAN, 7.0, 7.0, 3.0, None),
    ]


def test_a_peak_is_the_same_whenever_it_is_looked_at(store: Store, now: datetime) -> None:
    start = now - HOUR
    with store.begin() as db:
        for second in range(0, 600, 30):
            db.execute(sa.insert(queue_samples).values(sample("chat.low", start + timedelta(seconds=second), 10)))
        db.execute(sa.insert(queue_samples).values(sample("chat.low", start + timedelta(seconds=301), 503)))
        seen = [history.pool_trend(db, "chat", start - timedelta(seconds=late), SPAN) for late in range(0, 500, 83)]
    assert {tuple((each.at, each.depth, each.most) for each in found) for found in seen} == {
        ((start, (20 * 10 + 503) / 21, 503.0),)
    }


def test_a_pool_s_trend_goes_on_into_the_rollups(store: Store, now: datetime) -> None:
    start = now - 100 * HOUR
    more = {"span_s": 3600, "samples": 9, "most_depth": 9, "started_tokens": 0}
    with store.begin() as db:
        db.execute(sa.insert(queue_rollups).values(**sample("chat.low", start + HOUR, 5), **more))
        db.execute(sa.insert(queue_samples).values(**sample("chat.low", now - HOUR, 6)))
        found = history.pool_trend(db, "chat", start, HOUR)
    assert [(each.depth, each.most) for each in found] == [(5.0, 9.0), (6.0, 6.0)]


def test_waits_are_those_of_each_lane_until_the_first_start(
    store: Store, queued: Callable[..., Ticket], now: datetime
) -> None:
    start = now - HOUR
    waits = {Lane.HIGH: [1, 2, 3], Lane.BATCH: [100]}
    for lane, seconds in waits.items():
        for wait_s in seconds:
            job_id = queued(lane=lane).job_id
            times = {"created_at": start + MINUTE, "started_at": start + MINUTE + timedelta(seconds=wait_s)}
            with store.begin() as db:
                db.execute(sa.update(jobs).where(jobs.c.id == job_id).values(**times))
    queued()
    with store.begin() as db:
        found = history.wait_trend(db, start, SPAN)
        assert history.wait_trend(db, now, SPAN) == []
    assert [(each.at, each.lane, each.jobs, round(each.p95_wait_s, 3)) for each in found] == [
        (start, "batch", 1, 100.0),
        (start, "high", 3, 2.9),
    ]


def test_only_decisions_that_move_hosts_are_marked(store: Store, now: datetime) -> None:
    common = {"pool": "chat", "mode": "active", "inputs": {}, "hosts": 2, "reason": "so"}
    with store.begin() as db:
        for minutes, action, target in ((50, "up", 3), (40, "hold", 3), (30, "down", 1), (90, "up", 9)):
            at = now - minutes * MINUTE
            db.execute(sa.insert(decisions).values(**common, at=at, action=action, target=target))
        found = history.host_changes(db, "chat", now - HOUR)
        assert history.host_changes(db, "fast", now - HOUR) == []
    assert [(each.action, each.target) for each in found] == [("up", 3), ("down", 1)]
