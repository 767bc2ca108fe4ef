"""Requests of the terminal that are tried again."""

from collections.abc import Callable

import pytest

from headrace.cli import client
from headrace.cli.client import ApiRefused, NoAnswer, TryLater, patiently
from tests.waiting import Clock


def failing(*errors: ApiRefused | NoAnswer) -> Callable[[], str]:
    """Raises these, one after the other, and then answers."""
    left = list(errors)

    def ask() -> str:
        if left:
            raise left.pop(0)
        return "answer"

    return ask


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(client, "time", clock)
    return clock


@pytest.fixture
def pauses(clock: Clock) -> list[float]:
    return clock.sleeps


def test_what_passes_is_tried_again_after_the_pause_that_the_api_asks_for(pauses: list[float]) -> None:
    told: list[str] = []
    ask = failing(TryLater("Full.", 7.0), ApiRefused("Away.", 503), NoAnswer("Cut."), ApiRefused("Proxy.", 502))

    assert patiently(ask, told.append) == "answer"

    assert pauses == [7.0, client.AWAY_S, client.AWAY_S, client.AWAY_S]
    assert told[0] == "Full. Trying again in 7 s."
    assert len(told) == 4


@pytest.mark.parametrize("error", [ApiRefused("No.", 404), ApiRefused("Full.", 429), TryLater("Tomorrow.", 86_400.0)])
def test_what_does_not_pass_soon_is_raised_at_once(error: ApiRefused, pauses: list[float]) -> None:
    told: list[str] = []
    with pytest.raises(ApiRefused) as raised:
        patiently(failing(error), told.append)
    assert (raised.value, told, pauses) == (error, [], [])


def test_it_gives_up_some_time_after_the_first_failure(clock: Clock) -> None:
    answered_in: list[float] = []
    clock.monotonic = lambda: sum(answered_in) + sum(clock.sleeps)
    calls: list[float] = []

    def ask() -> str:
        calls.append(clock.monotonic())
        # The first answer takes longer than all patience.
        answered_in.append(client.PATIENCE_S if len(calls) == 1 else 0.0)
        raise NoAnswer("Cut.")

    with pytest.raises(NoAnswer):
        patiently(ask, lambda note: None)
    assert calls[-1] == 2 * client.PATIENCE_S
