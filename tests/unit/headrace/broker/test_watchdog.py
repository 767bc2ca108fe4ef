"""When a consumer counts as stalled, by a clock of the test's."""

import pytest

from headrace.broker.watchdog import LOOK_EVERY_S, PATIENCE_S, Pulse, Watchdog


class Scene:
    """A consumer, a broker, and the time."""

    def __init__(self) -> None:
        self.pulse, self.is_well, self.now = Pulse(), True, 1000.0
        self.pulse.felt_at = self.now
        self.watchdog = Watchdog(self.pulse, lambda: self.is_well, lambda: True, lambda: self.now)

    def looks(self, seconds: float) -> list[bool]:
        """What each look says for so long."""
        told = []
        for _ in range(int(seconds / LOOK_EVERY_S)):
            self.now += LOOK_EVERY_S
            told.append(self.watchdog.is_stalled())
        return told


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_one_that_was_not_felt_for_long_is_stalled_and_not_before(scene: Scene) -> None:
    assert not any(scene.looks(PATIENCE_S - LOOK_EVERY_S))
    assert scene.looks(2 * LOOK_EVERY_S)[-1]


def test_one_that_is_felt_is_not(scene: Scene) -> None:
    for _ in range(10):
        scene.pulse.felt_at = scene.now
        assert not any(scene.looks(PATIENCE_S / 2))


def test_one_that_has_not_begun_is_not(scene: Scene) -> None:
    scene.pulse.felt_at = None
    assert not any(scene.looks(3 * PATIENCE_S))


def test_while_the_broker_is_away_nobody_is_and_afterwards_there_is_time_to_come_back(scene: Scene) -> None:
    scene.is_well = False
    assert not any(scene.looks(3 * PATIENCE_S))
    scene.is_well = True
    assert not any(scene.looks(PATIENCE_S))
    assert scene.looks(2 * LOOK_EVERY_S)[-1]


def test_a_process_that_was_stopped_is_not_blamed_for_it(scene: Scene) -> None:
    scene.looks(10)
    scene.now += 10 * PATIENCE_S
    assert not any(scene.looks(PATIENCE_S))
