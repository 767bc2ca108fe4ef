"""A small body needs a deadline, unless the app's last one came promptly and none of its reads is stuck."""

from contextlib import ExitStack
from uuid import UUID

import pytest

from api.bodies.small import PROMPT_LIMIT, PROMPT_S, SmallBodies

APP, OTHER = UUID(int=1), UUID(int=2)


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def bodies(clock: Clock) -> SmallBodies:
    return SmallBodies(clock)


def needs_deadline(bodies: SmallBodies, app_id: UUID = APP) -> bool:
    """Reads a body that comes at once."""
    with bodies.reading(app_id) as needed:
        return needed


def test_an_app_needs_a_deadline_until_a_body_came_promptly(bodies: SmallBodies) -> None:
    assert [needs_deadline(bodies) for _ in range(3)] == [True, False, False]
    assert needs_deadline(bodies, OTHER), "another app has not shown it"


def test_a_body_that_came_slowly_or_not_at_all_ends_the_trust(bodies: SmallBodies, clock: Clock) -> None:
    needs_deadline(bodies)
    with bodies.reading(APP):
        clock.now_s += PROMPT_S
    assert [needs_deadline(bodies), needs_deadline(bodies)] == [True, False]
    with pytest.raises(ConnectionResetError), bodies.reading(APP):
        raise ConnectionResetError
    assert needs_deadline(bodies)


def test_while_a_read_without_a_deadline_is_stuck_the_others_need_one(bodies: SmallBodies, clock: Clock) -> None:
    needs_deadline(bodies)
    with bodies.reading(APP) as needed:
        assert not needed
        assert not needs_deadline(bodies)
        clock.now_s += PROMPT_S
        assert [needs_deadline(bodies), needs_deadline(bodies)] == [True, True]
        assert (bodies.stuck(APP, PROMPT_S / 2), bodies.stuck(APP, 2 * PROMPT_S)) == (1, 0)
    assert bodies.stuck(APP, 0) == 0


def test_so_many_reads_at_once_have_no_deadline(bodies: SmallBodies) -> None:
    needs_deadline(bodies)
    with ExitStack() as reads:
        needed = [reads.enter_context(bodies.reading(APP)) for _ in range(PROMPT_LIMIT + 2)]
        assert bodies.sending(APP) == PROMPT_LIMIT + 2
    assert needed == [False] * PROMPT_LIMIT + [True] * 2
    assert bodies.sending(APP) == 0
