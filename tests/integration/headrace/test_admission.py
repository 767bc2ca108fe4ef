import base64
import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from redis import Redis

from headrace import connections
from headrace.admission import Admission, reservations_key
from headrace.broker import ExecuteMessage, list_key, make_celery
from headrace.config import Settings
from headrace.errors import BrokerUnavailable, QueueFull
from headrace.jobs import Lane, new_id, show_id
from headrace.queues import EXECUTE, Candidate, Ticket

QUEUE = "chat.normal"
SPILL = "overflow.normal"


def ticket(queue: str = QUEUE, enqueue_no: int = 1) -> Ticket:
    start_by = datetime.now(UTC) + timedelta(seconds=30)
    return Ticket(new_id(), new_id(), queue, Lane.NORMAL, 24, start_by, enqueue_no)


def own(cap: int) -> list[Candidate]:
    return [Candidate(QUEUE, cap, "own pool")]


@pytest.mark.parametrize(("already", "is_admitted"), [(0, True), (1, True), (2, False), (3, False)])
def test_reserve_holds_the_cap(already: int, is_admitted: bool, admission: Admission) -> None:
    for _ in range(already):
        admission.commit(ticket())

    if is_admitted:
        place = admission.reserve(new_id(), own(cap=2))
        assert (place.position, place.depth) == (already + 1, already + 1)
    else:
        with pytest.raises(QueueFull) as refused:
            admission.reserve(new_id(), own(cap=2))
        assert (refused.value.depth, refused.value.cap) == (already, 2)
        assert refused.value.retry_after_s is not None


def test_full_own_queue_spills_to_the_next_candidate(admission: Admission) -> None:
    candidates = [*own(cap=1), Candidate(SPILL, 1, "own queue full")]

    places = [admission.reserve(new_id(), candidates).candidate.queue for _ in range(2)]

    assert places == [QUEUE, SPILL]
    with pytest.raises(QueueFull, match=QUEUE):
        admission.reserve(new_id(), candidates)


def test_commit_turns_the_place_into_a_message_and_keeps_the_depth(admission: Admission, redis: Redis) -> None:
    mine = ticket()
    admission.reserve(mine.job_id, own(cap=5))
    before = admission.depths([QUEUE])

    admission.commit(mine)

    assert admission.depths([QUEUE]) == before == {QUEUE: 1}
    assert redis.llen(list_key(QUEUE)) == 1
    assert redis.zcard(reservations_key(QUEUE)) == 0


def test_cap_is_never_overshot_when_many_processes_reserve_at_once(settings: Settings, redis: Redis) -> None:
    message = ExecuteMessage(make_celery("test", settings))
    doors = [Admission(connections.redis(settings), message, reservation_ttl_s=30) for _ in range(8)]

    def submit(i: int) -> bool:
        mine = ticket()
        try:
            doors[i % 8].reserve(mine.job_id, own(cap=50))
        except QueueFull:
            return False
        doors[i % 8].commit(mine)
        return True

    with ThreadPoolExecutor(8) as threads:
        admitted = list(threads.map(submit, range(400)))

    assert sum(admitted) == 50
    assert redis.llen(list_key(QUEUE)) == 50


def test_place_that_ran_out_is_free_again(redis: Redis, settings: Settings) -> None:
    door = Admission(redis, ExecuteMessage(make_celery("test", settings)), reservation_ttl_s=0)
    door.reserve(new_id(), own(cap=1))

    assert door.reserve(new_id(), own(cap=1)).position == 1


def test_released_place_is_free_again(admission: Admission) -> None:
    job_id = new_id()
    admission.reserve(job_id, own(cap=1))

    admission.release(job_id, QUEUE)

    assert admission.reserve(new_id(), own(cap=1)).position == 1


def test_restore_pushes_only_what_is_missing_oldest_first(admission: Admission, redis: Redis) -> None:
    tickets = [ticket() for _ in range(3)]
    admission.commit(tickets[2])

    assert admission.restore(tickets) == 2
    assert admission.restore(tickets) == 0

    taken = [json.loads(message)["headers"]["id"] for message in reversed(redis.lrange(list_key(QUEUE), 0, -1))]
    assert taken == [show_id(each.job_id) for each in tickets]


def test_remove_takes_exactly_the_named_messages(admission: Admission) -> None:
    kept, gone = ticket(), ticket()
    for each in (kept, gone):
        admission.commit(each)

    assert admission.remove([gone]) == 1
    assert admission.remove([gone]) == 0
    assert admission.depths([QUEUE]) == {QUEUE: 1}


def test_message_equals_what_celery_itself_would_send(settings: Settings, redis: Redis) -> None:
    celery = make_celery("test", settings)
    mine = ticket(enqueue_no=3)
    headers = {
        "headrace": {
            "app": mine.app_id.hex,
            "lane": "normal",
            "kv_tokens": 24,
            "start_by": int(mine.start_by.timestamp()),
        }
    }
    task_id = show_id(mine.job_id)
    celery.send_task(EXECUTE, (task_id, 3), queue=QUEUE, task_id=task_id, headers=headers, ignore_result=True)
    sent = json.loads(redis.lpop(list_key(QUEUE)))

    ours = json.loads(ExecuteMessage(celery).of(mine))

    assert _meaning(ours) == _meaning(sent)
    assert ours["properties"]["delivery_tag"] == f"{task_id}.3"


def _meaning(message: dict) -> dict:
    """A message without what is random or says only who sent it and how the body is wrapped."""
    properties = dict(message["properties"])
    encoded = message["body"].encode()
    body = base64.b64decode(encoded) if properties.pop("body_encoding") == "base64" else encoded
    properties.pop("delivery_tag")
    properties.pop("reply_to", None)
    headers = {key: value for key, value in message["headers"].items() if key != "origin"}
    return {**message, "body": json.loads(body), "properties": properties, "headers": headers}


def test_redis_that_is_gone_is_reported_not_waited_for(settings: Settings) -> None:
    gone = settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})
    door = Admission(connections.redis(gone), ExecuteMessage(make_celery("test", gone)), reservation_ttl_s=30)

    with pytest.raises(BrokerUnavailable):
        door.reserve(new_id(), own(cap=1))


def test_drain_rates_are_read_back(admission: Admission) -> None:
    assert admission.drain_rate(QUEUE) is None

    admission.publish_drain_rates({QUEUE: 2.5})

    assert admission.drain_rate(QUEUE) == 2.5


def test_stale_reservations_are_dropped(redis: Redis, settings: Settings) -> None:
    door = Admission(redis, ExecuteMessage(make_celery("test", settings)), reservation_ttl_s=-5)
    door.reserve(new_id(), own(cap=9))

    assert door.drop_stale_reservations([QUEUE]) == 1
