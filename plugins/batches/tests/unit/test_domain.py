"""The states of batches, and what a completion window may be."""

import hypothesis
import pytest
from hypothesis import strategies as st

from plugins.batches.domain import LONGEST_WINDOW_S, SHORTEST_WINDOW_S, BatchState, window_s

HOUR_S, DAY_S = 3600, 86_400


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("24h", DAY_S),
        ("90m", 5400),
        ("90min", 5400),
        ("1h38min", 5880),
        ("2d12h", 60 * HOUR_S),
        ("1m", 60),
        ("60s", 60),
        ("1m1s", 61),
        ("30d", 30 * DAY_S),
        ("720h", 30 * DAY_S),
        ("0d24h0m0s", DAY_S),
        ("024h", DAY_S),
    ],
)
def test_a_window_is_days_hours_minutes_and_seconds(text: str, seconds: int) -> None:
    assert window_s(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "24", "h", "24 h", " 24h", "24h ", "24H", "1.5h", "-1h", "+1h", "1h1h", "30m1h", "1hour", "1w"),
        *("0h", "59s", "31d", "721h", "30d1s", "99999999999h", "2\u0664h", "24h\n", "1mi", "1minute"),
    ],
    ids=ascii,
)
def test_anything_else_is_no_window(text: str) -> None:
    assert window_s(text) is None


@hypothesis.given(st.text(alphabet="0123456789dhmins ", max_size=24))
def test_a_window_is_within_its_bounds(text: str) -> None:
    seconds = window_s(text)
    assert seconds is None or SHORTEST_WINDOW_S <= seconds <= LONGEST_WINDOW_S


@hypothesis.given(st.integers(SHORTEST_WINDOW_S, LONGEST_WINDOW_S))
def test_every_number_of_seconds_within_the_bounds_has_a_window(seconds: int) -> None:
    minutes, rest = divmod(seconds, 60)
    assert window_s(f"{minutes}m{rest}s") == window_s(f"{seconds}s") == seconds


def test_four_states_are_final() -> None:
    assert {state for state in BatchState if state.is_terminal} == {"failed", "completed", "expired", "cancelled"}
