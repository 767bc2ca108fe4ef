"""What a worker that starts is told of answers made before.

What a pool was asked for lately, added up from the samples of its queues. What its apps were served.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from headrace.domain.fleet import QueueSample
from headrace.domain.ids import new_id
from headrace.domain.queues import Lane, Route, Ticket, lane_queues
from headrace.domain.states import JobState
from headrace.store import Store
from headrace.store.fleet import observations
from headrace.store.fleet.observations import LoadSpan
from headrace.tables import jobs


@pytest.fixture
def answered(store: Store, queued: Callable[..., Ticket]) -> Callable[..., None]:
    """Inserts an ended job of the pool `chat` whose answer has these tokens; keyword arguments set its columns."""

    def insert(tokens: int | None, lane: Lane = Lane.NORMAL, **columns: object) -> None:
        ticket = queued(lane=lane)
        values = {
            "state": JobState.SUCCEEDED,
            "ended_at": sa.func.now(),
            "output_tokens": tokens,
            "finish_reason": "stop",
            **columns,
        }
        with store.begin() as db:
            db.execute(sa.update(jobs).where(jobs.c.id == ticket.job_id).values(**values))

    return insert


def lengths(store: Store) -> list[tuple[Lane, int, bool]]:
    with store.begin() as db:
        return observations.answer_lengths(db, "chat", ["test-model", "an-adapter"])


def test_the_answers_of_a_pool_count_with_their_lanes_in_the_order_in_which_they_came(
    store: Store, answered: Callable[..., None]
) -> None:
    answered(16)
    answered(64, Lane.HIGH)
    answered(8, model_requested="an-adapter", finish_reason="length")

    assert lengths(store) == [(Lane.NORMAL, 16, False), (Lane.HIGH, 64, False), (Lane.NORMAL, 8, True)]


def test_what_another_engine_answered_or_nobody_does_not(
    store: Store, answered: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    answered(1, pool="other")
    answered(2, model_requested="of-former-days")
    answered(3, route=Route.OVERFLOW)
    answered(4, state=JobState.FAILED)
    answered(None, state=JobState.QUEUED, ended_at=None)
    answered(5)
    assert lengths(store) == [(Lane.NORMAL, 5, False)]

    monkeypatch.setattr(observations, "LENGTHS_ROWS", 1)
    answered(6, pool="other")
    assert lengths(store) == [], "no more jobs than that are looked at"


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


def test_what_apps_were_served_is_found_without_the_hits_before_the_time(store: Store, engine: sa.Engine) -> None:
    entries = (
        "INSERT INTO ledger (app_id, job_id, kind, pool, prompt_tokens, usd, at)"
        " SELECT gen_random_uuid(), overlay(gen_random_uuid()::text PLACING :month FROM 1)::uuid,"
        " :kind, 'chat', 60, 0, now() - :age FROM generate_series(1, :n)"
    )
    with store.begin() as db:
        for kind, age, count in (("cache", timedelta(hours=2), 20_000), ("compute", timedelta(minutes=1), 2)):
            given = {"month": str(new_id())[:13], "kind": kind, "age": age, "n": count}
            db.execute(sa.text(entries), given)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as db:
        db.execute(sa.text("ANALYZE ledger"))
    read = "SELECT sum(seq_tup_read + idx_tup_fetch) FROM pg_stat_xact_user_tables"
    counts = f"{read} WHERE pg_partition_root(relid) = 'ledger'::regclass AND relid <> 'ledger'::regclass"
    with store.begin() as db:
        before = db.scalar(sa.text(counts)) or 0
        [rates] = observations.served_rates(db, timedelta(hours=1), timedelta(minutes=10)).values()
        assert list(rates.values()) == [pytest.approx(1, rel=0.2)] * 2
        assert db.scalar(sa.text(counts)) - before < 100
