"""kombu's Redis transport with our differences, on a real Valkey."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from queue import Empty
from typing import Any, cast

import pytest
from celery import Celery
from kombu import Connection, Consumer, Message, Producer, Queue
from kombu.asynchronous import Hub
from redis import Redis

from headrace.broker.admission import Admission
from headrace.broker.messages import list_key, make_celery
from headrace.broker.transport import MOST_AT_ONCE, Channel, LaneCycle, Taker, Transport
from headrace.config import Settings
from headrace.domain.ids import new_id, show_id
from headrace.domain.queues import CONTROL, Lane, Ticket, bell_key, queue_name

#: How long anything here may take, in seconds.
SOON_S = 10


@pytest.fixture
def connection(celery: Celery) -> Iterator[Connection]:
    with celery.connection_for_write() as connection:
        yield connection


def test_every_app_of_ours_uses_it(connection: Connection) -> None:
    assert isinstance(connection.transport, Transport)
    assert isinstance(connection.default_channel, Channel)
    assert connection.transport.driver_type == "redis", "what Celery and Flower ask for"


def test_an_ack_needs_no_connection_so_that_a_consumer_with_one_place_takes_the_next_message(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    received: list[Message] = []
    queue = Queue("acks")
    consumer = Consumer(connection, [queue], callbacks=[lambda _, message: received.append(message)])
    consumer.qos(prefetch_count=1)
    producer = Producer(connection, exchange=queue.exchange, routing_key=queue.routing_key)
    for body in ("first", "second"):
        producer.publish(body, declare=[queue], routing_key=queue.name)
    consumer.consume()
    connection.drain_events(timeout=SOON_S)

    def break_off(*_: object) -> None:
        raise ConnectionResetError

    with monkeypatch.context() as broken:
        broken.setattr(consumer.channel, "conn_or_acquire", break_off)
        received[0].ack()
    assert consumer.channel.qos.can_consume()
    connection.drain_events(timeout=SOON_S)
    assert [message.payload for message in received] == ["first", "second"]


class Rows(Taker):
    """Takes from the first queue while there is room."""

    def __init__(self, redis: Redis) -> None:
        super().__init__(bell_key("chat"))
        self.has_room = True
        self.slots = 5
        self.looks = 0
        self._redis = redis

    def free_slots(self) -> int:
        return self.slots

    def take(self, turns: LaneCycle, queues: int, most: int) -> Sequence[tuple[str, dict[str, Any]]]:
        self.looks += 1
        first = turns.consume(queues)[0]
        rows = cast("list[str] | None", self._redis.rpop(list_key(first), most)) if self.has_room else None
        return [(first, json.loads(row)) for row in rows or ()]


class Consuming:
    """A worker's consumer in an event loop. A wait for the bell lasts a minute, so that the bell must be heard."""

    def __init__(self, settings: Settings, redis: Redis) -> None:
        celery = make_celery("test", settings)
        self.taker = Rows(redis)
        options = {"taker": self.taker, "polling_interval": 60}
        celery.conf.broker_transport_options = celery.conf.broker_transport_options | options
        self.received: list[str] = []
        self.connection = celery.connection_for_read()
        queue = celery.amqp.queues[queue_name("chat", Lane.NORMAL)]
        self.consumer = Consumer(self.connection, [queue], callbacks=[self._note], accept=["json"])
        self.consumer.consume()
        self.hub = Hub()
        self.connection.register_with_event_loop(self.hub)

    def _note(self, _body: object, message: Message) -> None:
        self.received.append(message.headers["id"])
        message.ack()

    def turn_until(self, condition: Callable[[], bool]) -> None:
        """Run the loop until then. Raises: TimeoutError."""
        give_up_at = time.monotonic() + SOON_S
        while not condition():
            if time.monotonic() > give_up_at:
                raise TimeoutError
            with suppress(Empty):
                self.hub.run_once()

    def is_waiting(self) -> bool:
        """The queues are empty, and the consumer listens for the bell."""
        return bool(self.connection.default_channel._in_poll) and not self.taker.is_due

    def close(self) -> None:
        self.hub.close()
        # It would wait for the bell first.
        self.connection.default_channel._in_poll = None
        self.connection.release()


@pytest.fixture
def consuming(settings: Settings, redis: Redis) -> Iterator[Callable[[], Consuming]]:
    made: list[Consuming] = []

    def make() -> Consuming:
        made.append(Consuming(settings, redis))
        return made[-1]

    yield make
    for each in made:
        each.close()


def commit(admission: Admission) -> str:
    start_by = datetime.now(UTC) + timedelta(hours=1)
    ticket = Ticket(new_id(), new_id(), queue_name("chat", Lane.NORMAL), Lane.NORMAL, 6, 4, start_by)
    admission.commit([ticket])
    return show_id(ticket.job_id)


def test_a_waiting_worker_hears_of_work(consuming: Callable[[], Consuming], admission: Admission) -> None:
    worker = consuming()
    worker.turn_until(worker.is_waiting)
    job = commit(admission)
    worker.turn_until(lambda: worker.received == [job])


def test_a_turn_waits_once_for_more_slots_before_its_first_take(
    consuming: Callable[[], Consuming], admission: Admission, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, asked, take = consuming(), list[int](), Rows.take
    worker.taker.slots = 1
    jobs = [commit(admission) for _ in range(6)]

    def noted(taker: Rows, turns: LaneCycle, queues: int, most: int) -> Sequence[tuple[str, dict[str, Any]]]:
        asked.append(most)
        return take(taker, turns, queues, most)

    monkeypatch.setattr(Rows, "take", noted)
    monkeypatch.setattr(Rows, "gather", lambda taker: setattr(taker, "slots", taker.slots + 3))
    worker.turn_until(lambda: worker.received == jobs)
    assert asked[:2] == [4, 4]


def test_every_waiting_worker_hears_it(consuming: Callable[[], Consuming], admission: Admission) -> None:
    full, idle = consuming(), consuming()
    full.taker.has_room = False
    for worker in (full, idle):
        worker.turn_until(worker.is_waiting)
    job = commit(admission)
    full.turn_until(lambda: full.taker.looks > 1 and full.is_waiting())
    idle.turn_until(lambda: idle.received == [job])
    assert full.received == []


def test_a_worker_looks_again_when_it_has_got_room(consuming: Callable[[], Consuming], admission: Admission) -> None:
    worker = consuming()
    worker.taker.has_room = False
    job = commit(admission)
    worker.turn_until(worker.is_waiting)
    worker.taker.has_room = True
    with ThreadPoolExecutor(1) as other_thread:
        other_thread.submit(worker.taker.look)
        worker.turn_until(lambda: worker.received == [job])


def test_a_look_that_is_due_wakes_the_loop_once_and_a_free_slot_wakes_it_only_then() -> None:
    class Asked(Taker):
        def take(self, turns: LaneCycle, queues: int, most: int) -> list[tuple[str, dict[str, Any]]]:
            return []

    taker, wakes = Asked("bell"), list[None]()
    taker.wakes(lambda: wakes.append(None))
    taker.look()
    assert len(wakes) == 1, "by the new connection"
    taker.wake()
    assert len(wakes) == 2, "by the slot"
    taker.is_due = False
    taker.wake()
    assert len(wakes) == 2
    taker.look()
    taker.look()
    assert len(wakes) == 3


def test_a_long_queue_is_taken_whole(consuming: Callable[[], Consuming], admission: Admission) -> None:
    jobs = [commit(admission) for _ in range(3 * MOST_AT_ONCE)]
    worker = consuming()
    worker.turn_until(lambda: len(worker.received) == len(jobs))
    assert worker.received == jobs


def test_a_worker_with_many_slots_fills_them_at_once(
    consuming: Callable[[], Consuming], admission: Admission, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [commit(admission) for _ in range(3 * MOST_AT_ONCE)]
    worker = consuming()
    worker.taker.slots = 1000
    polls, poll = list[object](), worker.hub.poller.poll
    monkeypatch.setattr(worker.hub.poller, "poll", lambda timeout: (polls.append(found := poll(timeout)), found)[1])
    worker.turn_until(lambda: len(worker.received) == len(jobs))
    assert len(polls) >= 3
    assert all(polls), "no turn of the loop waits until its time is up"


def test_nothing_is_taken_without_a_free_slot(
    consuming: Callable[[], Consuming], admission: Admission, redis: Redis
) -> None:
    worker = consuming()
    worker.taker.slots = 1
    worker.consumer.qos(prefetch_count=1)
    worker.consumer.callbacks = [lambda _body, message: worker.received.append(message)]  # type: ignore[list-item]
    jobs = [commit(admission), commit(admission)]
    worker.turn_until(lambda: len(worker.received) == 1)
    worker.hub.run_once()
    assert redis.llen(list_key(queue_name("chat", Lane.NORMAL))) == 1
    worker.received[0].ack()  # type: ignore[attr-defined]
    worker.turn_until(lambda: len(worker.received) == 2)
    assert [each.headers["id"] for each in worker.received] == jobs  # type: ignore[attr-defined]


def test_many_threads_publish_at_once(celery: Celery, redis: Redis) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda no: celery.send_task("test", (no,), queue=CONTROL), range(200)))
    assert redis.llen(list_key(CONTROL)) == 200
