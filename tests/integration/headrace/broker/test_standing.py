"""The standing of the fleets on a real Valkey: one process reads it for all."""

import json
from dataclasses import asdict

import pytest
from redis import Redis

from headrace.broker.admission import STANDING, STANDING_TTL_MS, Admission, Standing
from headrace.domain.fleet import Fleet
from headrace.domain.queues import KEY_PREFIX
from headrace.errors import StoreUnavailable

CHAT = Fleet("chat", 2, 1, 16, 3, 2048, None, 0.5)


def test_one_process_reads_for_all_until_it_is_too_old(admission: Admission, redis: Redis) -> None:
    reads: list[int] = []

    def read() -> dict[str, Fleet]:
        reads.append(1)
        return {"chat": CHAT}

    redis.hset(KEY_PREFIX + "departed", "chat", "7")
    first = admission.standing(read)
    assert (first.departed, first.fleets) == ({"chat": 7}, {"chat": CHAT})
    assert admission.standing(read) == first
    assert len(reads) == 1
    assert 0 < redis.pttl(STANDING) <= STANDING_TTL_MS  # type: ignore[operator]

    redis.delete(STANDING)
    redis.hset(KEY_PREFIX + "departed", "chat", "8")
    assert admission.standing(read).departed == {"chat": 8}
    assert len(reads) == 2


def test_the_jobs_that_left_are_counted_before_the_slots(admission: Admission, redis: Redis) -> None:
    def read_late() -> dict[str, Fleet]:
        redis.hset(KEY_PREFIX + "departed", "chat", "9")
        return {"chat": CHAT}

    redis.hset(KEY_PREFIX + "departed", "chat", "7")
    assert admission.standing(read_late).departed == {"chat": 7}


def test_a_postgres_that_does_not_answer_is_reported_and_asked_again(admission: Admission, redis: Redis) -> None:
    def fail() -> dict[str, Fleet]:
        raise StoreUnavailable("gone")

    with pytest.raises(StoreUnavailable):
        admission.standing(fail)
    assert not redis.exists(STANDING)
    assert admission.standing(lambda: {"chat": CHAT}).fleets == {"chat": CHAT}


def test_a_redis_without_memory_costs_each_process_a_reading_and_nothing_else(
    admission: Admission, redis: Redis
) -> None:
    before = redis.config_get("maxmemory")["maxmemory"]  # type: ignore[index]
    redis.config_set("maxmemory", "1")
    try:
        assert admission.standing(lambda: {"chat": CHAT}).fleets == {"chat": CHAT}
    finally:
        redis.config_set("maxmemory", before)
    assert not redis.exists(STANDING)


def test_what_a_process_of_another_release_wrote_is_read(admission: Admission, redis: Redis) -> None:
    def told(change: dict[str, object], drop: str = "") -> None:
        fleet = {name: value for name, value in {**asdict(CHAT), **change}.items() if name != drop}
        redis.set(STANDING, json.dumps({"departed": {"chat": 7}, "fleets": {"chat": fleet}, "later": 1}), px=10_000)

    def never() -> dict[str, Fleet]:
        raise AssertionError("the other process has read them")

    told({"later": 1}, drop="payload_version")
    assert admission.standing(never) == Standing({"chat": 7}, {"chat": CHAT})

    told({}, drop="slots")
    assert admission.standing(lambda: {"chat": CHAT}).fleets == {"chat": CHAT}, "it lacks what this release needs"
