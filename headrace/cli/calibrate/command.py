"""`headrace calibrate`: runs labelled examples on pools, and prints the cheapest rules within an error."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any, TextIO

import click
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from headrace.cli.api import Api
from headrace.cli.calibrate import report
from headrace.cli.calibrate.labels import Label, read_labels
from headrace.cli.calibrate.runs import Run, check_workers, errors_of, run_all
from headrace.cli.output import json_option, notes, print_json
from headrace.config import PoolSettings, Settings
from headrace.config.pools import DEFAULT_OWN_PRICE
from headrace.policies.routing.calibration import Part, calibrate, labels_needed, risk_of_one, totals

_SHARE = click.FloatRange(0, 1, min_open=True, max_open=True)


@click.command("calibrate")
@click.argument("file", type=click.File(encoding="utf-8"))
@click.option("--rule", metavar="NAME", help="The pools of this rule of headrace.toml, from the cheapest to the best.")
@click.option("--pool", "names", multiple=True, metavar="NAME", help="In place of --rule, a pool. Repeatable.")
@click.option(
    "--max-error", type=_SHARE, default=0.05, show_default=True, help="The share of answers that may be wrong."
)
@click.option("--confidence", type=_SHARE, default=0.95, show_default=True, help="That all bounds hold.")
@click.option("--at-once", type=click.IntRange(1, 256), default=8, show_default=True, help="Jobs under way at once.")
@json_option
def calibrate_(file: TextIO, rule: str | None, names: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Run labelled examples on pools, and print the cheapest rules for the model 'auto' within an error.

    FILE has one JSON object a line: 'prompt' or 'messages', 'answer', and if you like 'task', 'match' (exact, json or
    contains), 'max_tokens' and 'response_format'. FILE - reads standard input. A stack must run, with these pools in
    its headrace.toml. Each example is a job of its own on each pool, is charged, and stays in the ledger.

    \b
    headrace calibrate labels.jsonl --rule answers --max-error 0.02
    headrace calibrate labels.jsonl --pool fast --pool chat

    Rules go to standard output, to be pasted into headrace.toml, and everything else to standard error. A pool is
    within the error only if an upper bound of it is, so few labels prove little: docs/pools.md says more.
    """
    settings = Settings.load()
    pools = _pools(settings, rule, names)
    labels = read_labels(file, file.name)
    with closing(Api(settings)) as api:
        check_workers(api, pools, settings.scaling)
        runs = _runs(api, labels, pools, options["at_once"])
    max_error, confidence = options["max_error"], options["confidence"]
    parts = calibrate([run.trial for run in runs], list(pools), max_error, confidence)
    tasks = {each.task for each in labels}
    longest = {task: max(each.chars for each in labels if each.task == task) for task in tasks}
    toml = report.rules_toml(parts, longest, confidence)
    if as_json:
        print_json(report.as_json(parts, toml))
        return
    _tell(runs, parts)
    if any(not part.is_proven for part in parts):
        needed = labels_needed(max_error, risk_of_one(confidence, len(tasks), len(pools)))
        some = f"{max_error:.1%} takes at least {needed} labels, all answered right"
        notes.print(f"Unproven parts have too few labels or too many wrong answers: {some}.", markup=False)
    click.echo(toml, nl=False)


def _pools(settings: Settings, rule: str | None, names: Sequence[str]) -> Mapping[str, PoolSettings]:
    """The pools to try, in order. Raises: click.UsageError."""
    if (rule is None) == (not names):
        raise click.UsageError("Give --rule NAME, or --pool NAME at least twice.")
    if rule is not None:
        if rule not in settings.rules:
            known = ", ".join(settings.rules) or "none"
            raise click.UsageError(f"No rule '{rule}' in headrace.toml; its rules: {known}.")
        names = settings.rules[rule].pools
    names = list(dict.fromkeys(names))
    if wrong := [name for name in names if name not in settings.pools or settings.pools[name].is_embedding]:
        good = ", ".join(name for name, pool in settings.pools.items() if not pool.is_embedding)
        raise click.UsageError(f"No pool '{wrong[0]}' answers prompts; the pools that do: {good}.")
    if len(names) < 2:
        raise click.UsageError("One pool leaves nothing to choose: give at least two.")
    return {name: settings.pools[name] for name in names}


def _runs(api: Api, labels: Sequence[Label], pools: Mapping[str, PoolSettings], at_once: int) -> list[Run]:
    """Run them behind a progress bar on stderr."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=notes, transient=True) as progress:
        bars = {name: progress.add_task(escape(name), total=len(labels)) for name in pools}
        return run_all(api, labels, pools, at_once, lambda name: progress.advance(bars[name]))


def _tell(runs: Sequence[Run], parts: Sequence[Part]) -> None:
    """Print the table, and what to know of it, on standard error."""
    notes.print(report.cells_table(parts))
    for pool, count, error in errors_of(runs):
        notes.print(f"{count} jobs of pool '{pool}' have no answer, and count as wrong: {error}", markup=False)
    if any(run.price_version == DEFAULT_OWN_PRICE.version for run in runs):
        notes.print("Own pools have only a placeholder price: see [hosts.TYPE] in docs/settings.md.", markup=False)
    cost = dict(totals(parts))
    rules = cost.pop("rules")
    alone = ", ".join(f"{pool} alone {usd:.6f}" for pool, usd in cost.items())
    notes.print(f"These {len(runs) // len(cost)} examples cost {rules:.6f} USD by the rules; {alone}.", markup=False)
