"""Reads the Procfile, the one place that defines how a process starts. Knows no process by name."""

import re
from pathlib import Path

from headrace.errors import StackError

_LINE = re.compile(r"(?P<name>[A-Za-z0-9_-]+):\s*(?P<line>\S.*)")


def read(path: Path) -> dict[str, str]:
    """The shell line of each process, in the file's order. Raises: StackError."""
    try:
        return parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StackError(f"{path} cannot be read: {error.strerror}.") from error


def parse(text: str) -> dict[str, str]:
    """The shell line of each process. Ignores blank lines and lines that start with `#`. Raises: StackError."""
    lines: dict[str, str] = {}
    for number, raw in enumerate(text.splitlines(), start=1):
        stripped = raw.strip()
        if not stripped or stripped.startswith("#"):
            continue
        found = _LINE.fullmatch(stripped)
        if found is None:
            raise StackError(f"Procfile, line {number}: expected `name: command`, got {stripped!r}.")
        if found["name"] in lines:
            raise StackError(f"Procfile, line {number}: there are two processes named {found['name']}.")
        lines[found["name"]] = found["line"]
    return lines


def shell(line: str) -> tuple[str, ...]:
    """The arguments that run a line through the shell. `exec` makes the shell become the process: one pid, not two."""
    return ("/bin/sh", "-c", f"exec {line}")
