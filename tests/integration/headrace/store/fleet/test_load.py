"""What a pool was asked for lately, added up from the samples of its queues."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from headrace.domain.fleet import QueueSample
from headrace.domain.queues import lane_queues
from headrace.store import Store
from headrace.store.fleet import observations
from headrace.store.fleet.observations import LoadSpan

START = datetime(2026, 11, 27, 9, 0, tzinfo=UTC)
CHAT = lane_queues("chat")


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


@pytest.fixture
def sample(store: Store) -> Callable[..., None]:
    """Writes the samples of two lanes at one time: of `high` with these counts, of `normal` with one job."""

    def write(seconds: float, offered: int = 0, hosts: int = 2, **counts: int) -> None:
        high = QueueSample(CHAT[0], at(seconds), hosts=hosts, offered=offered, offered_tokens=100 * offered, **counts)
        normal = QueueSample(CHAT[1], at(seconds), hosts=hosts, offered=1, offered_tokens=10)
        other = QueueSample("code.high", at(seconds + 1), offered=1000, offered_tokens=1000)
        with store.begin() as db:
            observations.add_samples(db, [high, normal, other])

    return write


def load(store: Store, since: float = 0) -> list[LoadSpan]:
    with store.begin() as db:
        return observations.load(db, CHAT, at(since), 60.0)


def test_the_lanes_of_a_pool_are_added_up_in_spans(store: Store, sample: Callable[..., None]) -> None:
    for n in range(25):
        sample(5 * n, offered=n, refused=1, spilled=2, hosts=2 if n < 13 else 4)
    assert load(store) == [
        # The first sample says only when the second one begins.
        LoadSpan(at(60), 60.0, 78 + 12, 7_800 + 120, 12, 24, 2.0),
        LoadSpan(at(120), 60.0, 222 + 12, 22_200 + 120, 12, 24, 4.0),
    ]
    # A later start has the sample before it.
    assert load(store, since=60) == load(store)[1:]


def test_a_pause_of_the_observer_is_no_time_without_load(store: Store, sample: Callable[..., None]) -> None:
    for seconds, offered in ((0, 0), (10, 4), (230, 219), (240, 9)):
        sample(seconds, offered=offered)
    assert [(span.at, span.seconds, span.offered_jobs) for span in load(store)] == [
        (at(60), 10.0, 5),
        (at(240), 230.0, 230),
    ]


def test_a_pool_without_samples_has_no_load(store: Store, sample: Callable[..., None]) -> None:
    with store.begin() as db:
        assert observations.last_moment(db, CHAT) == []
    assert load(store) == []
    sample(5)
    assert load(store) == []
    assert load(store, since=10) == []


def test_the_last_moment_has_all_lanes_of_the_pool(store: Store, sample: Callable[..., None]) -> None:
    sample(0, offered=5)
    sample(5, offered=7)
    with store.begin() as db:
        found = observations.last_moment(db, CHAT)
    assert {(each.queue, each.at, each.offered) for each in found} == {(CHAT[0], at(5), 7), (CHAT[1], at(5), 1)}
