"""The chart of `headrace scale`: what was offered, what is expected, and what the hosts can take."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

from plotille import Figure

from headrace.cli.scale.frame import Frame

#: The last label reaches so far to the right.
RIGHT = 5
#: How each line looks, so that they differ without colours.
OFFERED, EXPECTED, CAPACITY = "⠒⠒", "oo", "⠂⠂"
OFFERED_COLOR, EXPECTED_COLOR, CAPACITY_COLOR, NOW_COLOR = "bright_blue", "bright_magenta", "green", "yellow"
#: Steps between the labels of the rates, in powers of ten.
_STEPS = (1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)

#: The chart is that far from the left.
LEFT = 13
#: So much is above the highest line, which is not seen at the very edge.
HEADROOM = 1.02
#: Rows of events.
MOST_EVENTS = 4

#: A time and tokens per second.
Rate = tuple[datetime, float]


@dataclass(frozen=True, slots=True)
class Lines:
    """What is drawn, each the oldest first; empty if unknown.

    Attributes:
        events: the start, the end and the name of each.
    """

    offered: Sequence[Rate]
    expected: Sequence[Rate]
    capacity: Sequence[Rate]
    events: Sequence[tuple[datetime, datetime, str]] = ()


def draw(lines: Lines, now: datetime, frame: Frame, width: int, height: int) -> str:
    """A chart with local times, with ANSI colours; empty if there is nothing to draw, or no room.

    Args:
        width: of the terminal.
        height: lines of the chart, without its axis.
    """
    minutes = frame.whole / timedelta(minutes=1)
    fitting = [each for each in frame.column_min if LEFT + minutes / each + RIGHT <= width]
    most = max((rate for line in (lines.offered, lines.expected) for _, rate in line), default=0.0)
    if not fitting or height < 1 or most <= 0:
        return ""
    start = frame.start(now, fitting[0])
    figure = Figure()
    figure.width, figure.height = math.ceil(minutes / fitting[0]), height
    figure.color_mode, figure.origin = "names", False
    figure.y_label = "tokens/s"
    step = _step(max([most, *(rate for _, rate in lines.capacity)]) * HEADROOM / height)
    figure.set_x_limits(0.0, minutes)
    figure.set_y_limits(0.0, step * height)
    figure.x_ticks_fkt = lambda minute, _: f"{(start + timedelta(minutes=minute)).astimezone():%H:%M}"
    figure.y_ticks_fkt = lambda rate, _: f"{rate:10,.10g}"
    capacity, offered, expected = (
        [(_minute(at, start), rate) for at, rate in line if start <= at <= start + frame.whole]
        for line in (lines.capacity, lines.offered, lines.expected)
    )
    figure.scatter(*_axes(_in_columns(capacity, fitting[0])), lc=CAPACITY_COLOR)
    figure.plot(*_axes(offered), lc=OFFERED_COLOR)
    figure.scatter(*_axes(_in_columns(expected, fitting[0])), lc=EXPECTED_COLOR, marker=EXPECTED[0])
    figure.axvline(_minute(now, start) / minutes, lc=NOW_COLOR)
    events = [
        _event(_minute(begin, start) / fitting[0], _minute(end, start) / fitting[0], name, figure.width)
        for begin, end, name in lines.events[:MOST_EVENTS]
    ]
    return _trimmed("\n".join([figure.show(), *filter(None, events)]), figure.width)


def _axes(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _in_columns(points: Sequence[tuple[float, float]], column: float) -> list[tuple[float, float]]:
    """One point for each column between these points, on the straight lines between them."""
    found = list[tuple[float, float]]()
    for (x, rate), (next_x, next_rate) in pairwise(points):
        for index in range(math.ceil(x / column - 0.25), math.ceil(next_x / column - 0.25)):
            # In the left half of its cell, so that no cell has two dots.
            at = (index + 0.25) * column
            found.append((at, rate + (next_rate - rate) * (at - x) / (next_x - x)))
    return found


def _minute(at: datetime, start: datetime) -> float:
    return (at - start) / timedelta(minutes=1)


def _step(least: float) -> float:
    """The smallest round number that is not below this one."""
    if least <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in _STEPS if factor * power >= least * (1 - 1e-9))


def _event(begin: float, end: float, name: str, width: int) -> str:
    """The columns of an event, such as `[launch  ]`; empty if the chart ends before it."""
    first, last = max(round(begin), 0), min(round(end), width)
    if first >= width:
        return ""
    return " " * (LEFT + first) + f"[{name.ljust(last - first - 2)}]"[: width + RIGHT - first]


def _trimmed(drawn: str, width: int) -> str:
    """The chart without the arrow of its axis, and with spaces for empty cells."""
    lines = (line.rstrip() for line in drawn.replace("\u2800", " ").splitlines())
    return "\n".join(line[: LEFT + width + 1] if line.startswith("-") else line for line in lines)
