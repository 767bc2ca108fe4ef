"""What a worker takes from real queues: the first head that fits, and never more than it has room for."""

import json
import math
from collections import Counter, deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from typing import Any
from uuid import UUID

import pytest
from redis import Redis
from redis.commands.core import Script
from redis.exceptions import ConnectionError

from headrace.batching import CROWD, Gathering
from headrace.broker.admission import Admission
from headrace.broker.messages import list_key
from headrace.broker.transport import LaneCycle
from headrace.domain.ids import new_id, parse_id
from headrace.domain.queues import Lane, Ticket, bell_key, books_key, lane_queues, queue_name
from headrace.policies.lanes import schedule
from workers.engines.base import EngineLimits, Progress
from workers.taking.kv_budget import KvBudget
from workers.taking.taker import ENOUGH_SLOTS, FARTHEST, JUST_SEEN_S, PASSED_OVER_S, KvTaker

QUEUES = lane_queues("chat")
HIGH, NORMAL, LOW, BATCH = QUEUES


class Silent:
    """An engine whose requests make no progress."""

    def progress(self) -> dict[str, Progress]:
        return {}


class Order:
    """The same order at each turn."""

    def __init__(self, queues: Sequence[str] = QUEUES) -> None:
        self.queues = list(queues)

    def consume(self, n: int) -> list[str]:
        return self.queues[:n]

    def rotate(self, last_used: str) -> None:
        pass


class Worker:
    """A taker with room for some blocks of 16 tokens, and a clock."""

    def __init__(self, redis: Redis, blocks: int) -> None:
        self.now = 0.0
        self.is_ready = True
        self.taker = KvTaker(redis, "chat", clock=lambda: self.now)
        self.kv_budget = KvBudget(Silent(), "expected", 0.0, freed=self.taker.look)  # type: ignore[arg-type]
        self.kv_budget.open(EngineLimits(None, max_running=100, kv_tokens=blocks * 16, kv_block_tokens=16))
        self.elsewhere: Sequence[UUID] = ()
        self.taker.open(self.kv_budget, lambda: self.is_ready, lambda: 8, elsewhere=lambda: self.elsewhere)

    def take(self, queues: Sequence[str] = QUEUES) -> UUID | None:
        """The one job that was taken, a moment later."""
        taken = self.take_some(1, queues)
        return taken[0] if taken else None

    def take_some(self, most: int, queues: Sequence[str] = QUEUES) -> list[UUID]:
        """The jobs that were taken, a moment later; their messages name their queues."""
        self.now += 2 * JUST_SEEN_S
        taken = self.taker.take(Order(queues), len(queues), most)
        assert all(message["properties"]["delivery_info"]["routing_key"] == queue for queue, message in taken)
        return [parse_id(message["headers"]["id"]) for _, message in taken]


@pytest.fixture
def worker(redis: Redis) -> Callable[[int], Worker]:
    return lambda blocks: Worker(redis, blocks)


@pytest.fixture
def put(admission: Admission) -> Callable[..., UUID]:
    """Queues a job that holds this number of blocks, and not more later."""
    app = new_id()

    def one(lane: Lane, blocks: int) -> UUID:
        start_by = datetime.now(UTC) + timedelta(hours=1)
        ticket = Ticket(new_id(), app, queue_name("chat", lane), lane, blocks * 16 - 1, 1, start_by)
        admission.commit([ticket])
        return ticket.job_id

    return one


def test_a_head_that_does_not_fit_stays_in_its_list_and_another_worker_takes_it(
    worker: Callable[[int], Worker], put: Callable[..., UUID], redis: Redis
) -> None:
    first, second, third = put(Lane.NORMAL, 6), put(Lane.NORMAL, 6), put(Lane.NORMAL, 1)
    full, idle = worker(10), worker(10)
    assert full.take() == first
    assert full.take() is None, "the third would fit, but it is not its turn"
    assert redis.llen(list_key(NORMAL)) == 2
    assert idle.take() == second
    assert full.take() == third
    assert redis.llen(list_key(NORMAL)) == 0


def test_the_order_of_the_turn_decides_and_a_lane_whose_head_does_not_fit_lets_others_pass(
    worker: Callable[[int], Worker], put: Callable[..., UUID]
) -> None:
    large, small, batch = put(Lane.HIGH, 9), put(Lane.NORMAL, 2), put(Lane.BATCH, 2)
    one = worker(10)
    assert one.take((BATCH, HIGH, NORMAL, LOW)) == batch
    assert one.take() == small
    assert one.take() is None
    one.kv_budget.release(batch)
    one.kv_budget.release(small)
    assert one.take() == large


def test_room_gathers_for_a_job_that_was_passed_over_for_long(
    worker: Callable[[int], Worker], put: Callable[..., UUID]
) -> None:
    one = worker(10)
    running = [put(Lane.BATCH, 4), put(Lane.BATCH, 4)]
    assert [one.take(), one.take()] == running
    large = put(Lane.HIGH, 6)
    small = [put(Lane.NORMAL, 2) for _ in range(3)]
    assert one.take() == small[0]
    one.kv_budget.release(small[0])
    one.now += PASSED_OVER_S
    assert one.take() is None
    one.kv_budget.release(running[0])
    assert one.take() == large
    assert one.take() is None
    one.kv_budget.release(running[1])
    assert one.take() == small[1], "as before"


def test_room_gathers_for_one_at_a_time(worker: Callable[[int], Worker], put: Callable[..., UUID]) -> None:
    one = worker(10)
    running = [put(Lane.BATCH, 4), put(Lane.BATCH, 4)]
    assert [one.take(), one.take()] == running
    large = put(Lane.LOW, 8)
    assert one.take() is None
    one.now = PASSED_OVER_S / 2
    small = put(Lane.HIGH, 4)
    assert one.take() is None
    one.now = 2 * PASSED_OVER_S
    one.kv_budget.release(running[0])
    assert one.take() is None, "both have waited for long, and the larger for longest"
    one.kv_budget.release(running[1])
    assert one.take() == large
    one.kv_budget.release(large)
    assert one.take() == small


def test_the_clock_of_a_blocked_lane_starts_anew_with_another_head(
    worker: Callable[[int], Worker], put: Callable[..., UUID]
) -> None:
    one, other = worker(10), worker(10)
    assert one.take((BATCH,)) is None
    held = put(Lane.BATCH, 8)
    assert one.take() == held
    first, _ = put(Lane.HIGH, 6), put(Lane.HIGH, 6)
    small = put(Lane.NORMAL, 1)
    assert one.take((HIGH,)) is None
    assert other.take((HIGH,)) == first
    one.now += PASSED_OVER_S
    assert one.take() == small


def test_a_lane_that_has_no_slot_keeps_room_from_nobody(
    worker: Callable[[int], Worker], put: Callable[..., UUID], redis: Redis
) -> None:
    one = worker(100)
    one.kv_budget = KvBudget(Silent(), "expected", 0.25, freed=one.taker.look)  # type: ignore[arg-type]
    one.kv_budget.open(EngineLimits(None, max_running=8, kv_tokens=1600, kv_block_tokens=16))
    one.taker.open(one.kv_budget, lambda: True, lambda: 8)
    high = [put(Lane.HIGH, 1) for _ in range(3)]
    normal = [put(Lane.NORMAL, 1) for _ in range(6)]
    assert one.take() == high[0]
    for job in normal[:5]:
        assert one.take((NORMAL,)) == job
    assert one.take((NORMAL,)) is None, "two of eight slots are kept"
    one.now += 2 * PASSED_OVER_S
    assert one.take((NORMAL, HIGH)) == high[1]
    assert one.take((NORMAL, HIGH)) == high[2]


def test_a_full_engine_gives_each_lane_its_share_while_the_lane_high_has_a_queue(
    worker: Callable[[int], Worker], put: Callable[..., UUID]
) -> None:
    one = worker(100)
    one.kv_budget = KvBudget(Silent(), "expected", 0.05, freed=one.taker.look)  # type: ignore[arg-type]
    one.kv_budget.open(EngineLimits(None, max_running=8, kv_tokens=1600, kv_block_tokens=16))
    one.taker.open(one.kv_budget, lambda: True, lambda: 8)
    lanes = {put(lane, 1): lane for lane in (Lane.HIGH, Lane.NORMAL, Lane.LOW) for _ in range(40)}
    turns = LaneCycle({Lane.HIGH: 10, Lane.NORMAL: 4, Lane.LOW: 2})
    turns.update((HIGH, NORMAL, LOW))
    running, taken = deque[UUID](), []
    for _ in range(8 + 32):
        one.now += 2 * JUST_SEEN_S
        for _, message in one.taker.take(turns, 3, 1):
            running.append(parse_id(message["headers"]["id"]))
            taken.append(lanes[running[-1]])
        if len(running) == 8:
            one.kv_budget.release(running.popleft())
    assert Counter(taken[-32:]) == {Lane.HIGH: 20, Lane.NORMAL: 8, Lane.LOW: 4}


def test_nothing_is_taken_while_the_engine_is_down(worker: Callable[[int], Worker], put: Callable[..., UUID]) -> None:
    one, job = worker(10), put(Lane.NORMAL, 1)
    one.is_ready = False
    assert one.take() is None
    one.is_ready = True
    assert one.take() == job


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Of each round trip of a taker from now on how many messages it is to remove."""
    sent, call = list[int](), Script.__call__

    def noted(self: Script, keys: Sequence[str], args: Sequence[Any]) -> object:
        if "take(" in self.script:
            sent.append((len(args) - 3) // 3)
        return call(self, keys, args)

    monkeypatch.setattr(Script, "__call__", noted)
    return sent


def beaten(slow: Worker, fast: Worker, monkeypatch: pytest.MonkeyPatch) -> list[UUID | None]:
    """Let a worker take a job between another one's look at it and its removal; returns what it takes."""
    hold, taken = slow.kv_budget.hold, list[UUID | None]()

    def slowly(*asked: Any) -> bool:
        is_held = hold(*asked)
        if not taken:
            taken.append(fast.take())
        return is_held

    monkeypatch.setattr(slow.kv_budget, "hold", slowly)
    return taken


def test_what_another_worker_takes_meanwhile_takes_no_room(
    worker: Callable[[int], Worker], put: Callable[..., UUID], redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = put(Lane.NORMAL, 6), put(Lane.NORMAL, 6)
    slow, fast = worker(10), worker(10)
    faster = beaten(slow, fast, monkeypatch)
    assert slow.take() == second, "its room is not used up by the first"
    assert faster == [first]
    assert redis.llen(list_key(NORMAL)) == 0


def test_of_several_those_are_had_that_no_other_worker_has_taken(
    worker: Callable[[int], Worker], put: Callable[..., UUID], redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [put(Lane.NORMAL, 2) for _ in range(5)]
    slow, fast = worker(10), worker(10)
    assert slow.take_some(1) == jobs[:1]
    faster = beaten(slow, fast, monkeypatch)
    assert slow.take_some(2) == [jobs[2]]
    assert faster == [jobs[1]]
    assert slow.take_some(8) == jobs[3:], "the room of the one that was lost is free"
    assert redis.llen(list_key(NORMAL)) == 0


def test_a_removal_that_fails_keeps_no_room(
    worker: Callable[[int], Worker], put: Callable[..., UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    _removed, second = put(Lane.NORMAL, 6), put(Lane.NORMAL, 4)
    one, call = worker(10), Script.__call__

    def cut_off(self: Script, keys: Sequence[str], args: Sequence[Any]) -> object:
        found = call(self, keys, args)
        if len(args) == 3:
            return found
        raise ConnectionError("The answer was lost.")

    monkeypatch.setattr(Script, "__call__", cut_off)
    with pytest.raises(ConnectionError):
        one.take_some(2)
    monkeypatch.undo()
    large = put(Lane.HIGH, 10)
    assert one.take() == large
    one.kv_budget.release(large)
    assert one.take() == second


@pytest.mark.parametrize("most", [1, 3, 16, 100])
def test_some_are_taken_together_in_the_order_of_the_turns(
    worker: Callable[[int], Worker], put: Callable[..., UUID], redis: Redis, looks: list[int], most: int
) -> None:
    jobs = {queue: [put(lane, 1) for _ in range(40)] for lane, queue in zip(Lane, QUEUES, strict=True)}
    takes = {Lane.HIGH: 10, Lane.NORMAL: 4, Lane.LOW: 1, Lane.BATCH: 1}
    one, cycle, taken = worker(200), LaneCycle(takes), list[tuple[str, dict[str, Any]]]()
    cycle.update(QUEUES)
    while len(taken) < 48:
        taken += one.taker.take(cycle, 4, min(most, 48 - len(taken)))
    assert [queue for queue, _ in taken] == [queue_name("chat", turn) for turn in schedule(takes) * 3]
    for queue, ids in jobs.items():
        mine = [parse_id(message["headers"]["id"]) for name, message in taken if name == queue]
        assert mine == ids[: len(mine)]
        assert redis.llen(list_key(queue)) == 40 - len(mine)
    assert len(looks) <= 2 * math.ceil(48 / min(most, FARTHEST)) + 4, "and four until it looks so far"


def test_a_take_waits_for_more_slots_while_jobs_end_unless_many_are_free(redis: Redis) -> None:
    pauses, slots = list[float](), [1]
    taker = KvTaker(redis, "chat", gathering=Gathering(0.5, lambda: 0.0, pauses.append))
    budget = KvBudget(Silent(), "expected", 0.0, freed=taker.look)  # type: ignore[arg-type]
    budget.open(EngineLimits(None, max_running=100, kv_tokens=1600, kv_block_tokens=16))
    taker.open(budget, lambda: True, lambda: slots[0])
    taker.gather()
    assert pauses == []
    for _ in range(CROWD):
        taker.look()
    taker.gather()
    assert pauses == [0.5]
    slots[0] = ENOUGH_SLOTS
    taker.gather()
    assert pauses == [0.5]


def test_a_worker_reads_nothing_while_its_engine_s_batch_is_full(
    redis: Redis, put: Callable[..., UUID], looks: list[int]
) -> None:
    taker, jobs = KvTaker(redis, "chat"), [put(Lane.NORMAL, 1) for _ in range(3)]
    budget = KvBudget(Silent(), "expected", 0.0, freed=taker.look)  # type: ignore[arg-type]
    budget.open(EngineLimits(None, max_running=2, kv_tokens=1600, kv_block_tokens=16))
    taker.open(budget, lambda: True, lambda: 8)
    assert taker.free_slots() == 2
    taken = [message for _ in range(3) for _, message in taker.take(Order(), 4, max(1, taker.free_slots()))]
    assert [parse_id(each["headers"]["id"]) for each in taken] == jobs[:2]
    looks.clear()
    assert taker.take(Order(), 4, 1) == []
    assert looks == []
    budget.release(jobs[0])
    assert [parse_id(each["headers"]["id"]) for _, each in taker.take(Order(), 4, 1)] == jobs[2:]


def test_a_take_for_one_slot_does_not_make_the_next_one_small(
    worker: Callable[[int], Worker], put: Callable[..., UUID], looks: list[int]
) -> None:
    one, jobs = worker(200), [put(Lane.NORMAL, 1) for _ in range(60)]
    taken = [job for most in (1, 2, 4, 8, 16, 1, 16) for job in one.take_some(most)]
    assert taken == jobs[:48]
    assert looks[-4:] == [0, 1, 0, 16], "read as many as there are slots, and remove them"


def test_what_was_lost_to_another_worker_is_not_searched_for_in_the_whole_queue(
    worker: Callable[[int], Worker], put: Callable[..., UUID], redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = put(Lane.NORMAL, 1)
    slow, fast = worker(10), worker(10)
    behind = [{"headers": {"task": "theirs"}, "properties": {"delivery_tag": str(no)}} for no in range(20_000)]
    redis.lpush(list_key(NORMAL), *map(json.dumps, behind))
    faster = beaten(slow, fast, monkeypatch)
    redis.config_resetstat()
    assert slow.taker.take(Order(), 4, 1) == [(NORMAL, behind[0])]
    assert faster == [lost]
    commands = redis.info("commandstats")
    assert commands["cmdstat_lrem"]["calls"] == 2, "one by each"
    assert commands["cmdstat_lpos"]["calls"] == 3


def test_no_more_are_taken_than_fit(worker: Callable[[int], Worker], put: Callable[..., UUID], redis: Redis) -> None:
    jobs = [put(Lane.NORMAL, 2) for _ in range(8)]
    one = worker(10)
    assert one.take_some(1) + one.take_some(8) + one.take_some(8) == jobs[:5]
    assert one.take_some(8) == []
    assert redis.llen(list_key(NORMAL)) == 3
    one.kv_budget.release(jobs[0])
    assert one.take_some(8) == jobs[5:6]


def test_taking_what_is_there_is_one_round_trip_each(
    worker: Callable[[int], Worker], put: Callable[..., UUID], looks: list[int]
) -> None:
    jobs = [put(Lane.NORMAL, 1) for _ in range(7)]
    one = worker(10)
    taken = [each for _ in range(3) for each in one.taker.take(Order(), 4, 8)]
    assert [parse_id(each[1]["headers"]["id"]) for each in taken] == jobs
    assert looks == [0, 1, 2, 4]
    late = put(Lane.HIGH, 1)
    assert one.take() == late, "although nothing was there a moment ago"


def test_a_message_that_is_none_of_ours_is_handed_on_and_one_that_nobody_can_read_is_dropped(
    worker: Callable[[int], Worker], redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    theirs = {"headers": {"id": "x", "task": "theirs"}, "properties": {"delivery_tag": "x"}, "body": ""}
    broken = ["not JSON", "[]", "{}", '{"headers": {"task": "theirs"}}']
    redis.rpush(list_key(NORMAL), json.dumps(theirs), *broken)
    one = worker(10)
    for _ in broken:
        one.taker.is_due = False
        assert one.taker.take(Order(), 4, 1) == []
        assert one.taker.is_due, "behind it there may be another"
    assert one.taker.take(Order(), 4, 1) == [(NORMAL, theirs)]
    assert [record.message for record in caplog.records].count("message_not_readable") == 4
    assert redis.llen(list_key(NORMAL)) == 0


def test_a_worker_that_begins_to_drain_in_the_middle_of_a_take_takes_nothing(
    worker: Callable[[int], Worker], put: Callable[..., UUID], redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, one = put(Lane.NORMAL, 6), worker(10)
    choose, rung = KvTaker._choose_some, redis.xrange(bell_key("chat"))

    def drain_meanwhile(taker: KvTaker, *args: Any) -> Any:
        chosen = choose(taker, *args)
        one.is_ready = not chosen
        return chosen

    monkeypatch.setattr(KvTaker, "_choose_some", drain_meanwhile)
    assert one.take() is None
    assert not one.is_ready
    assert redis.xrange(bell_key("chat")) != rung, "other workers looked while it was gone"
    assert redis.llen(list_key(NORMAL)) == 1
    assert redis.zcard(books_key("taken", NORMAL)) == 0
    reserved = one.kv_budget.reserved()
    assert reserved is not None
    assert reserved.share == 0, "its room was given back"
    monkeypatch.undo()

    one.is_ready = True
    assert one.take() == job


def test_an_idle_worker_takes_the_only_message_of_all_queues_in_one_round_trip(
    worker: Callable[[int], Worker], put: Callable[..., UUID], redis: Redis, looks: list[int]
) -> None:
    one, job = worker(10), put(Lane.LOW, 6)
    assert one.take() == job
    assert looks == [0]
    assert [entry.split()[0] for entry in redis.zrange(books_key("taken", LOW), 0, -1)] == [job.hex]
    assert redis.llen(list_key(LOW)) == 0

    busy = put(Lane.LOW, 1)
    assert one.take() == busy
    assert looks == [0, 0, 1], "a worker that has a job looks whether the next one fits, before it removes it"


def test_of_two_messages_an_idle_worker_removes_only_the_one_that_its_turn_chooses(
    worker: Callable[[int], Worker], put: Callable[..., UUID], redis: Redis, looks: list[int]
) -> None:
    one, batch, high = worker(10), put(Lane.BATCH, 1), put(Lane.HIGH, 1)
    assert one.take() == high
    assert looks == [0, 1]
    assert redis.llen(list_key(BATCH)) == 1
    assert redis.zcard(books_key("taken", BATCH)) == 0
    assert one.take() == batch


def test_the_only_message_is_put_back_if_its_lane_has_no_slot(
    worker: Callable[[int], Worker], put: Callable[..., UUID], redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, job = worker(10), put(Lane.NORMAL, 6)
    raw = redis.lrange(list_key(NORMAL), 0, -1)
    monkeypatch.setattr(one.kv_budget, "has_slot", lambda _lane: False)
    assert one.take() is None
    assert redis.lrange(list_key(NORMAL), 0, -1) == raw
    assert redis.zcard(books_key("taken", NORMAL)) == 0, "no sweep takes it for a job that a worker lost"
    monkeypatch.undo()
    assert one.take() == job


@pytest.mark.parametrize(
    "raw",
    [
        "nonsense",
        "[]",
        '{"headers": {}}',
        '{"headers": {"headrace": {}, "id": "job_1"}}',
        '{"headers": {"headrace": 1}}',
    ],
)
def test_the_only_message_stays_in_its_list_if_it_is_not_a_job_s(redis: Redis, raw: str) -> None:
    redis.rpush(list_key(NORMAL), raw)
    keys = [*map(list_key, QUEUES), *(books_key("taken", queue) for queue in QUEUES)]
    script = redis.register_script((files("headrace.broker") / "lua" / "take.lua").read_text())
    assert script(keys=keys, args=[1, 1, 1]) == [[], [[], [raw], [], []], 0]
    assert redis.llen(list_key(NORMAL)) == 1


def test_a_job_that_only_another_worker_may_run_stays_in_its_list_and_no_other_job_waits_for_it(
    worker: Callable[[int], Worker], put: Callable[..., UUID], redis: Redis
) -> None:
    theirs = [put(Lane.NORMAL, 1), put(Lane.NORMAL, 1)]
    others = [put(Lane.NORMAL, 1) for _ in range(3)]
    one, bound = worker(10), worker(10)
    one.elsewhere = theirs
    assert [one.take(), *one.take_some(8)] == others
    assert redis.llen(list_key(NORMAL)) == 2
    assert bound.take_some(8) == theirs[:1], "as many as it read"
    assert one.take() is None
    assert redis.zcard(books_key("taken", NORMAL)) == 4
    assert bound.take() == theirs[1]


def test_an_idle_worker_leaves_a_lone_job_that_only_another_may_run(
    worker: Callable[[int], Worker], put: Callable[..., UUID], redis: Redis
) -> None:
    one, job = worker(10), put(Lane.NORMAL, 1)
    one.elsewhere = [job]
    assert one.take() is None
    assert redis.llen(list_key(NORMAL)) == 1
    assert redis.zcard(books_key("taken", NORMAL)) == 0
    one.elsewhere = []
    assert one.take() == job
