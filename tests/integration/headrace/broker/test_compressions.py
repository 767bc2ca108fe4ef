"""Asking another pool's workers about a prompt: the answer comes in time, or the asker does without."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from redis import Redis

from headrace.broker import compressions as module
from headrace.broker.compressions import CompressionReply, Compressions
from headrace.config import Settings
from headrace.connections.redis import redis_client as connect
from headrace.domain.ids import new_id
from headrace.domain.prompts.compression import Cut
from headrace.errors import BrokerUnavailable

FOUND = CompressionReply("digest", (Cut(0, 3, 5), Cut(2, 0, 1)))


@pytest.fixture
def compressions(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> Compressions:
    monkeypatch.setattr(module, "LOOK_S", 0.1)
    return Compressions(redis)


def serve(compressions: Compressions, found: CompressionReply | None, jobs: int = 1) -> None:
    """Answer this number of requests."""
    while jobs:
        if job_id := compressions.take("fast"):
            compressions.answer(job_id, found)
            jobs -= 1


@pytest.mark.parametrize("found", [FOUND, CompressionReply("digest", ()), None])
def test_a_worker_of_the_pool_answers(compressions: Compressions, found: CompressionReply | None) -> None:
    assert compressions.take("fast") is None  # From now on the pool counts as served.
    with ThreadPoolExecutor(1) as threads:
        serving = threads.submit(serve, compressions, found)
        assert compressions.ask("fast", new_id(), 10.0) == found
        serving.result(10)


def test_each_asker_gets_the_answer_about_its_own_job(compressions: Compressions) -> None:
    assert compressions.take("fast") is None
    jobs = [new_id() for _ in range(20)]

    def answer(each: int) -> None:
        while not done.is_set():
            if job_id := compressions.take("fast"):
                compressions.answer(job_id, CompressionReply(job_id.hex, ()))

    done = threading.Event()
    with ThreadPoolExecutor(24) as threads:
        for each in range(4):
            threads.submit(answer, each)
        answers = list(threads.map(lambda job: compressions.ask("fast", job, 10.0), jobs))
        done.set()

    assert answers == [CompressionReply(job.hex, ()) for job in jobs]


def test_without_a_worker_nobody_waits(compressions: Compressions, redis: Redis) -> None:
    began = time.monotonic()

    assert compressions.ask("fast", new_id(), 10.0) is None

    assert time.monotonic() - began < 5
    assert redis.keys("*compress*") == []


def test_an_answer_that_does_not_come_in_time_is_not_waited_for(compressions: Compressions) -> None:
    assert compressions.take("fast") is None

    assert compressions.ask("fast", new_id(), 0.2) is None

    # The asker has given up: the job is not looked at any more.
    assert compressions.take("fast") is None


def test_a_late_answer_is_not_read_as_that_to_a_later_request(compressions: Compressions) -> None:
    job = new_id()
    assert compressions.take("fast") is None
    compressions.answer(job, FOUND)

    assert compressions.ask("fast", job, 0.2) is None


def test_all_of_it_expires(compressions: Compressions, redis: Redis) -> None:
    assert compressions.take("fast") is None
    assert compressions.ask("fast", new_id(), 0.2) is None
    compressions.answer(new_id(), FOUND)

    keys = redis.keys("*compress*")
    assert keys
    # -1 is that of a key that stays, -2 that of one that has gone meanwhile.
    assert all(redis.pttl(key) != -1 for key in keys)


def test_a_redis_that_is_away_is_said(settings: Settings) -> None:
    away = Compressions(connect(settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})))

    with pytest.raises(BrokerUnavailable):
        away.ask("fast", new_id(), 1.0)
    with pytest.raises(BrokerUnavailable):
        away.take("fast")
    with pytest.raises(BrokerUnavailable):
        away.answer(new_id(), None)
