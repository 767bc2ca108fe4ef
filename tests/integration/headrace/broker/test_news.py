"""Who hears of a job's end: those that listen to it, once; and the webhook workers and Flower, if they are to."""

from redis import Redis
from redis.client import PubSub

from headrace.broker.admission import Admission
from headrace.broker.news import LISTENS_S, News, Word, channel_of, listeners_key, word_of
from headrace.domain.ids import new_id
from headrace.domain.queues import MOVED, WEBHOOKS, bell_key
from tests.integration.listening import next_message


def listening_to(redis: Redis, channel: str) -> PubSub:
    listener = redis.pubsub()
    listener.subscribe(channel)
    assert next_message(listener)["type"] == "subscribe"
    return listener


def test_each_listener_hears_of_its_own_jobs_once(redis: Redis, admission: Admission) -> None:
    news, mine, both = News(redis), new_id(), new_id()
    channels = [channel_of(new_id()) for _ in range(2)]
    listeners = [listening_to(redis, channel) for channel in channels]
    news.listen([mine, both], channels[0])
    news.listen([both], channels[1])
    news.listen([both], channels[1])

    admission.announce_ended([new_id(), mine, both])
    admission.announce_ended([both])

    heard = [[next_message(listeners[0])["data"] for _ in range(2)], [next_message(listeners[1])["data"]]]
    assert heard == [[f"ended {mine.hex}", f"ended {both.hex}"], [f"ended {both.hex}"]]
    # A job that has ended has no listeners any more: the second announcement reached none.
    assert not any(listener.get_message(timeout=0.1) for listener in listeners)
    assert not redis.exists(listeners_key(mine), listeners_key(both))
    for listener in listeners:
        listener.close()


def test_redis_forgets_the_listeners_of_a_process_that_died(redis: Redis) -> None:
    job_id = new_id()
    News(redis).listen([job_id], channel_of(new_id()))
    assert 0 < redis.ttl(listeners_key(job_id)) <= LISTENS_S


def test_the_bell_and_flower_hear_with_and_without_listeners(redis: Redis, admission: Admission) -> None:
    job_ids = [new_id(), new_id()]
    flower = listening_to(redis, MOVED)

    admission.announce_ended([])
    assert not redis.exists(bell_key(WEBHOOKS))
    admission.announce_ended([job_ids[0]], has_webhooks=True, moved=job_ids)
    admission.announce_ended([], has_webhooks=True)

    assert next_message(flower)["data"] == " ".join(job_id.hex for job_id in job_ids)
    assert redis.xlen(bell_key(WEBHOOKS)) == 1
    flower.close()


def test_words_of_a_newer_release_are_passed_over() -> None:
    job_id = new_id()
    assert word_of(f"ended {job_id.hex}") == word_of(f"ended {job_id.hex} later") == Word(job_id, True)
    assert word_of(f"paused {job_id.hex}") is None
    assert word_of("later") is None
