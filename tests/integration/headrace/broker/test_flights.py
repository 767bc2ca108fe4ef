"""Which of several identical jobs leads, on a real Valkey."""

from redis import Redis

from headrace.broker.flights import Flights
from headrace.domain.ids import new_id

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
