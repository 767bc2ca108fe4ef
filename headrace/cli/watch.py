"""A screen that is drawn again and again, until Ctrl-C."""

import signal
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import click
from rich.console import RenderableType
from rich.live import Live

from headrace.cli.output import out

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
