"""How commands print: URLs whole, and a screen that is drawn again and again, through an outage and to Ctrl-C."""

import signal
from collections.abc import Iterator
from io import StringIO
from typing import Any

import click
import pytest
from rich.console import Console
from rich.text import Text

from headrace.cli import output as watching
from headrace.cli.output import print_uncut, table, watch


def test_columns_stand_side_by_side_without_lines_or_edges() -> None:
    rows, file = table("app"), StringIO()
    rows.add_column("jobs", justify="right")
    rows.add_row("shop", "7")
    Console(file=file, width=80).print(rows)

    assert [line.rstrip() for line in file.getvalue().splitlines()] == ["app  jobs", "shop    7"]


def test_a_cell_that_people_copy_is_neither_cut_nor_folded_on_a_narrow_screen() -> None:
    rows, file, url = table("app", "url"), StringIO(), "https://receiver.example/" + "x" * 300
    rows.add_row("shop", url)
    rows.add_row("search", "https://other.example/")
    print_uncut(Console(file=file, width=80), rows)

    assert file.getvalue().splitlines() == ["app    url", f"shop   {url}", "search https://other.example/"]


def test_a_watcher_keeps_the_last_screen_through_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    screen_file = StringIO()
    monkeypatch.setattr(watching, "out", Console(file=screen_file, width=80, height=40, force_terminal=True))
    handlers: dict[int, Any] = {}
    monkeypatch.setattr(watching.signal, "signal", handlers.__setitem__)
    drawn = []

    def pause(_: object) -> None:
        drawn.append(screen_file.getvalue())
        screen_file.truncate(0)
        screen_file.seek(0)
        if len(drawn) == 3:
            handlers[signal.SIGINT](signal.SIGINT, None)

    reads: Iterator[Any] = iter(["one", click.ClickException("No answer."), "two"])

    def read() -> str:
        if isinstance(found := next(reads), Exception):
            raise found
        return str(found)

    def draw(found: str, trouble: str) -> Text:
        return Text(f"{trouble} shows {found}")

    monkeypatch.setattr(watching, "_pause", pause)
    assert watch(read, draw, click.ClickException) == "two"
    assert ["NOT CURRENT: No answer." in each for each in drawn] == [False, True, False]
    assert ["shows one" in each for each in drawn] == [True, True, False]
    assert "shows two" in drawn[2]
    with pytest.raises(KeyboardInterrupt):
        handlers[signal.SIGINT](signal.SIGINT, None)


def test_a_watcher_whose_server_is_away_from_the_beginning_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "out", Console(file=StringIO(), force_terminal=True))
    monkeypatch.setattr(watching.signal, "signal", lambda *_: None)

    def read() -> None:
        raise click.ClickException("No answer.")

    with pytest.raises(click.ClickException, match="No answer"):
        watch(read, lambda found, trouble: Text(), click.ClickException)


def test_without_a_terminal_there_is_nothing_to_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "out", Console(file=StringIO(), force_terminal=False))
    with pytest.raises(click.UsageError, match="--watch needs a terminal"):
        watch(lambda: None, lambda found, trouble: Text(), ValueError)
