"""Events of a worker over real Redis: when they are sent, and that none is left behind."""

import json
from base64 import b64decode
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from kombu.asynchronous.timer import Timer
from redis import Redis
from redis.client import PubSub

from tests.integration.listening import next_message
from workers.celery import SEND_EVERY_S, SendEvents


@pytest.fixture
def sent(redis: Redis) -> Iterator[PubSub]:
    with redis.pubsub() as listening:
        listening.psubscribe("*task.multi*")
        assert next_message(listening)["type"] == "psubscribe"
        yield listening


@pytest.fixture
def consumer(celery: Celery) -> Iterator[Any]:
    """What the step knows of Celery's consumer."""
    with celery.connection_for_write() as connection:
        dispatcher = celery.events.Dispatcher(connection, buffer_group=["task"], on_send_buffered=pytest.fail)
        yield SimpleNamespace(event_dispatcher=dispatcher, timer=Timer())


def told_of(sent: PubSub) -> list[str]:
    """The tasks of the events in the next message."""
    message = json.loads(next_message(sent)["data"])
    return [event["uuid"] for event in json.loads(b64decode(message["body"]))]


def test_events_are_sent_together_by_a_timer(consumer: Any, sent: PubSub) -> None:
    step = SendEvents(consumer)
    step.start(consumer)
    for job in ("one", "two"):
        consumer.event_dispatcher.send("task-received", uuid=job)
    assert sent.get_message() is None
    [entry] = consumer.timer.queue
    assert entry.entry.fun.__wrapped__ == consumer.event_dispatcher.flush
    entry.entry()
    assert told_of(sent) == ["one", "two"]
    assert SEND_EVERY_S <= 1, "Flower's pages are looked at as things happen"


def test_events_of_a_busy_worker_are_not_sent_in_dozens(consumer: Any, sent: PubSub) -> None:
    SendEvents(consumer).start(consumer)
    for number in range(1000):
        consumer.event_dispatcher.send("task-received", uuid=str(number))
    assert sent.get_message() is None
    consumer.event_dispatcher.flush()
    assert told_of(sent) == [str(number) for number in range(1000)]


def test_a_worker_that_leaves_sends_what_it_has(consumer: Any, sent: PubSub) -> None:
    step = SendEvents(consumer)
    step.start(consumer)
    consumer.event_dispatcher.send("task-succeeded", uuid="before")
    step.stop(consumer)
    assert told_of(sent) == ["before"]
    assert all(entry.entry.canceled for entry in consumer.timer.queue)
    consumer.event_dispatcher.send("task-succeeded", uuid="last")
    step.shutdown(consumer)
    assert told_of(sent) == ["last"]


def test_a_connection_that_never_came_about_has_nothing_to_send() -> None:
    consumer = SimpleNamespace(event_dispatcher=None)
    SendEvents(consumer).stop(consumer)
    SendEvents(consumer).shutdown(consumer)
