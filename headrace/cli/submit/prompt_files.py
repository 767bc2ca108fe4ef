"""A file of prompts and the file of its results: one JSON object a line each."""

import fcntl
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, Protocol

import click

from headrace.cli.output import print_json_line
from headrace.domain.states import JobState

#: What a line may look like, for messages.
EXAMPLE = '{"prompt": "Hi"} or "Hi"'
#: Hexadecimal digits of a line's digest.
DIGEST_CHARS = 16


@dataclass(frozen=True, slots=True)
class PromptLine:
    """One line of the file.

    Attributes:
        number: from 1, blank lines included.
        digest: of what the line says, however it is written. A line that cannot be read has one too.
        body: of `POST /v1/jobs`; None if the line cannot be read.
        problem: why it cannot be read; None if it can.
    """

    number: int
    digest: str
    body: dict[str, Any] | None
    problem: str | None = None


def read_lines(path: Path) -> Iterator[PromptLine]:
    """The lines of a file that are not blank. Reads one at a time, so that a file may be of any length."""
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            text = raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw
            if text.strip():
                yield _line(number, text)


def _line(number: int, raw: bytes) -> PromptLine:
    try:
        value = json.loads(raw.decode().rstrip())
        # Without what could not be sent: NaN, and halves of characters.
        canonical = json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeDecodeError as error:
        return _unreadable(number, raw, f"It is not UTF-8 text: byte {error.start} is not.")
    except json.JSONDecodeError as error:
        what = f"It is not JSON: {error.msg} at character {error.colno}."
        return _unreadable(number, raw, f"{what} Give one JSON value a line, such as {EXAMPLE}.")
    except (ValueError, RecursionError) as error:
        return _unreadable(number, raw, f"It cannot be sent as JSON: {error}.")
    body = {"prompt": value} if isinstance(value, str) else value
    if not isinstance(body, dict):
        return _unreadable(number, raw, f"It is neither a JSON object nor a text: give {EXAMPLE}.")
    return PromptLine(number, _digest(canonical), body)


def _unreadable(number: int, raw: bytes, problem: str) -> PromptLine:
    return PromptLine(number, _digest(raw), None, problem)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:DIGEST_CHARS]


#: The status of a line that the API, or this command, refused: there is no job.
REFUSED = "refused"
#: What each result begins with: `PromptOutcome.record` has the line first.
BEGINNING = b'{"line": '


@dataclass(frozen=True, slots=True)
class PromptOutcome:
    """What became of one line.

    Attributes:
        job: as the API shows it once it has ended; None without a job.
        error: why there is no answer, as `code` and `message`; None with one.
    """

    line: PromptLine
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

    def add(self, outcome: PromptOutcome) -> None:
        """Keep a result."""


class PrintedResults:
    """Prints results and remembers none."""

    past: Mapping[int, Past] = MappingProxyType({})

    def __init__(self) -> None:
        """Raises: click.ClickException: standard output is closed."""
        # Python has no such stream then, and click prints to none without a word.
        if sys.stdout is None:
            raise click.ClickException("Standard output is closed: open it, or name a file with --output.")

    def add(self, outcome: PromptOutcome) -> None:
        """Print a result. Raises: click.ClickException: there is no room for it, as on a full disk."""
        try:
            print_json_line(outcome.record(1))
        except BrokenPipeError:  # The reader has seen enough. Click ends the command without a word.
            raise
        except OSError as error:
            raise click.ClickException(f"The results cannot be printed: {error.strerror}.") from error


class FileResults:
    """Appends results to a file, each by one write, so that a process that dies leaves whole lines.

    A line that is tried again gets another result. `results_file` removes its earlier ones at the end.
    """

    def __init__(self, file: IO[bytes], path: Path) -> None:
        """Read what earlier runs did. Raises: click.ClickException: the file has other content."""
        self._file, self._path = file, path
        self.has_outdated = False
        self.past: dict[int, Past] = {}
        self._read()

    def add(self, outcome: PromptOutcome) -> None:
        """Append a result. Raises: click.ClickException: the file cannot be written."""
        before = self.past.get(outcome.line.number)
        tries = 1 if before is None else before.tries + 1
        rest = json.dumps(outcome.record(tries), ensure_ascii=False).encode() + b"\n"
        try:
            # A disk that is nearly full takes only a part.
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise _unwritable(self._path, error) from error
        self._note(outcome.line.number, Past(outcome.line.digest, tries, outcome.is_answered))

    def _note(self, number: int, past: Past) -> None:
        self.has_outdated |= number in self.past
        self.past[number] = past

    def _read(self) -> None:
        """Read the results of earlier runs. A last line that a process did not finish is removed."""
        self._file.seek(0)
        whole, raw = 0, b""
        with os.fdopen(os.dup(self._file.fileno()), "rb") as reader:
            for number, raw in enumerate(reader, start=1):
                record = _record(raw)
                if record is None and _is_torn(raw):
                    break
                if record is None:
                    raise click.ClickException(
                        f"{self._path}, line {number}, is no result of 'headrace submit': name another file with "
                        "--output."
                    )
                whole += len(raw)
                succeeded = record["status"] == JobState.SUCCEEDED
                self._note(record["line"], Past(record["line_digest"], record["tries"], succeeded))
        self._file.truncate(whole)
        if whole and not raw.endswith(b"\n") and _record(raw) is not None:
            self._file.write(b"\n")


@contextmanager
def results_file(path: Path) -> Iterator[FileResults]:
    """The results in a file, which is made if it does not exist, and is locked meanwhile.

    Raises: click.ClickException: another process writes to it, it has other content, or it cannot be written.
    """
    # The file that a link leads to: a link would be replaced by another file at the end.
    path = path.resolve()
    if path.exists() and not path.is_file():
        raise click.ClickException(f"{path} is no file: name one, or leave --output out to print the results.")
    try:
        file = path.open("a+b", buffering=0)
    except OSError as error:
        raise _unwritable(path, error) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.stat().st_ino != os.fstat(file.fileno()).st_ino:
                raise OSError
        except OSError:
            raise click.ClickException(f"Another 'headrace submit' writes to {path}: wait for its end.") from None
        results = FileResults(file, path)
        try:
            yield results
        finally:
            if results.has_outdated:
                _drop_outdated(path)


def _unwritable(path: Path, error: OSError) -> click.ClickException:
    return click.ClickException(f"{path} cannot be written: {error.strerror}.")


def _read(raw: bytes) -> Any:
    """A line's JSON; None if it is none."""
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None


def _record(raw: bytes) -> dict[str, Any] | None:
    """A line of the file; None if it is not a result."""
    match record := _read(raw):
        case {"line": int(), "tries": int(), "line_digest": str(), "status": str()}:
            found: dict[str, Any] = record
            return found
    return None


def _is_torn(raw: bytes) -> bool:
    """Whether this is the beginning of a result. Any other last line is someone's text, and must not be removed.

    After a loss of power, a file system may leave zeros in place of the rest.
    """
    begun = raw.rstrip(b"\0")
    begins_so = begun.startswith(BEGINNING) or BEGINNING.startswith(begun)
    return begins_so and not raw.endswith(b"\n") and _read(begun) is None


def _drop_outdated(path: Path) -> None:
    """Keep only the last result of each line. A process that dies meanwhile leaves the file as it was.

    Raises: click.ClickException: the disk is full. The file is as it was.
    """
    last: dict[int, int] = {}
    draft = path.with_name(f"{path.name}.new")
    try:
        with path.open("rb") as file, draft.open("wb") as kept:
            shutil.copymode(path, draft)
            for place, raw in enumerate(file):
                if (record := _record(raw)) is not None:
                    last[record["line"]] = place
            file.seek(0)
            places = frozenset(last.values())
            kept.writelines(raw for place, raw in enumerate(file) if place in places)
        os.replace(draft, path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise _unwritable(path, error) from error
