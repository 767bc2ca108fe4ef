"""Which of several identical jobs leads, and jobs to be looked up: in turn, one worker each, on a real Valkey."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from redis import Redis

from headrace.broker import reuse as module
from headrace.broker.admission import Admission
from headrace.broker.reuse import Flights, Lookups
from headrace.domain.ids import new_id
from headrace.domain.queues import KEY_PREFIX, Lane, Ticket
from headrace.policies.caching import HELD_S
from tests.waiting import until
from workers.matching import LookupHold

KEY = b"key"


def test_one_job_leads_until_it_lets_another(redis: Redis) -> None:
    flights, first, second = Flights(redis), new_id(), new_id()

    assert flights.lead(KEY, first)
    assert not flights.lead(KEY, second)
    assert flights.lead(b"another key", second)

    flights.release(KEY, first)

    assert flights.lead(KEY, second)


def test_a_job_that_does_not_lead_ends_no_other_s_turn(redis: Redis) -> None:
    """A leader whose insert takes longer than its turn, and a job that gave up waiting for the leader."""
    flights, leader, late = Flights(redis), new_id(), new_id()
    assert flights.lead(KEY, leader)

    flights.release(KEY, late)

    assert not flights.lead(KEY, new_id())


@pytest.fixture
def lookups(redis: Redis) -> Lookups:
    return Lookups(redis, "embed")


@pytest.fixture
def enter(admission: Admission) -> Callable[[], Ticket]:
    def commit() -> Ticket:
        ticket = Ticket(new_id(), new_id(), "chat.normal", Lane.NORMAL, 8, 16, datetime.now(UTC) + timedelta(minutes=1))
        admission.commit([ticket], {ticket.job_id: "embed"})
        return ticket

    return commit


def test_the_newest_job_is_looked_up_first(lookups: Lookups, enter: Callable[[], Ticket], redis: Redis) -> None:
    """Where look-ups lag, the older ones have been claimed: an answer can serve none of them any more."""
    lookups.take(1)
    old, new = enter(), enter()
    redis.zincrby(f"{KEY_PREFIX}lookups:embed", -1000, old.job_id.hex)
    assert lookups.take(1) == [new.job_id]
    assert lookups.take(1) == [old.job_id]


def test_jobs_are_entered_while_a_worker_asks(lookups: Lookups, enter: Callable[[], Ticket], redis: Redis) -> None:
    before = enter()
    assert not lookups.is_pending(before.job_id)
    assert lookups.take(10) == []
    tickets = [enter() for _ in range(3)]
    first, rest = lookups.take(2), lookups.take(2)
    assert {*first, *rest} == {each.job_id for each in tickets}
    assert (len(first), len(rest)) == (2, 1), "another worker gets the rest"
    assert all(lookups.is_pending(each.job_id) for each in tickets)
    lookups.done([each.job_id for each in tickets])
    assert not redis.exists(f"{KEY_PREFIX}lookups:embed")
    lookups.close()
    assert not lookups.is_pending(enter().job_id)


def test_a_worker_that_stops_asking_closes_them(
    lookups: Lookups, enter: Callable[[], Ticket], monkeypatch: pytest.MonkeyPatch, redis: Redis
) -> None:
    monkeypatch.setattr(module, "OPEN_MS", 50)
    lookups.take(1)
    until(lambda: not redis.exists(f"{KEY_PREFIX}looking:embed"), "its word expires")
    assert not lookups.is_pending(enter().job_id)


def test_the_bell_wakes_a_worker_that_waits(lookups: Lookups, enter: Callable[[], Ticket]) -> None:
    lookups.take(1)
    woken = threading.Event()

    def wait() -> None:
        lookups.wait(30)
        woken.set()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    enter()
    assert woken.wait(10)
    assert len(lookups.take(1)) == 1


def test_a_new_job_is_held_until_it_is_looked_up(lookups: Lookups, enter: Callable[[], Ticket]) -> None:
    lookups.take(1)
    ticket = enter()
    slept: list[float] = []

    def advance(pause: float) -> None:
        slept.append(pause)
        if len(slept) == 3:
            lookups.done([ticket.job_id])

    LookupHold([lookups], sleep=advance).wait(ticket.job_id)
    assert len(slept) == 3

    slept.clear()
    other = enter()
    # Its id is of another clock, which is ahead.
    ahead = timedelta(hours=1)
    behind = LookupHold([lookups], now=lambda: datetime.now(UTC) - ahead, sleep=slept.append, clock=lambda: sum(slept))
    behind.wait(other.job_id)
    assert sum(slept) == pytest.approx(HELD_S)

    slept.clear()
    later = LookupHold([lookups], now=lambda: datetime.now(UTC) + timedelta(seconds=HELD_S), sleep=slept.append)
    later.wait(other.job_id)
    LookupHold([], sleep=slept.append).wait(other.job_id)
    LookupHold([lookups], 0.0, sleep=slept.append).wait(other.job_id)
    assert slept == []
    holds = LookupHold([lookups]), LookupHold([lookups], 0.0), later, LookupHold([])
    assert [each.may_hold(other.job_id) for each in holds] == [True, False, False, False]


def test_a_redis_that_answers_slowly_holds_a_job_no_longer(lookups: Lookups, enter: Callable[[], Ticket]) -> None:
    lookups.take(1)
    ticket = enter()
    passed: list[float] = []

    class Slow(Lookups):
        def is_pending(self, job_id: UUID) -> bool:
            passed.append(HELD_S / 2)
            return super().is_pending(job_id)

    slow = Slow(lookups._redis, lookups.pool)
    LookupHold([slow], sleep=passed.append, clock=lambda: sum(passed)).wait(ticket.job_id)
    assert passed.count(HELD_S / 2) == 2
