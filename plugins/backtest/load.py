"""The load of a backtest: a trace from a file or made up, and each of its requests with its time and size.

The requests are drawn once, and are the same for every policy.
"""

import csv
import math
from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias

from headrace.errors import ConfigError
from plugins.backtest.pool import OUTPUT_WEIGHT

if TYPE_CHECKING:
    import numpy as np
    from numpy.random import Generator
    from numpy.typing import NDArray

    Floats: TypeAlias = NDArray[np.float64]

MINUTE_S = 60.0
#: The longest trace, so that a wrong unit is an error and not a month of computing.
LONGEST_S = 366 * 86_400.0
#: The largest number that a cell may hold.
MOST = 1e9
#: Seconds since 1970 from here on are a date; smaller numbers are seconds since the trace's start.
UNIX_FROM_S = 1e9

#: The columns of a request file, with all names that published traces give them. Case, spaces and `_` do not matter.
TIME = ("timestamp", "time")
PROMPT = ("prompttokens", "contexttokens", "inputtokens", "requesttokens")
OUTPUT = ("outputtokens", "generatedtokens", "completiontokens", "responsetokens")
MINUTE = ("minute",)
REQUESTS = ("requests",)

_REMEDY = (
    "A trace has either the columns time, prompt_tokens, output_tokens (as in Azure's: TIMESTAMP, ContextTokens, "
    "GeneratedTokens), or the columns minute, requests."
)


@dataclass(frozen=True, slots=True)
class RequestTrace:
    """Requests, sorted by time.

    Attributes:
        start: the date of the first one; None if the file has no dates.
        times_s: seconds since the first one.
        prompt_tokens, output_tokens: their sizes.
    """

    start: datetime | None
    times_s: "array[float]"
    prompt_tokens: "array[float]"
    output_tokens: "array[float]"


@dataclass(frozen=True, slots=True)
class RateTrace:
    """Requests in each minute, from minute 0 on."""

    per_minute: "array[float]"


@dataclass(frozen=True, slots=True)
class LoadCell:
    """A value of a file, and where it stands."""

    path: Path
    line: int
    column: str
    text: str

    def error(self, what: str, remedy: str) -> ConfigError:
        """The error that names the place."""
        shown = f"'{self.text[:40]}'" if self.text else "empty"
        return ConfigError(f"{self.path}, line {self.line}, column {self.column}: {shown} {what}. {remedy}")

    def number(self) -> float:
        """A number from 0. Raises: ConfigError."""
        try:
            value = float(self.text)
        except ValueError:
            raise self.error("is not a number", "Correct the value, or remove the line.") from None
        if not math.isfinite(value) or value > MOST:
            raise self.error(f"is beyond {MOST:g}", "Correct the value, or remove the line.")
        if value < 0:
            raise self.error("is negative", "Correct the value, or remove the line.")
        return value


def read_trace(path: Path) -> RequestTrace | RateTrace:
    """Read a trace of either form. Raises: ConfigError: it is neither, or a value is not usable."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file)
            header = next(lines, None)
            if not header:
                raise ConfigError(f"{path} is empty. {_REMEDY}")
            return _read(path, header, lines)
    except csv.Error as error:
        raise ConfigError(f"{path} is not CSV: {error}. {_REMEDY}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text: byte {error.start} is not. {_REMEDY}") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}.") from None


def _read(path: Path, header: list[str], lines: Iterator[list[str]]) -> RequestTrace | RateTrace:
    columns = {"".join(name.lower().replace("_", " ").split()): place for place, name in enumerate(header)}
    rows = _Rows(path, header, lines)
    if _find(columns, MINUTE) is not None:
        return _rates(rows, _needed(path, header, columns, {"minute": MINUTE, "requests": REQUESTS}))
    names = {"time": TIME, "prompt_tokens": PROMPT, "output_tokens": OUTPUT}
    return _requests(rows, _needed(path, header, columns, names))


def _find(columns: Mapping[str, int], names: tuple[str, ...]) -> int | None:
    return next((columns[name] for name in names if name in columns), None)


def _needed(
    path: Path, header: list[str], columns: Mapping[str, int], names: Mapping[str, tuple[str, ...]]
) -> list[int]:
    """The places of these columns. Raises: ConfigError: one is missing."""
    places = {name: _find(columns, aliases) for name, aliases in names.items()}
    missing = ", ".join(name for name, place in places.items() if place is None)
    if missing:
        found = ", ".join(header)[:120]
        raise ConfigError(f"{path}, line 1: the column {missing} is missing; it has {found}. {_REMEDY}")
    return [place for place in places.values() if place is not None]


@dataclass(frozen=True, slots=True)
class _Rows:
    """The lines of a file below its header."""

    path: Path
    header: list[str]
    lines: Iterator[list[str]]

    def cells(self, places: list[int]) -> Iterator[list[LoadCell]]:
        """The cells at these places of each line that is not blank. Raises: ConfigError: a line is too short."""
        for line, row in enumerate(self.lines, 2):
            if not any(text.strip() for text in row):
                continue
            if len(row) <= max(places):
                column = self.header[len(row)]
                cell = LoadCell(self.path, line, column, "")
                raise cell.error("because the line is too short", "Complete the line, or remove it.")
            yield [LoadCell(self.path, line, self.header[place], row[place].strip()) for place in places]


def _rates(rows: _Rows, places: list[int]) -> RateTrace:
    """Raises: ConfigError."""
    minutes: dict[int, float] = {}
    for at, requests in rows.cells(places):
        minute = at.number()
        if minute != int(minute):
            raise at.error("is not a whole minute", "Minutes count from 0: 0, 1, 2.")
        if minute * MINUTE_S >= LONGEST_S:
            raise at.error(f"is more than {LONGEST_S / 86_400:.0f} days", "Minutes count from 0, not from a date.")
        minutes[int(minute)] = minutes.get(int(minute), 0.0) + requests.number()
    if not any(minutes.values()):
        raise ConfigError(f"{rows.path} has no requests. {_REMEDY}")
    return RateTrace(array("d", (minutes.get(minute, 0.0) for minute in range(max(minutes) + 1))))


def _requests(rows: _Rows, places: list[int]) -> RequestTrace:
    """Raises: ConfigError."""
    read: Callable[[LoadCell], float] | None = None
    times, prompts, outputs = array("d"), array("d"), array("d")
    for at, prompt, output in rows.cells(places):
        read = read or _time_reader(at)
        times.append(read(at))
        prompts.append(prompt.number())
        outputs.append(output.number())
    if not times:
        raise ConfigError(f"{rows.path} has no requests. {_REMEDY}")
    first = min(times)
    if max(times) - first > LONGEST_S:
        days = (max(times) - first) / 86_400
        message = f"{rows.path} spans {days:,.0f} days; at most {LONGEST_S / 86_400:.0f} are read."
        raise ConfigError(f"{message} Times are dates or seconds: check their unit.")
    start = datetime.fromtimestamp(first, UTC) if read is _date or first >= UNIX_FROM_S else None
    order = sorted(range(len(times)), key=times.__getitem__)
    return RequestTrace(
        start=start,
        times_s=array("d", (times[each] - first for each in order)),
        prompt_tokens=array("d", (prompts[each] for each in order)),
        output_tokens=array("d", (outputs[each] for each in order)),
    )


def _time_reader(cell: LoadCell) -> Callable[[LoadCell], float]:
    """How to read the column that begins with this cell. Raises: ConfigError."""
    try:
        float(cell.text)
    except ValueError:
        _date(cell)
        return _date
    return _seconds


def _seconds(cell: LoadCell) -> float:
    """Seconds since the trace's start, or since 1970."""
    try:
        value = float(cell.text)
    except ValueError:
        value = math.nan
    if not 0 <= value < 1e11:
        raise cell.error("is not a time in seconds, as the first line's is", "Correct the value, or remove the line.")
    return value


def _date(cell: LoadCell) -> float:
    """Seconds since 1970 of a date with a time, in UTC unless it has an offset."""
    try:
        at = datetime.fromisoformat(cell.text)
        return (at.replace(tzinfo=UTC) if at.tzinfo is None else at).timestamp()
    except (ValueError, OverflowError):
        remedy = "Write seconds, or a time like 2026-03-01T08:00:00."
        raise cell.error("is not a time", remedy) from None


HOUR = 60
DAY = 24 * HOUR
#: The rate of each minute varies by so much (standard deviation, log-normal), beside the chance of single arrivals.
NOISE = 0.08
#: The requests per second of a day's peak.
PEAK = 12.8

Rate = Callable[[float], float]


def synthetic(name: str, seed: int) -> RateTrace:
    """One of `SYNTHETIC`, with noise."""
    minutes, rate = SYNTHETIC[name]
    noise = Random(seed)
    # The mean of the factor is 1, so that noise does not add load.
    factors = (math.exp(noise.gauss(-(NOISE**2) / 2, NOISE)) for _ in range(minutes))
    return RateTrace(array("d", (60 * rate(minute + 0.5) * factor for minute, factor in enumerate(factors))))


def _day(minute: float) -> float:
    """A working day: quiet nights, a plateau from 7 to 21, its peak from 9 to 11, and a low swell at 15."""
    hour = minute % DAY / HOUR
    trough, plateau = 0.14 * PEAK, 0.48 * PEAK
    rise = 1 / (1 + math.exp(-(hour - 7) * 1.6)) - 1 / (1 + math.exp(-(hour - 21) * 1.1))
    peak = math.exp(-(((hour - 10) / 1.25) ** 4))
    return trough + (plateau - trough) * rise + (PEAK - plateau) * peak + 0.1 * PEAK * _bell(hour, 15, 2)


def _week(minute: float) -> float:
    """Five working days, then a weekend at 45 % of their load."""
    return _day(minute) * (0.45 if minute >= 5 * DAY else 1)


def _bell(x: float, middle: float, width: float) -> float:
    return math.exp(-(((x - middle) / width) ** 2) / 2)


def _spike(rise: float) -> Rate:
    """0.3 requests a second for 3 hours, up to 7 in `rise` minutes, 7 for 6 hours, down within an hour."""

    def rate(minute: float) -> float:
        up = (minute - 3 * HOUR) / rise
        down = (minute - 9 * HOUR - rise) / HOUR
        return 0.3 + 6.7 * max(0.0, min(1.0, up) - max(0.0, min(1.0, down)))

    return rate


def _ramp(minute: float) -> float:
    """1 request a second for an hour, up to 14 in three hours, down to 1 in three hours, 1 for an hour."""
    return 1 + 13 * max(0.0, 1 - abs(minute - 4 * HOUR) / (3 * HOUR))


#: The length of each in minutes, and its rate in requests per second at a minute.
SYNTHETIC: Mapping[str, tuple[int, Rate]] = MappingProxyType(
    {
        "day": (DAY, _day),
        "week": (7 * DAY, _week),
        "spike-5": (13 * HOUR, _spike(5)),
        "spike-30": (13 * HOUR, _spike(30)),
        "ramp": (8 * HOUR, _ramp),
    }
)


# numpy is imported where a function needs it: an API host has none, and lists the commands without it.

#: A load with more requests needs too much memory and time.
MOST_REQUESTS = 20_000_000
#: The peak of a load is its highest mean over this many minutes.
PEAK_MINUTES = 10
#: A copied request arrives up to so long before or after its original, so that copies make no bursts of their own.
COPY_SPREAD_S = 30.0
#: Where a trace has no dates, it starts on a Monday at midnight.
MONDAY = datetime(2026, 1, 5, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Sizes:
    """The requests of a rate file.

    Attributes:
        prompt_tokens, output_tokens: their means.
        vary: True to draw each request's size from an exponential distribution: its spread is about that of Azure's
            traces. False for requests of equal size.
    """

    prompt_tokens: float = 1155.0
    output_tokens: float = 211.0
    vary: bool = True

    @property
    def work(self) -> float:
        """The mean work of a request."""
        return self.prompt_tokens + OUTPUT_WEIGHT * self.output_tokens


@dataclass(frozen=True, slots=True)
class OfferedLoad:
    """Requests, sorted by time.

    Attributes:
        start: the date of second 0.
        seconds: the length of the trace.
        times_s: when each request arrives.
        work: the work of each; see `World.tokens_per_s`.
        tokens: the tokens of each, prompt and answer. Policies count these, as the product does.
        demand: the true offered work per second of each minute, before chance drew the requests of a rate file.
        scale: by how much `--peak-hosts` changed the trace.
    """

    start: datetime
    seconds: float
    times_s: "Floats"
    work: "Floats"
    tokens: "Floats"
    demand: "Floats"
    scale: float

    @property
    def tokens_per_work(self) -> float:
        """Tokens of a mean unit of work: from it follow the tokens that a saturated host serves."""
        return float(self.tokens.sum() / self.work.sum())

    @property
    def peak(self) -> float:
        """The highest mean of offered work per second over `PEAK_MINUTES`."""
        return float(smooth(self.demand, PEAK_MINUTES).max())


def offered_load(
    trace: RequestTrace | RateTrace, sizes: Sizes, seed: int, peak: float | None = None, start: datetime | None = None
) -> OfferedLoad:
    """The load of a trace.

    Args:
        sizes: of the requests of a rate file.
        peak: scale the load so that its peak is so much work per second; see `OfferedLoad.peak`.
        start: the date of the trace's start, in place of its own.
    Raises:
        ConfigError: too many requests.
    """
    import numpy as np

    random = np.random.default_rng(seed)
    demand = _demand(trace, sizes)
    scale = 1.0 if peak is None else peak / float(smooth(demand, PEAK_MINUTES).max())
    count = len(trace.times_s) if isinstance(trace, RequestTrace) else sum(trace.per_minute)
    if count * scale > MOST_REQUESTS:
        message = f"The load has {count * scale:,.0f} requests; at most {MOST_REQUESTS:,} can be simulated."
        raise ConfigError(f"{message} Scale it down with --peak-hosts, or shorten the trace.")
    if isinstance(trace, RequestTrace):
        times, work, tokens = _copied(trace, scale, random)
        start = start or trace.start
    else:
        times, work, tokens = _drawn(trace, sizes, scale, random)
    if not len(times):
        raise ConfigError("The load has no requests left. Scale it up with --peak-hosts.")
    order = np.argsort(times, kind="stable")
    return OfferedLoad(
        start=start or MONDAY,
        seconds=len(demand) * MINUTE_S,
        times_s=times[order],
        work=work[order],
        tokens=tokens[order],
        demand=demand * scale,
        scale=scale,
    )


def smooth(demand: "Floats", minutes: int) -> "Floats":
    """The mean over this many minutes around each minute; at the ends, over those that exist."""
    import numpy as np

    sums = np.concatenate(([0.0], np.cumsum(demand)))
    at = np.arange(len(demand))
    # The same number of minutes everywhere, so that the first minute alone is no peak.
    minutes = min(minutes, len(demand))
    first = np.clip(at - minutes // 2, 0, len(demand) - minutes)
    means: Floats = (sums[first + minutes] - sums[first]) / minutes
    return means


def _demand(trace: RequestTrace | RateTrace, sizes: Sizes) -> "Floats":
    """The offered work per second of each minute."""
    import numpy as np

    if isinstance(trace, RateTrace):
        rates: Floats = np.asarray(trace.per_minute) / MINUTE_S * sizes.work
        return rates
    work = np.asarray(trace.prompt_tokens) + OUTPUT_WEIGHT * np.asarray(trace.output_tokens)
    minutes = (np.asarray(trace.times_s) // MINUTE_S).astype(int)
    if not work.any():
        raise ConfigError("The trace's requests have no tokens: its columns of tokens hold only zeros.")
    return np.bincount(minutes, work) / MINUTE_S


def _drawn(trace: RateTrace, sizes: Sizes, scale: float, random: "Generator") -> "tuple[Floats, Floats, Floats]":
    """Times, work and tokens of requests that arrive by chance (Poisson) at the rate of each minute."""
    import numpy as np

    counts = random.poisson(np.asarray(trace.per_minute) * scale)
    minutes = np.repeat(np.arange(len(counts), dtype=float), counts)
    times = (minutes + random.random(len(minutes))) * MINUTE_S
    factors = random.exponential(size=len(times)) if sizes.vary else np.ones(len(times))
    return times, factors * sizes.work, factors * (sizes.prompt_tokens + sizes.output_tokens)


def _copied(trace: RequestTrace, scale: float, random: "Generator") -> "tuple[Floats, Floats, Floats]":
    """Times, work and tokens of the trace's requests, each as often as the scale says: copied or left out by chance."""
    import numpy as np

    times = np.asarray(trace.times_s)
    prompt, output = np.asarray(trace.prompt_tokens), np.asarray(trace.output_tokens)
    counts = np.floor(scale + random.random(len(times))).astype(int)
    chosen = np.repeat(np.arange(len(times)), counts)
    is_copy = np.concatenate(([False], chosen[1:] == chosen[:-1])) if len(chosen) else np.zeros(0, dtype=bool)
    moved = times[chosen] + is_copy * random.uniform(-COPY_SPREAD_S, COPY_SPREAD_S, len(chosen))
    # An arrival that would be before the start or after the end is reflected into the trace.
    end = (times[-1] // MINUTE_S + 1) * MINUTE_S
    moved = np.abs(moved)
    moved = np.where(moved >= end, 2 * end - moved - 1e-6, moved)
    return moved, (prompt + OUTPUT_WEIGHT * output)[chosen], (prompt + output)[chosen]
