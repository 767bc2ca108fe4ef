"""In which order a consumer looks into its queues."""

import json
from collections import Counter
from collections.abc import Sequence

from kombu.utils.json import dumps

from headrace.broker.messages import make_celery
from headrace.broker.transport import LaneCycle, lane_cycles
from headrace.config import LaneSettings, PoolSettings, Settings
from headrace.config.sections import PoolLaneSettings
from headrace.domain.queues import CONTROL, Lane, lane_queues

TAKES = {Lane.HIGH: 10, Lane.NORMAL: 4, Lane.LOW: 1, Lane.BATCH: 1}
QUEUES = lane_queues("chat")


def cycle_of(*queues: str) -> LaneCycle:
    """One that consumes these queues."""
    cycle = LaneCycle(TAKES)
    cycle.update(queues)
    return cycle


def takes(cycle: LaneCycle, with_work: Sequence[str], count: int) -> list[str]:
    """Which queues are taken from, `count` times, while only some have work."""
    taken = []
    for _ in range(count):
        found = next(queue for queue in cycle.consume(16) if queue in with_work)
        cycle.rotate(found)
        taken.append(found)
    return taken


def test_every_queue_is_looked_into_whatever_the_turn() -> None:
    cycle = cycle_of(*QUEUES)
    for _ in range(16):
        order = cycle.consume(len(QUEUES))
        assert sorted(order) == sorted(QUEUES)
        cycle.rotate(order[0])


def test_with_work_in_all_lanes_each_has_its_share() -> None:
    assert Counter(takes(cycle_of(*QUEUES), QUEUES, 160)) == dict(zip(QUEUES, (100, 40, 10, 10), strict=True))


def test_the_turn_of_a_lane_without_work_goes_to_the_best_that_has_some() -> None:
    taken = Counter(takes(cycle_of(*QUEUES), ["chat.normal", "chat.batch"], 160))
    assert taken == {"chat.normal": 150, "chat.batch": 10}


def test_a_look_that_finds_nothing_does_not_end_the_turn() -> None:
    cycle = cycle_of(*QUEUES)
    orders = [cycle.consume(4) for _ in range(3)]
    assert orders[0] == orders[1] == orders[2]


def test_a_lane_that_is_consumed_again_finds_the_round_where_it_was() -> None:
    cycle = cycle_of(*QUEUES)
    before = takes(cycle, QUEUES, 8)
    cycle.update(QUEUES)
    assert Counter(before + takes(cycle, QUEUES, 8)) == dict(zip(QUEUES, (10, 4, 1, 1), strict=True))


def test_queues_that_are_no_lanes_come_last_in_their_order() -> None:
    cycle = cycle_of("webhooks", "chat.low", "control")
    assert cycle.consume(3) == ["chat.low", "webhooks", "control"]
    assert cycle_of(CONTROL).consume(1) == [CONTROL]


def test_no_more_queues_are_named_than_asked_for() -> None:
    assert len(cycle_of(*QUEUES).consume(2)) == 2


def test_shares_are_those_of_the_settings() -> None:
    lanes = {Lane.LOW: LaneSettings(takes=3), Lane.BATCH: LaneSettings(takes=5)}
    celery = make_celery("test", Settings(lanes=lanes))
    cycle = celery.conf.broker_transport_options["queue_order_strategy"]()
    cycle.update(["chat.low", "chat.batch"])
    # 10 and 4 of these 22 takes are those of lanes that are not consumed here.
    assert Counter(takes(cycle, ["chat.low", "chat.batch"], 22)) == {"chat.low": 17, "chat.batch": 5}


def test_a_pool_s_own_shares_hold_for_its_workers() -> None:
    pools = {"fast": PoolSettings(lanes={Lane.LOW: PoolLaneSettings(takes=7)})}
    settings = Settings(pools=pools, lanes={Lane.LOW: LaneSettings(takes=3)})

    assert lane_cycles(settings, "fast").takes[Lane.LOW] == 7
    assert lane_cycles(settings, "overflow").takes[Lane.LOW] == lane_cycles(settings).takes[Lane.LOW] == 3
    assert lane_cycles(settings, "fast").takes[Lane.HIGH] == 10


def test_operators_can_be_shown_every_setting_of_the_transport() -> None:
    shown = json.loads(dumps(make_celery("test", Settings()).conf.broker_transport_options))
    assert shown["queue_order_strategy"] == {"high": 10, "normal": 4, "low": 1, "batch": 1}
