"""Traces: a file of requests, or a file of rates. Reads CSV, and says what is wrong with it, where, and what to do."""

import csv
import math
from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from headrace.errors import ConfigError

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
class Cell:
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

    def cells(self, places: list[int]) -> Iterator[list[Cell]]:
        """The cells at these places of each line that is not blank. Raises: ConfigError: a line is too short."""
        for line, row in enumerate(self.lines, 2):
            if not any(text.strip() for text in row):
                continue
            if len(row) <= max(places):
                column = self.header[len(row)]
                cell = Cell(self.path, line, column, "")
                raise cell.error("because the line is too short", "Complete the line, or remove it.")
            yield [Cell(self.path, line, self.header[place], row[place].strip()) for place in places]


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
    read: Callable[[Cell], float] | None = None
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


def _time_reader(cell: Cell) -> Callable[[Cell], float]:
    """How to read the column that begins with this cell. Raises: ConfigError."""
    try:
        float(cell.text)
    except ValueError:
        _date(cell)
        return _date
    return _seconds


def _seconds(cell: Cell) -> float:
    """Seconds since the trace's start, or since 1970."""
    try:
        value = float(cell.text)
    except ValueError:
        value = math.nan
    if not 0 <= value < 1e11:
        raise cell.error("is not a time in seconds, as the first line's is", "Correct the value, or remove the line.")
    return value


def _date(cell: Cell) -> float:
    """Seconds since 1970 of a date with a time, in UTC unless it has an offset."""
    try:
        at = datetime.fromisoformat(cell.text)
        return (at.replace(tzinfo=UTC) if at.tzinfo is None else at).timestamp()
    except (ValueError, OverflowError):
        remedy = "Write seconds, or a time like 2026-03-01T08:00:00."
        raise cell.error("is not a time", remedy) from None
