"""kombu's Redis transport with one client for each channel, on a real Valkey."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from celery import Celery
from kombu import Connection
from redis import Redis

from headrace.broker import list_key, make_celery
from headrace.config import Settings
from headrace.queues import CONTROL
from headrace.transport import Channel, Transport


@pytest.fixture
def celery(settings: Settings, redis: Redis) -> Iterator[Celery]:
    celery = make_celery("test", settings)
    yield celery
    celery.close()


@pytest.fixture
def connection(celery: Celery) -> Iterator[Connection]:
    with celery.connection_for_write() as connection:
        yield connection


def test_every_app_of_ours_uses_it(connection: Connection) -> None:
    assert isinstance(connection.transport, Transport)
    assert isinstance(connection.default_channel, Channel)
    assert connection.transport.driver_type == "redis", "what Celery and Flower ask for"


def test_a_channel_keeps_the_client_that_it_publishes_with(connection: Connection) -> None:
    channel = connection.default_channel
    with (
        channel.conn_or_acquire() as first,
        channel.conn_or_acquire() as second,
        channel.conn_or_acquire(first) as given,
    ):
        assert first is second is given


def test_a_channel_whose_pools_were_dropped_makes_a_client_on_the_next(connection: Connection, redis: Redis) -> None:
    channel = connection.default_channel
    with channel.conn_or_acquire() as before:
        assert before.ping()

    channel._disconnect_pools()

    with channel.conn_or_acquire() as after:
        assert after is not before
        assert after.connection_pool is channel.pool
        assert after.ping()


def test_many_threads_publish_at_once(celery: Celery, redis: Redis) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda no: celery.send_task("test", (no,), queue=CONTROL), range(200)))
    assert redis.llen(list_key(CONTROL)) == 200
