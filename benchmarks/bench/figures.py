"""The figures of the claims' last runs: one entry per claim in `benchmarks/figures.json`."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from headrace.errors import ConfigError

#: From the root of a checkout.
FIGURES = "benchmarks/figures.json"


@dataclass(frozen=True, slots=True)
class BenchMachine:
    """The machine that measured a figure."""

    cpu: str
    cores: int
    memory_gib: int

    def __str__(self) -> str:
        return f"{self.cores} cores, {self.memory_gib} GiB, {self.cpu}"


@dataclass(frozen=True, slots=True)
class Figure:
    """One claim's last run.

    Attributes:
        command: the command that ran.
        commit: the commit that was checked out when the run began. None for a figure from before commits were recorded,
            or for code without its history.
        is_dirty: the tree had uncommitted changes.
        date: UTC, ISO 8601.
        status: the script's exit status; negative for a signal.
        figures: the `name=value` pairs of the last line; empty if the script failed before it printed them.
        text: stands in place of the pairs, if a person wrote the figure down before commits were recorded.
    """

    command: str
    commit: str | None = None
    is_dirty: bool = False
    date: str | None = None
    machine: BenchMachine | None = None
    status: int = 0
    seconds: float | None = None
    figures: Mapping[str, Any] = field(default_factory=dict)
    text: str = ""


def pairs_of(output: str) -> dict[str, Any]:
    """Read the last line of a script's output. Empty unless the line consists only of `name=value` pairs."""
    lines = output.strip().splitlines()
    words = [word.partition("=") for word in lines[-1].split()] if lines else []
    if not all(name.isidentifier() and sign and value for name, sign, value in words):
        return {}
    return {name: _value(value) for name, _, value in words}


def _value(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def read_figures(path: Path) -> dict[str, Figure]:
    """Read the file. Empty if it does not exist yet. Raises: ConfigError."""
    if not path.exists():
        return {}
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        return {name: _figure(entry) for name, entry in entries.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        message = f"{path.name} cannot be read: {error}. Take it as it was committed: git checkout {FIGURES}"
        raise ConfigError(message, param=FIGURES) from error


def _figure(entry: Mapping[str, Any]) -> Figure:
    machine = entry.get("machine")
    return Figure(**{**entry, "machine": None if machine is None else BenchMachine(**machine)})


def write_figures(path: Path, figures: Mapping[str, Figure]) -> None:
    """Replace the whole file, so that an interruption leaves the previous one."""
    text = json.dumps({name: entry_of(figures[name]) for name in sorted(figures)}, indent=2, ensure_ascii=False)
    new = path.with_suffix(".new")
    new.write_text(text + "\n", encoding="utf-8")
    os.replace(new, path)


def entry_of(figure: Figure) -> dict[str, Any]:
    """The figure's entry in the file, without values at their defaults."""
    whole = asdict(figure)
    required = ("command", "status") if figure.date else ("command",)
    bare = asdict(Figure(command=""))
    return {name: value for name, value in whole.items() if name in required or value != bare[name]}
