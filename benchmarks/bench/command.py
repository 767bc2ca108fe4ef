"""`headrace bench`: chooses the claims to run, prints the results, and writes two files after each claim."""

import json
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import click
from rich.markup import escape
from rich.table import Table

from benchmarks.bench.claims import REGISTRY, BenchClaim, read_claims
from benchmarks.bench.figures import FIGURES, Figure, entry_of, read_figures, write_figures
from benchmarks.bench.page import PAGE, outcome, page
from benchmarks.bench.repository import Age, Repository, ages
from benchmarks.bench.run import measure
from headrace.cli.output import out, table
from headrace.config import PROJECT_ROOT
from headrace.errors import ConfigError


@click.command()
@click.argument("names", nargs=-1, metavar="[CLAIM]...")
@click.option("--all", "every", is_flag=True, help="Run every claim of the registry. Takes hours.")
@click.option("--stale", is_flag=True, help="Run the claims without a figure of the present state (see --list).")
@click.option("--list", "listed", is_flag=True, help="Run nothing; show each claim, its figure's commit and its age.")
@click.option("--page", "page_only", is_flag=True, help="Run nothing; make the page again, with its marks as of now.")
@click.option(
    "--limit",
    type=click.FloatRange(0, min_open=True),
    default=120,
    show_default=True,
    metavar="MINUTES",
    help="Stop a claim that runs longer, and record it as failed.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print what was recorded, or with --list the whole list, as JSON."
)
def bench(
    names: tuple[str, ...], every: bool, stale: bool, listed: bool, page_only: bool, limit: float, as_json: bool
) -> None:
    """Measure the project's claims, and record each figure with its commit.

    A claim is a script of benchmarks/ with its arguments and goals. benchmarks/claims.toml lists all claims. They run
    one after another, so that no run disturbs the next. Do not use the machine meanwhile. After each claim, the last
    line of its output goes into benchmarks/figures.json, with commit, date and machine, and docs/figures.md is made
    again: commit both. Commit your changes before you measure, or the figure is marked as one with uncommitted changes.

    A claim that fails is recorded with its status, and the others still run. Ctrl-C stops the running claim and keeps
    the recorded figures. The exit status is 1 when a claim failed or missed a goal.

    A figure is current; or older, if a later commit changed its script or the code that it measures; or unknown, if its
    commit is not in this history; or unrecorded, from before commits were recorded. Before you resolve an issue, run
    the claims that it affects again: --stale finds them from the commits.

    \b
    headrace bench --list
    headrace bench admission_race eta
    headrace bench --stale
    """
    if sum((bool(names), every, stale, listed, page_only)) != 1:
        raise click.UsageError("Give names of claims, --all, --stale, --list or --page: exactly one of these.")
    # SystemExit stops the running script; the bare signal would not.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    records = Records(PROJECT_ROOT)
    if listed:
        records.show(as_json)
        return
    chosen = list(records.claims) if every else records.stale() if stale else records.named(names)
    failed = [] if page_only else records.run(chosen, limit * 60, as_json)
    records.write_page()
    if page_only:
        out.print(f"{PAGE} is made.")
    elif not chosen:
        say("Nothing to run: every figure is of the present state.")
    elif failed:
        say(f"{len(failed)} of {len(chosen)} failed or missed a goal: {', '.join(failed)}.")
        sys.exit(1)


def say(line: str) -> None:
    """Print progress to standard error, beside the scripts' own."""
    click.echo(line, err=True)


class Records:
    """The registry, the figures and the page of one checkout."""

    def __init__(self, root: Path) -> None:
        """Read the registry. Raises: ConfigError: it is absent, as in an installation without a checkout."""
        self.repository = Repository(root)
        try:
            self.claims = read_claims((root / REGISTRY).read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"{REGISTRY} cannot be read: {error}. Run this in a checkout.", param=REGISTRY) from error

    @property
    def figures(self) -> dict[str, Figure]:
        """The file's present figures. Raises: ConfigError."""
        return read_figures(self.repository.root / FIGURES)

    def named(self, names: Sequence[str]) -> list[str]:
        """These claims, each once. Raises: ConfigError: one is not in the registry."""
        unknown = [name for name in names if name not in self.claims]
        if unknown:
            raise ConfigError(f"There is no claim '{unknown[0]}': the registry has {', '.join(self.claims)}.")
        return list(dict.fromkeys(names))

    def stale(self) -> list[str]:
        """The claims whose figure is absent or failed, or is not known to match the present code."""
        figures = self.figures
        found = ages(self.repository, self.claims, figures)
        return [
            name
            for name in self.claims
            if found.get(name) is not Age.CURRENT or figures[name].is_dirty or not figures[name].figures
        ]

    def run(self, names: Sequence[str], limit_s: float, as_json: bool) -> list[str]:
        """Run these claims, and record each as soon as it has ended. Returns: those that failed or missed a goal."""
        failed, recorded = [], {}
        for number, name in enumerate(names, 1):
            claim = self.claims[name]
            say(f"[{number}/{len(names)}] {name}: {claim.command}")
            figure = measure(self.repository, claim, limit_s, say)
            write_figures(self.repository.root / FIGURES, self.figures | {name: figure})
            self.write_page()
            recorded[name] = entry_of(figure)
            if figure.status or not all(goal.is_met(figure.figures) for goal in claim.goals):
                failed.append(name)
            if not as_json:
                click.echo(f"{name}: {outcome(claim, figure).replace('`', '').replace('**', '')}")
        if as_json:
            click.echo(json.dumps(recorded, indent=2, ensure_ascii=False))
        return failed

    def write_page(self) -> None:
        """Make the page from the recorded figures."""
        figures = self.figures
        text = page(self.claims, figures, ages(self.repository, self.claims, figures))
        (self.repository.root / PAGE).write_text(text, encoding="utf-8")

    def show(self, as_json: bool) -> None:
        """Print each claim with its figure's commit, date and age."""
        figures = self.figures
        found = ages(self.repository, self.claims, figures)
        if as_json:
            rows = {name: _entry(claim, figures.get(name), found.get(name)) for name, claim in self.claims.items()}
            click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        else:
            out.print(_table(self.claims, figures, found))


def _entry(claim: BenchClaim, figure: Figure | None, age: Age | None) -> dict[str, object]:
    return {
        "claim": claim.sentence,
        "command": claim.command,
        "goals": [str(goal) for goal in claim.goals],
        "measures": claim.measures,
        "age": age.value if age else None,
        "figure": entry_of(figure) if figure else None,
    }


def _table(claims: Mapping[str, BenchClaim], figures: Mapping[str, Figure], found: Mapping[str, Age]) -> Table:
    rows = table("claim", "commit", "date", "minutes", "figure")
    for name, claim in claims.items():
        figure = figures.get(name)
        if figure is None:
            rows.add_row(name, "", "", "", "none")
            continue
        minutes = "" if figure.seconds is None else f"{figure.seconds / 60:.1f}"
        rows.add_row(
            name,
            (figure.commit or "")[:10],
            (figure.date or "")[:10],
            minutes,
            escape(_state(claim, figure, found[name])),
        )
    return rows


def _state(claim: BenchClaim, figure: Figure, age: Age) -> str:
    words = [age.value]
    if figure.is_dirty:
        words.append("uncommitted changes")
    if figure.status and not figure.figures:
        words.append("failed")
    elif not figure.text and (figure.status or not all(goal.is_met(figure.figures) for goal in claim.goals)):
        words.append("missed")
    return ", ".join(words)
