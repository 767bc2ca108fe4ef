"""The page of figures, `docs/figures.md`, made from the registry and the figures. Returns text; writes no file."""

import re
from collections import Counter
from collections.abc import Mapping

from benchmarks.bench.claims import BenchClaim
from benchmarks.bench.figures import Figure
from benchmarks.bench.repository import Age

#: From the root of a checkout.
PAGE = "docs/figures.md"

_MARKS = {
    Age.OLDER: "; **old**",
    Age.UNKNOWN: "; not in the history",
}
#: In the name of a figure of a counter-proof.
_OFF = re.compile("_off|_without_")
_HEAD = """\
# Figures

`bin/headrace bench` makes this page from `benchmarks/claims.toml` and `benchmarks/figures.json`; do not edit it. Each
figure comes from a script that measures it beside a peer in the same run; ratios are medians of the rounds' ratios. Run
a command by `bin/headrace python`, after `bin/headrace install --dev`; it ends with status 1 where a goal is missed.
The page has the figures of goals and of counter-proofs (`_off`); `figures.json` has all.

A figure names the commit that was checked out when it was measured. **old** means that what the figure measures has
changed since; "not in the history" means that the commit cannot be compared. Both are as of the page's own commit, and
`bin/headrace bench --list` shows them as of now. `bin/headrace bench NAME` measures a claim again, `bin/headrace bench
--stale` each claim whose figure may be old.
"""
_COLUMNS = """
| claim | command | goal | figure | commit | date |
|---|---|---|---|---|---|
"""


def page(claims: Mapping[str, BenchClaim], figures: Mapping[str, Figure], ages: Mapping[str, Age]) -> str:
    """The whole page: a row for each claim, in the registry's order. A claim without an entry in `ages` has no mark."""
    machines = Counter(str(figure.machine) for figure in figures.values() if figure.machine)
    usual = machines.most_common(1)[0][0] if machines else ""
    said = f"\nThe machine has {usual}, unless a row names another one.\n" if usual else ""
    rows = (_row(claim, figures.get(name), ages.get(name), usual) for name, claim in claims.items())
    return _HEAD + said + _COLUMNS + "".join(rows)


def without_marks(text: str) -> str:
    """The page without its marks. Later commits change only the marks."""
    for mark in _MARKS.values():
        text = text.replace(mark, "")
    return text


def _row(claim: BenchClaim, figure: Figure | None, age: Age | None, usual: str) -> str:
    goals = "<br>".join(f"`{goal}`" for goal in claim.goals)
    measured = ("not measured yet", "", "") if figure is None else _measured(claim, figure, age, usual)
    # `bench NAME` needs the name, and the command does not show it if two claims share a script.
    cells = (
        f"`{claim.name}`: {claim.sentence}",
        f"`{claim.command.removeprefix('bin/headrace python ')}`",
        goals,
        *measured,
    )
    return "| " + " | ".join(cell.replace("\n", " ").replace("|", "\\|") for cell in cells) + " |\n"


def _measured(claim: BenchClaim, figure: Figure, age: Age | None, usual: str) -> tuple[str, str, str]:
    """The cells of figure, commit, and date with a machine other than the usual one."""
    if figure.text:
        return figure.text, "unrecorded", ""
    commit = f"`{figure.commit[:10]}`" if figure.commit else "unknown"
    if figure.is_dirty:
        commit += " with changes that no commit has"
    if age in _MARKS:
        commit += _MARKS[age]
    machine = f"; {figure.machine}" if figure.machine and str(figure.machine) != usual else ""
    return outcome(claim, figure, is_short=True), commit, (figure.date or "")[:10] + machine


def outcome(claim: BenchClaim, figure: Figure, *, is_short: bool = False) -> str:
    """The figures that the script printed, with any failure or missed goal.

    Args: is_short: of a claim with goals, only the figures of these, and those of runs with something switched off.
    """
    if not figure.figures:
        return figure.text or f"**failed** with status {figure.status}, and printed no figures"
    goals = {goal.name for goal in claim.goals}
    shown = {
        name: value
        for name, value in figure.figures.items()
        if not is_short or not goals or name in goals or _OFF.search(name)
    }
    said = "`" + " ".join(f"{name}={value}" for name, value in shown.items()) + "`"
    missed = [str(goal) for goal in claim.goals if not goal.is_met(figure.figures)]
    if missed:
        return f"**missed:** {', '.join(missed)}. {said}"
    return said if figure.status == 0 else f"**ended with status {figure.status}.** {said}"
