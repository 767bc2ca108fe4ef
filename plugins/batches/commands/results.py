"""Writes the results of a batch's lines, also while it runs. A download that breaks off goes on where it was."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import click
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from headrace.cli.client import Api, patiently
from headrace.cli.output import note, notes, out, print_json
from plugins.batches.commands.watching import ended_lines, error_of, line_of, result_of


@dataclass(slots=True)
class LineCounts:
    """Results so far. Attributes: last: the line of the last one. failed: without an answer. written: of all."""

    last: int = 0
    read: int = 0
    failed: int = 0
    written: int = 0


def write_results(api: Api, batch_id: str, path: Path | None, *, only_failed: bool, as_json: bool) -> None:
    """Write the results to a file, or print them. Raises: click.ClickException."""
    batch = api.call("GET", f"/v1/batches/{batch_id}")
    counts = LineCounts()
    # No bar is drawn among results that are printed.
    has_bar = notes.is_terminal and (path is not None or not out.is_terminal)
    with _writing(path) as file, _bar(ended_lines(batch), is_shown=has_bar) as (advance, tell):

        def copy() -> None:
            """Go on after the last line that was written."""
            for raw in api.lines(f"/v1/batches/{batch_id}/results", params={"after": counts.last}):
                result = result_of(raw)
                has_failed = error_of(result) is not None
                if has_failed or not only_failed:
                    file.write(raw)
                    counts.written += 1
                counts.last, counts.read, counts.failed = line_of(result), counts.read + 1, counts.failed + has_failed
                advance(counts.read)

        patiently(copy, tell)
    _report(batch, counts, path, as_json=as_json)


def _report(batch: dict[str, Any], counts: LineCounts, path: Path | None, *, as_json: bool) -> None:
    total = batch["request_counts"]["total"]
    if as_json and path is not None:
        about = {"batch": batch["id"], "status": batch["status"], "output": str(path), "lines": total}
        print_json({**about, "ended": counts.read, "failed": counts.failed, "written": counts.written})
    ended = f"{counts.read:,} of {total:,} lines have ended, {counts.failed:,} of them without an answer."
    where = "" if path is None else f" Written to {path}: {counts.written:,}."
    note(f"{batch['id']}  {batch['status']}  {ended}{where}")


@contextmanager
def _writing(path: Path | None) -> Iterator[IO[bytes]]:
    """The file, which keeps its old content until the new one is whole; None: standard output.

    Raises: click.ClickException: it cannot be written, as on a full disk.
    """
    try:
        if path is None:
            # Python has no such stream if it is closed, and click prints to none without a word.
            if sys.stdout is None:
                raise click.ClickException("Standard output is closed: open it, or name a file with --output.")
            yield sys.stdout.buffer
            sys.stdout.buffer.flush()
        elif path.exists() and not path.is_file():
            with path.open("wb") as file:
                yield file
        else:
            with _drafted(path.resolve()) as file:
                yield file
    except BrokenPipeError:  # The reader has seen enough. Click ends the command without a word.
        raise
    except OSError as error:
        raise click.ClickException(f"{path or 'Standard output'} cannot be written: {error.strerror}.") from error


@contextmanager
def _drafted(path: Path) -> Iterator[IO[bytes]]:
    draft = path.with_name(f"{path.name}.new")
    try:
        with draft.open("wb") as file:
            yield file
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


@contextmanager
def _bar(total: int, *, is_shown: bool) -> Iterator[tuple[Callable[[int], None], Callable[[str], None]]]:
    """A progress bar on standard error. Yields: draws how many results there are; shows a note."""
    columns = (BarColumn(24), MofNCompleteColumn(), TextColumn("{task.fields[note]}", style="yellow"))
    with Progress(*columns, console=notes, transient=True, disable=not is_shown) as progress:
        bar = progress.add_task("", total=total, note="")

        def tell(text: str) -> None:
            progress.update(bar, note=escape(text))
            if not notes.is_terminal:
                note(text)

        def advance(read: int) -> None:
            progress.update(bar, completed=read, note="")

        yield advance, tell
