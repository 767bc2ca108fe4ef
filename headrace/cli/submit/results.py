"""The results of a file of prompts: one JSON object a line, and the memory of what is done."""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, Protocol

import click

from headrace.cli.client import print_json_line
from headrace.cli.submit.lines import Line
from headrace.domain.states import JobState

#: The status of a line that the API, or this command, refused: there is no job.
REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one line.

    Attributes:
        job: as the API shows it once it has ended; None without a job.
        error: why there is no answer, as `code` and `message`; None with one.
    """

    line: Line
    job: dict[str, Any] | None
    error: dict[str, Any] | None

    @property
    def is_answered(self) -> bool:
        """Whether the line has an answer."""
        return self.error is None

    def record(self, tries: int) -> dict[str, Any]:
        """The job with the number of its line. Args: tries: of this line, this one included."""
        job = self.job or {"id": None, "status": REFUSED, "text": None}
        about = {"line": self.line.number, "tries": tries, "line_digest": self.line.digest}
        return {**about, **job, "error": self.error}


@dataclass(frozen=True, slots=True)
class Past:
    """The last result of a line. Attributes: digest: of the line that it belongs to."""

    digest: str
    tries: int
    is_answered: bool


class Results(Protocol):
    """Where results go."""

    @property
    def past(self) -> Mapping[int, Past]:
        """The last result of each line, by its number."""

    def add(self, outcome: Outcome) -> None:
        """Keep a result."""


class PrintedResults:
    """Prints results and remembers none."""

    past: Mapping[int, Past] = MappingProxyType({})

    def add(self, outcome: Outcome) -> None:
        """Print a result."""
        print_json_line(outcome.record(1))


class FileResults:
    """Appends results to a file, each by one write, so that a process that dies leaves whole lines.

    A line that is tried again gets another result. `results_file` removes its earlier ones at the end.
    """

    def __init__(self, file: IO[bytes], past: dict[int, Past]) -> None:
        self._file, self.past = file, past
        self.has_outdated = False

    def add(self, outcome: Outcome) -> None:
        """Append a result."""
        before = self.past.get(outcome.line.number)
        tries = 1 if before is None else before.tries + 1
        self._file.write(json.dumps(outcome.record(tries), ensure_ascii=False).encode() + b"\n")
        self.past[outcome.line.number] = Past(outcome.line.digest, tries, outcome.is_answered)
        self.has_outdated |= before is not None


@contextmanager
def results_file(path: Path) -> Iterator[FileResults]:
    """The results in a file, which is made if it does not exist, and is locked meanwhile.

    Raises: click.ClickException: another process writes to it, it has other content, or it cannot be written.
    """
    try:
        file = path.open("a+b", buffering=0)
    except OSError as error:
        raise click.ClickException(f"{path} cannot be written: {error.strerror}.") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.stat().st_ino != os.fstat(file.fileno()).st_ino:
                raise OSError
        except OSError:
            raise click.ClickException(f"Another 'headrace submit' writes to {path}: wait for its end.") from None
        results = FileResults(file, _past(file, path))
        try:
            yield results
        finally:
            if results.has_outdated:
                _drop_outdated(path)


def _past(file: IO[bytes], path: Path) -> dict[int, Past]:
    """Read the results of earlier runs. A last line that a process did not finish is removed."""
    past: dict[int, Past] = {}
    file.seek(0)
    whole, raw = 0, b""
    with os.fdopen(os.dup(file.fileno()), "rb") as reader:
        for number, raw in enumerate(reader, start=1):
            record = _record(raw)
            if record is None and not raw.endswith(b"\n"):
                break
            if record is None:
                raise click.ClickException(
                    f"{path}, line {number}, is no result of 'headrace submit': name another file with --output."
                )
            whole += len(raw)
            past[record["line"]] = Past(record["line_digest"], record["tries"], record["status"] == JobState.SUCCEEDED)
    file.truncate(whole)
    if whole and not raw.endswith(b"\n") and _record(raw) is not None:
        file.write(b"\n")
    return past


def _record(raw: bytes) -> dict[str, Any] | None:
    """A line of the file; None if it is not a result."""
    try:
        record = json.loads(raw)
    except ValueError:
        return None
    match record:
        case {"line": int(), "tries": int(), "line_digest": str(), "status": str()}:
            found: dict[str, Any] = record
            return found
    return None


def _drop_outdated(path: Path) -> None:
    """Keep only the last result of each line. A process that dies meanwhile leaves the file as it was."""
    last: dict[int, int] = {}
    draft = path.with_name(f"{path.name}.new")
    with path.open("rb") as file, draft.open("wb") as kept:
        for place, raw in enumerate(file):
            last[json.loads(raw)["line"]] = place
        file.seek(0)
        kept.writelines(raw for place, raw in enumerate(file) if last[json.loads(raw)["line"]] == place)
    os.replace(draft, path)
