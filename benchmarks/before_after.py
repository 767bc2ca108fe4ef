"""The code as it is beside that of an earlier commit: what a submit, a drain and a first token cost, in one sitting.

The claim: features that are switched off cost those nothing that do not use them. Each side runs its own scripts of
this folder, in turn, in the same environment; only the code differs.
"""

import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from bed.commits import tree_of
from bed.testbed import console, line_of, rounds
from headrace.config import PROJECT_ROOT, Settings

#: The least of the ratios of rates, and the most of that of first tokens.
LEAST, MOST = 0.95, 1.05
SIDES = ("before", "after")
#: Below it, and in this folder of the present checkout, are the demo's weights for both sides.
STATE = Settings.load().state_dir
LIMIT_S = 1800
#: The counter-proof: an answer is searched for every submit, and none is there.
SWITCHED_ON = {
    "HEADRACE_POOLS__CHAT__CACHE_S": "3600",
    "HEADRACE_POOLS__CHAT__CACHE_SAMPLED": "true",
}
PAIR = re.compile(r"(\w+)=(\S+)")

#: The last line of a script, by name.
Line = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of a script's last line, and that of its peer in the same run.

    Their quotient is compared, because a machine that is slower for a while is so for both.
    """

    name: str
    peer: str

    def of(self, line: Line) -> float:
        """How many times the peer's it is."""
        return line[self.name] / line[self.peer]


@dataclass(frozen=True, slots=True)
class Script:
    """What one run measures. Attributes: short: its arguments in a trial run."""

    arguments: tuple[str, ...]
    short: tuple[str, ...]
    figures: Mapping[str, Figure]


SCRIPTS: Mapping[str, Script] = {
    "submit": Script(
        ("submit.py", "--rounds", "3"),
        ("submit.py", "--rounds", "1", "--seconds", "1"),
        {"door": Figure("headrace_per_s", "bare_per_s"), "refusal": Figure("refused_per_s", "hello_per_s")},
    ),
    "drain": Script(
        ("drain.py", "--processes", "1", "--rounds", "3"),
        ("drain.py", "--processes", "1", "--rounds", "1", "--jobs", "300"),
        {"drain": Figure("jobs_per_s", "celery_per_s")},
    ),
    "first_token": Script(
        ("added_latency.py", "--prompts", "40"),
        ("added_latency.py", "--prompts", "4"),
        {"first_token": Figure("queue_p50_ms", "direct_p50_ms")},
    ),
}


class Checkout:
    """The code of one side. Raises: ClickException: another checkout's modules would run."""

    def __init__(self, root: Path) -> None:
        self._root = root
        # Before the environment's own finder, which knows the present checkout alone.
        inherited = dict(os.environ)  # noqa: TID251 - it is handed on whole; nothing is read from it here.
        self._env = {**inherited, "PYTHONPATH": str(root), "HEADRACE_STATE": str(STATE)}
        look = [sys.executable, "-c", "import headrace; print(headrace.__file__)"]
        found = subprocess.run(look, cwd=root, env=self._env, capture_output=True, text=True, check=True).stdout
        if not Path(found.strip()).is_relative_to(root):
            raise click.ClickException(f"{root} would run {found.strip()}.")

    def run(self, arguments: Sequence[str], env: Mapping[str, str]) -> Line:
        """The last line of a script. Raises: ClickException: it prints none."""
        script, *others = arguments
        command = [sys.executable, str(self._root / "benchmarks" / script), *others]
        # A goal that is missed is no error here: what counts is the other side.
        done = subprocess.run(
            command,
            cwd=self._root,
            env={**self._env, **env},
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        lines = done.stdout.splitlines()
        found = {name: float(value) for name, value in PAIR.findall(lines[-1])} if lines else {}
        if not found:
            raise click.ClickException(f"{script} printed no figures:\n{done.stderr[-2000:]}")
        return found


def measure(
    checkouts: Mapping[str, Checkout], names: Sequence[str], number: int, *, is_short: bool
) -> dict[str, dict[str, list[Line]]]:
    """The last lines, by script and side: whichever side began a round is last in the next."""
    found: dict[str, dict[str, list[Line]]] = {name: {side: [] for side in SIDES} for name in names}
    for no in rounds(number, lambda no: f"round {no} of {number}"):
        for name in names:
            script = SCRIPTS[name]
            for side in SIDES if no % 2 else reversed(SIDES):
                began = time.monotonic()
                line = checkouts[side].run(script.short if is_short else script.arguments, {})
                found[name][side].append(line)
                told = ", ".join(f"{each} {figure.of(line):.3f} of its peer" for each, figure in script.figures.items())
                console.print(f"{side}: {told} ({time.monotonic() - began:.0f} s)", style="dim")
    return found


def ratios(found: Mapping[str, Mapping[str, Sequence[Line]]]) -> dict[str, float]:
    """By figure, the median of the rounds' ratios: after over before."""
    return {
        f"{each}_ratio": statistics.median(
            figure.of(after) / figure.of(before) for before, after in zip(sides["before"], sides["after"], strict=True)
        )
        for name, sides in found.items()
        for each, figure in SCRIPTS[name].figures.items()
    }


def show(found: Mapping[str, Mapping[str, Sequence[Line]]]) -> None:
    """The figures as they are, medians of the rounds."""
    table = Table("medians of the rounds", *SIDES, header_style="bold")
    for name, sides in found.items():
        for figure in SCRIPTS[name].figures.values():
            for which in (figure.name, figure.peer):
                values = (statistics.median(line[which] for line in sides[side]) for side in SIDES)
                table.add_row(f"{name}: {which}", *(f"{value:.4g}" for value in values))
    console.print(table)


def is_met(figures: Mapping[str, float]) -> bool:
    """Whether nothing became slower by more than a twentieth."""
    rates = [value for name, value in figures.items() if name in ("door_ratio", "refusal_ratio", "drain_ratio")]
    return all(value >= LEAST for value in rates) and figures.get("first_token_ratio", 0) <= MOST


@click.command()
@click.option("--before", required=True, metavar="COMMIT", help="The earlier code.")
@click.option("--rounds", "number", type=click.IntRange(min=1), default=3, show_default=True, help="The median counts.")
@click.option("--only", "names", type=click.Choice(list(SCRIPTS)), multiple=True, help="Only this script. Repeatable.")
@click.option("--short", is_flag=True, help="A trial run of a minute or two for each script; its ratios mean little.")
@click.option(
    "--off",
    type=click.Choice(["default"]),
    help="Then the later code with the cache on for each submit.",
)
@click.option(
    "--json", "file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write all lines."
)
def main(before: str, number: int, names: tuple[str, ...], short: bool, off: str | None, file: Path | None) -> None:
    """Run submit.py, drain.py and added_latency.py of this checkout and of an earlier commit's, in turn.

    Puts the files of that commit into a temporary folder. Both sides run in this environment, with its libraries; each
    script starts a stack of its own side. In each round each script runs on both sides, and the side that began is last
    in the next. Each script has a peer in the same run: a bare Flask route, Celery's own workers, vLLM's own server.
    What is compared is the figure over its peer's.

    The last line is name=value pairs, medians of the rounds' ratios, after over before: door_ratio, submits a second;
    refusal_ratio, refusals a second; drain_ratio, jobs a second; first_token_ratio, the time to the first token. With
    --off default also door_ratio_off, where the later code looks each submit up. The status is 1 when one of the first
    three is below 0.95, or the time to the first token above 1.05.

    \b
    bin/headrace python benchmarks/before_after.py --before COMMIT
    bin/headrace python benchmarks/before_after.py --before COMMIT --short --rounds 1 --only submit
    """
    chosen = names or tuple(SCRIPTS)
    with tree_of(before) as root:
        checkouts = {"before": Checkout(root), "after": Checkout(PROJECT_ROOT)}
        found = measure(checkouts, chosen, number, is_short=short)
        figures: dict[str, Any] = ratios(found)
        if off:
            console.print("the later code, with the cache on", style="dim")
            script = SCRIPTS["submit"]
            line = checkouts["after"].run(script.short if short else script.arguments, SWITCHED_ON)
            door = script.figures["door"]
            base = statistics.median(door.of(each) for each in found["submit"]["before"]) if "submit" in found else 1.0
            figures["door_ratio_off"] = door.of(line) / base
    show(found)
    if file is not None:
        file.write_text(json.dumps({"before": before, "figures": figures, "lines": found}, indent=2) + "\n")
    print(line_of(figures))
    sys.exit(0 if short or is_met(figures) else 1)


if __name__ == "__main__":
    main()
