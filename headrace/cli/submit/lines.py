"""The lines of a file of prompts. Each is the body of `POST /v1/jobs`, or a text that is its prompt."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: What a line may look like, for messages.
EXAMPLE = '{"prompt": "Hi"} or "Hi"'
#: Hexadecimal digits of a line's digest.
DIGEST_CHARS = 16


@dataclass(frozen=True, slots=True)
class Line:
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


def read_lines(path: Path) -> Iterator[Line]:
    """The lines of a file that are not blank. Reads one at a time, so that a file may be of any length."""
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            text = raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw
            if text.strip():
                yield _line(number, text)


def _line(number: int, raw: bytes) -> Line:
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
    return Line(number, _digest(canonical), body)


def _unreadable(number: int, raw: bytes, problem: str) -> Line:
    return Line(number, _digest(raw), None, problem)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:DIGEST_CHARS]
