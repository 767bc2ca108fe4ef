"""Requests of the terminal that are tried again."""

from collections.abc import Callable

import pytest

from headrace.cli import client
from headrace.cli.client import ApiRefused, NoAnswer, TryLater, patiently


def failing(*errors: ApiRefused | NoAnswer) -> Callable[[], str]:
    """Raises these, one after the other, and then answers."""
    left = list(errors)

    def ask() -> str:
        if left:
            raise left.pop(0)
        return "answer"

    return ask


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses, which end at once."""
    made: list[float] = []
    monkeypatch.setattr(client.time, "sleep", made.append)
    return made


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


def test_it_gives_up_some_time_after_the_first_failure(monkeypatch: pytest.MonkeyPatch, pauses: list[float]) -> None:
    now = [0.0]
    monkeypatch.setattr(client.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(client.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    calls: list[float] = []

    def ask() -> str:
        calls.append(now[0])
        # The first answer takes longer than all patience.
        now[0] += client.PATIENCE_S if len(calls) == 1 else 0.0
        raise NoAnswer("Cut.")

    with pytest.raises(NoAnswer):
        patiently(ask, lambda note: None)
    assert calls[-1] == 2 * client.PATIENCE_S
