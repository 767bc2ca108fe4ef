"""The registry of claims, `benchmarks/claims.toml`: each claim's script, its goals, and the code it measures. Pure."""

import operator
import re
import shlex
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from headrace.errors import ConfigError

#: From the root of a checkout.
REGISTRY = "benchmarks/claims.toml"

_GOAL = re.compile(r"(?P<name>\w+) (?P<sign><=|>=|=) (?P<limit>\d+(\.\d+)?)")
_SIGNS: Mapping[str, Callable[[float, float], bool]] = {"<=": operator.le, ">=": operator.ge, "=": operator.eq}
_NAME = re.compile("[a-z][a-z0-9_]*")
#: The keys of a claim in the registry, and their types.
_KEYS: Mapping[str, type] = {"claim": str, "run": str, "goals": list, "measures": list}


@dataclass(frozen=True, slots=True)
class Goal:
    """The limit of one figure of a claim, such as `ratio >= 1.5`."""

    name: str
    sign: str
    limit: float

    def __str__(self) -> str:
        return f"{self.name} {self.sign} {self.limit:g}"

    def is_met(self, figures: Mapping[str, Any]) -> bool:
        """True if the figure meets the limit. False if it is absent, or is not a number."""
        value = figures.get(self.name)
        return isinstance(value, int | float) and _SIGNS[self.sign](value, self.limit)


@dataclass(frozen=True, slots=True)
class BenchClaim:
    """A promise with the script that measures it.

    Attributes:
        sentence: the claim in words, for the page.
        script: its path from the checkout's root.
        arguments: the script's arguments.
        measures: paths from the checkout's root. A commit that changes one of them makes an earlier figure old.
    """

    name: str
    sentence: str
    script: str
    arguments: tuple[str, ...]
    goals: tuple[Goal, ...]
    measures: tuple[str, ...]

    @property
    def command(self) -> str:
        """The command line that runs the script by itself."""
        return f"bin/headrace python {self.run}"

    @property
    def run(self) -> str:
        """The script with its arguments, as a figure names it."""
        return shlex.join((self.script, *self.arguments))


def read_claims(text: str) -> dict[str, BenchClaim]:
    """Read the registry: each claim by its name, in the order of the file.

    Raises: ConfigError, which names the claim and the wrong key.
    """
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{REGISTRY} is not TOML: {error}.", param=REGISTRY) from error
    return {name: _claim(name, row) for name, row in tables.items()}


def _claim(name: str, row: Any) -> BenchClaim:
    if not _NAME.fullmatch(name) or not isinstance(row, dict):
        raise _fault(name, "each claim is a table whose name has lower-case letters, digits and underscores")
    for key, kind in _KEYS.items():
        if not isinstance(row.get(key), kind) or (kind is list and not all(isinstance(each, str) for each in row[key])):
            raise _fault(f"{name}.{key}", f"give a {'string' if kind is str else 'list of strings'}")
    if unknown := row.keys() - _KEYS.keys():
        raise _fault(f"{name}.{min(unknown)}", f"a claim has the keys {', '.join(_KEYS)} alone")
    words = shlex.split(row["run"])
    if not words or not row["measures"]:
        raise _fault(f"{name}.{'measures' if words else 'run'}", "it may not be empty")
    goals = tuple(_goal(name, text) for text in row["goals"])
    return BenchClaim(name, row["claim"], f"benchmarks/{words[0]}", tuple(words[1:]), goals, tuple(row["measures"]))


def _goal(name: str, text: str) -> Goal:
    match = _GOAL.fullmatch(text)
    if match is None:
        raise _fault(f"{name}.goals", f"'{text}' is not a goal such as 'ratio >= 1.5' (signs: {', '.join(_SIGNS)})")
    return Goal(match["name"], match["sign"], float(match["limit"]))


def _fault(key: str, remedy: str) -> ConfigError:
    return ConfigError(f"{REGISTRY}, {key}: {remedy}.", param=key)
