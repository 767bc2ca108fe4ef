"""The chart in the terminal: its axes, its lines without colours, and the room that it takes."""

import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from headrace.cli.scale.chart import Lines, draw
from headrace.cli.scale.frame import HOURS, MINUTES, Frame

NOW = datetime(2026, 11, 30, 8, 10, 30, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An hour ahead of UTC in winter."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def at(minutes: float) -> datetime:
    return NOW + timedelta(minutes=minutes)


LINES = Lines(
    offered=[(at(minute), 4_000.0) for minute in range(-150, 0, 3)],
    expected=[(at(minute), 14_000.0) for minute in range(0, 240, 5)],
    capacity=[(at(minute), 9_000.0) for minute in range(-150, 240, 5)],
)


def drawn(width: int, lines: Lines = LINES, frame: Frame = HOURS) -> list[str]:
    return draw(lines, NOW, frame, width, 8).splitlines()


@pytest.mark.parametrize(
    ("width", "frame", "labels"),
    [
        (80, HOURS, [f"{hour:02d}:00" for hour in range(7, 14)]),
        (140, HOURS, [f"{hour:02d}:{minute}" for hour in range(7, 13) for minute in ("00", "30")] + ["13:00"]),
        (50, HOURS, ["06:00", "08:00", "10:00", "12:00"]),
        (80, MINUTES, ["08:50", "09:00", "09:10", "09:20", "09:30", "09:40", "09:50"]),
    ],
)
def test_its_labels_are_round_local_times_at_any_width(width: int, frame: Frame, labels: list[str]) -> None:
    shown = drawn(width, frame=frame)
    assert shown[-1].split()[1:] == labels
    assert max(map(len, shown)) <= width
    assert not any(line.endswith(" ") for line in shown)


def test_its_rates_are_round_and_each_line_is_known_without_its_colour() -> None:
    shown = drawn(80)
    rates = {line[:10].strip(): line[13:] for line in shown[1:-2]}
    assert list(rates) == ["16,000", "14,000", "12,000", "10,000", "8,000", "6,000", "4,000", "2,000", "0"]
    # Now is at 9:10, in the 22nd column of 6 minutes.
    assert rates["14,000"][22:].strip("o") == ""
    assert set(rates["8,000"].strip()) == {"⠂", "⢺"}
    assert set(rates["4,000"][:20]) <= set("⠒⠤⣀⠉")
    assert rates["10,000"].strip() in {"⡇", "⢸"}


def test_events_have_a_row_each_in_the_columns_of_their_time() -> None:
    events = [
        (at(-300), at(-240), "over"),
        (at(-30), at(49.5), "now"),
        (at(109.5), at(400), "launch"),
        (at(109.5), at(110), "short"),
        (at(400), at(500), "later"),
    ]
    shown = drawn(80, replace(LINES, events=events[1:]))[-3:]
    # 9:10 is in column 21.75 of 60: an event from 8:40 to 10:00 has the columns 17 to 29, one from 11:00 the rest.
    assert shown == [" " * 30 + "[now        ]", " " * 53 + "[launch            ]", " " * 53 + "[short]"]


def test_it_has_colours_for_a_terminal_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b[" not in draw(LINES, NOW, HOURS, 80, 8)
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b[95m" in draw(LINES, NOW, HOURS, 80, 8)


@pytest.mark.parametrize(
    ("lines", "width", "height"),
    [
        pytest.param(Lines([], [], []), 80, 8, id="nothing is known"),
        pytest.param(Lines([(at(-9), 0.0)], [(at(9), 0.0)], [(at(0), 9.0)]), 80, 8, id="nothing was offered"),
        pytest.param(LINES, 25, 8, id="too narrow"),
        pytest.param(LINES, 80, 0, id="too low"),
    ],
)
def test_it_is_left_out_where_it_would_show_nothing(lines: Lines, width: int, height: int) -> None:
    assert draw(lines, NOW, HOURS, width, height) == ""


def test_a_single_span_and_a_small_rate_are_drawn() -> None:
    shown = drawn(80, Lines([(at(-12), 0.3)], [], []))
    assert shown[1].split()[0] == "0.32"
    assert any("⠀" < mark < "⣿" for line in shown[2:-2] for mark in line[13:34])
