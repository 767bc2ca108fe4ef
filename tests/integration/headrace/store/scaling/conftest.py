"""A pool's past, written straight into the tables."""

import random
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from headrace.domain.queues import Lane, lane_queues, queue_name
from headrace.store import Store
from headrace.tables import queue_rollups, queue_samples

#: A Friday. All times of these tests are counted from it.
NOW = datetime(2026, 11, 27, 9, 0, tzinfo=UTC)

#: Columns that are the same in the rows of each lane.
OF_POOL = ("at", "span_s", "samples", "slots", "hosts", "hosts_requested", "hosts_draining", "kv_use")


@pytest.fixture
def add(store: Store) -> Callable[..., None]:
    """Writes rows of a table, in no order."""

    def write(table: sa.Table, rows: Iterable[dict[str, Any]]) -> None:
        shuffled = list(rows)
        random.Random(7).shuffle(shuffled)
        with store.begin() as db:
            for start in range(0, len(shuffled), 5000):
                db.execute(sa.insert(table), shuffled[start : start + 5000])

    return write


@pytest.fixture
def sample(add: Callable[..., None]) -> Callable[..., None]:
    """Writes the samples of each lane at these times; what a lane counts is in those of `normal`."""

    def write(times: Iterable[datetime], pool: str = "chat", **columns: Any) -> None:
        add(queue_samples, (row for at in times for row in lanes(queue_samples, pool, {"at": at, **columns})))

    return write


@pytest.fixture
def roll_up(add: Callable[..., None]) -> Callable[..., None]:
    """Writes rolled-up spans from these times on, in the same way."""

    def write(starts: Iterable[datetime], span_s: int, pool: str = "chat", **columns: Any) -> None:
        span = {"span_s": span_s, "samples": span_s // 5, **columns}
        add(queue_rollups, (row for at in starts for row in lanes(queue_rollups, pool, {"at": at, **span})))

    return write


def lanes(table: sa.Table, pool: str, columns: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of each lane: what a lane counts is in those of `normal`."""
    zeros = {column.name: 0 for column in table.c if not column.nullable}
    shared = {name: each for name, each in columns.items() if name in OF_POOL}
    return [
        {**zeros, **(columns if queue == queue_name(pool, Lane.NORMAL) else shared), "queue": queue}
        for queue in lane_queues(pool)
    ]


def every(step_s: float, start: datetime, end: datetime) -> list[datetime]:
    """The times from `start` on, before `end`."""
    count = round((end - start) / timedelta(seconds=step_s))
    return [start + timedelta(seconds=step_s * number) for number in range(count)]
