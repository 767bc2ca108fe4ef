"""How all commands print: an answer to standard output, everything else to standard error.

A pipe gets only the answer.
"""

import json
import signal
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, TypeVar

import click
from rich.console import Console, ConsoleOptions, RenderableType
from rich.live import Live
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from headrace.cli import hinting, visible

#: The option of every command that has a result.
json_option = click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")


#: The control characters that JSON leaves as they are, and a terminal obeys.
_UNESCAPED = {code: f"\\u{code:04x}" for code in range(0x7F, 0xA0)}


class _Console(Console):
    """Shows control characters in what it prints, and names this program in hints as the user calls it."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(hinting(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for part in super().render(renderable, options):
            # The console's own commands are marked as such.
            yield part if part.control else Segment(visible(part.text), part.style)


out = _Console(highlight=False)
notes = _Console(stderr=True, highlight=False)

#: Wider than any row.
UNBOUNDED = 100_000


def say(text: str, *, nl: bool = True) -> None:
    """Print a text on standard output: as it is to a pipe, with its control characters shown on a terminal."""
    # Python has no such stream if it is closed. With `color`, click cuts nothing out of the text.
    is_terminal = sys.stdout is not None and sys.stdout.isatty()
    click.echo(visible(text) if is_terminal else text, nl=nl, color=True)


def print_json(value: Any) -> None:
    """Print a result for a program, on standard output."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False).translate(_UNESCAPED))


def print_json_line(value: Any) -> None:
    """Print one of many results for a program: one JSON object a line."""
    click.echo(json.dumps(value, ensure_ascii=False).translate(_UNESCAPED))


def plain(value: Any) -> Any:
    """A value as JSON has it: times in ISO 8601, amounts as text."""
    match value:
        case datetime():
            return value.isoformat()
        case Decimal():
            return str(value)
        case Mapping():
            return {name: plain(each) for name, each in value.items()}
        case list():
            return [plain(each) for each in value]
        case _:
            return value


def table(*headings: str, numbers: Iterable[str] = ()) -> Table:
    """An empty table without lines. It must stay narrow: a pipe gets 80 characters a line.

    Args: numbers: the headings of further columns, which are aligned to the right and never cut.
    """
    rows = Table(*headings, box=None, header_style="bold", padding=(0, 1, 0, 0), pad_edge=False)
    for heading in numbers:
        rows.add_column(heading, justify="right", no_wrap=True)
    return rows


def note(text: str) -> None:
    """Print a text as it is, on standard error."""
    notes.print(text, markup=False, soft_wrap=True)


def note_more(limit: int) -> None:
    """Note that a list ends at its limit."""
    notes.print(f"There may be more: these are the newest {limit}, --limit N shows more.")


def print_uncut(console: Console, rows: Table) -> None:
    """Print a table whose cells people copy, such as URLs: none is cut or folded, whatever the console's width.

    A terminal continues a long row on its next line, and copies it as one.
    """
    for line in console.render_lines(rows, console.options.update(width=UNBOUNDED), pad=False):
        text = Text.assemble(*((each.text, each.style or "") for each in line))
        text.rstrip()
        console.print(text, soft_wrap=True)


#: How often it reads and draws.
WATCH_EVERY_S = 2.0

Shown = TypeVar("Shown")


def watch(read: Callable[[], Shown], draw: Callable[[Shown, str], RenderableType], lost: type[Exception]) -> Shown:
    """Read and draw until Ctrl-C or SIGTERM. While reading fails, the last screen stays.

    Args: draw: gets what was read, and why it is old. lost: what `read` raises while its server is away.
    Returns: what was read last. Raises: UsageError: the output is no terminal. `lost`: at the beginning.
    """
    if not out.is_terminal:
        raise click.UsageError("--watch needs a terminal: leave it out in a pipe.")
    stopped: list[int] = []

    def stop(number: int, _: object) -> None:
        """Note a signal. An exception amid a query might get lost, or leave the terminal as it is."""
        if stopped:
            raise KeyboardInterrupt
        stopped.append(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    found, trouble = read(), ""
    with Live(console=out, auto_refresh=False, screen=True, vertical_overflow="crop") as live:
        while not stopped:
            live.update(draw(found, trouble), refresh=True)
            _pause(stopped)
            try:
                found, trouble = (found if stopped else read()), ""
            except lost as error:
                trouble = f"NOT CURRENT: {error}"
    return found


def _pause(stopped: Sequence[int]) -> None:
    """Wait for the next drawing, or until a signal has come."""
    until = time.monotonic() + WATCH_EVERY_S
    while not stopped and time.monotonic() < until:
        time.sleep(0.1)
