"""The shares of the lanes, as a real kombu consumer takes messages from a real Valkey."""

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from celery import Celery
from kombu import Consumer, Message
from redis import Redis

from headrace.broker.admission import Admission
from headrace.broker.messages import list_key
from headrace.domain.ids import new_id, parse_id
from headrace.domain.queues import Lane, Ticket, lane_queues, queue_name

WAITING = 160
SHARES = {"high": 100, "normal": 40, "low": 10, "batch": 10}
START_BY = datetime.now(UTC) + timedelta(hours=1)
#: How long a message may take to come, in seconds.
SOON_S = 10

Take = Callable[[], tuple[str, Message]]


@pytest.fixture
def fill(admission: Admission) -> Callable[..., list[UUID]]:
    """Puts jobs of two apps into lanes of the pool `chat`, `WAITING` into each."""
    apps = [new_id(), new_id()]

    def put(*lanes: Lane) -> list[UUID]:
        tickets = [
            Ticket(new_id(), apps[i % 2], queue_name("chat", lane), lane, 6, 4, START_BY)
            for i in range(WAITING)
            for lane in lanes
        ]
        admission.commit(tickets)
        return [ticket.job_id for ticket in tickets]

    return put


@pytest.fixture
def take(celery: Celery) -> Iterator[Take]:
    """Waits for the next message, one at a time, as a worker with one free slot does; returns its lane, and it."""
    received: list[tuple[str, Message]] = []

    def note(body: object, message: Message) -> None:
        received.append((message.delivery_info["routing_key"].rpartition(".")[2], message))

    def wait() -> tuple[str, Message]:
        while not received:
            connection.drain_events(timeout=SOON_S)
        return received.pop(0)

    queues = [celery.amqp.queues[name] for name in lane_queues("chat")]
    with (
        celery.connection_for_read() as connection,
        Consumer(connection.channel(), queues, callbacks=[note], prefetch_count=1, accept=["json"]),
    ):
        yield wait


def take_and_ack(take: Take, count: int) -> Counter[str]:
    """How many of the next `count` messages come from each lane."""
    lanes: Counter[str] = Counter()
    for _ in range(count):
        lane, message = take()
        message.ack()
        lanes[lane] += 1
    return lanes


def test_a_message_says_how_many_answers_a_job_wants_if_it_wants_several(admission: Admission, take: Take) -> None:
    told = []
    for n in (1, 3):
        ticket = Ticket(new_id(), new_id(), "chat.normal", Lane.NORMAL, 6, 4, START_BY, n=n)
        admission.commit([ticket])
        _, message = take()
        message.ack()
        told.append({name: message.headers["headrace"].get(name) for name in ("max_tokens", "n")})
    assert told == [{"max_tokens": 4, "n": None}, {"max_tokens": 4, "n": 3}]
    assert ticket.kv_tokens == 18


def test_of_160_deliveries_with_work_in_all_lanes_each_lane_has_its_share(
    fill: Callable[..., list[UUID]], take: Take
) -> None:
    fill(*Lane)
    assert take_and_ack(take, WAITING) == SHARES


def test_the_shares_hold_in_every_round_of_16(fill: Callable[..., list[UUID]], take: Take) -> None:
    fill(*Lane)
    rounds = [take_and_ack(take, 16) for _ in range(10)]
    assert rounds == [{lane: share // 10 for lane, share in SHARES.items()}] * 10


def test_the_turn_of_a_lane_without_work_goes_to_the_best_that_has_some(
    fill: Callable[..., list[UUID]], take: Take
) -> None:
    fill(Lane.NORMAL, Lane.BATCH)
    assert take_and_ack(take, WAITING) == {"normal": 150, "batch": 10}


def test_the_shares_hold_while_messages_come_back_and_none_is_lost(
    fill: Callable[..., list[UUID]], take: Take, redis: Redis
) -> None:
    jobs = fill(*Lane)
    lanes: list[str] = []
    returned: set[UUID] = set()
    done: list[UUID] = []
    while len(done) < len(jobs):
        lane, message = take()
        lanes.append(lane)
        job_id = parse_id(message.headers["id"])
        if len(lanes) % 5 == 0 and job_id not in returned:
            returned.add(job_id)
            message.reject(requeue=True)
        else:
            message.ack()
            done.append(job_id)

    assert Counter(lanes[:WAITING]) == SHARES
    assert len(returned) > 100
    assert Counter(done) == Counter(jobs)
    assert [redis.llen(list_key(queue)) for queue in lane_queues("chat")] == [0] * 4


def test_a_job_that_comes_back_to_its_queue_is_taken_at_its_lanes_next_turn(
    fill: Callable[..., list[UUID]], take: Take, admission: Admission
) -> None:
    fill(*Lane)
    take_and_ack(take, 16)
    back = Ticket(new_id(), new_id(), "chat.low", Lane.LOW, 6, 4, START_BY, enqueue_no=2)
    admission.restore([back])

    taken = [take()]
    while taken[-1][0] != "low":
        taken[-1][1].ack()
        taken.append(take())

    assert parse_id(taken[-1][1].headers["id"]) == back.job_id
    assert len(taken) <= 16
