"""`headrace backtest`: reads a trace, runs the policies on it, and prints, draws and writes what they did."""

import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from headrace.cli.backtest.load import OfferedLoad, Sizes, offered_load
from headrace.cli.backtest.pilots import MECHANISMS
from headrace.cli.backtest.report import LEGEND, as_json, last_line, results_table
from headrace.cli.backtest.runs import POLICIES, CaseResult, PolicyCase, hosts_at_peak, max_hosts, run_all
from headrace.cli.backtest.synthetic import SYNTHETIC, synthetic
from headrace.cli.backtest.trace import RateTrace, RequestTrace, read_trace
from headrace.cli.backtest.world import World
from headrace.cli.output import notes, out
from headrace.cli.parameters import svg
from headrace.errors import ConfigError

_WORLD, _SIZES = World(), Sizes()


class _Number(click.FloatRange):
    """A number within bounds. `nan` is within any bounds, as click compares them."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number: float = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"'{value}' is not a number.", param, ctx)
        return number


_Above0, _From0 = _Number(0, 1e9, min_open=True), _Number(0, 1e9)


@click.command()
@click.argument("trace", required=False, type=click.Path(path_type=Path))
@click.option("--synthetic", "made", type=click.Choice(list(SYNTHETIC)), help="A made-up load in place of TRACE.")
@click.option("--peak-hosts", type=_Above0, metavar="N", help="Scale the load so that its peak saturates N hosts.")
@click.option("--policy", "policies", multiple=True, type=click.Choice(POLICIES), help="Repeatable. Default: all.")
@click.option("--off", multiple=True, type=click.Choice(MECHANISMS), help="Run predictive also without it. Repeatable.")
@click.option("--usd-per-hour", type=_From0, default=_WORLD.usd_per_hour, show_default=True, help="Of a host.")
@click.option(
    "--slots",
    type=click.IntRange(1, 10_000),
    default=_WORLD.slots,
    show_default=True,
    help="Requests at once on a host.",
)
@click.option(
    "--tokens-per-s",
    type=_Above0,
    default=_WORLD.tokens_per_s,
    show_default=True,
    help="Work of a saturated host: prompt tokens + 4 x output tokens.",
)
@click.option(
    "--provision-s", type=_From0, default=_WORLD.provision_s, show_default=True, help="From a host's order to ready."
)
@click.option(
    "--overflow-usd", type=_From0, default=_WORLD.overflow_usd, show_default=True, help="A request at the paid API."
)
@click.option(
    "--overflow-per-s", type=_From0, default=_WORLD.overflow_per_s, show_default=True, help="Requests the API takes."
)
@click.option(
    "--max-wait-s", type=_Above0, default=_WORLD.max_wait_s, show_default=True, help="Longest wait of a request."
)
@click.option("--min-hosts", type=click.IntRange(0, 10_000), default=_WORLD.min_hosts, show_default=True)
@click.option("--max-hosts", type=click.IntRange(1, 10_000), help="Default: 20, or 1.25 x the peak's if that is more.")
@click.option("--beta", type=_From0, default=_WORLD.beta, show_default=True, help="Safety margin: staffing_beta.")
@click.option(
    "--prompt-tokens", type=_Above0, default=_SIZES.prompt_tokens, show_default=True, help="Mean, of rate files."
)
@click.option(
    "--output-tokens", type=_From0, default=_SIZES.output_tokens, show_default=True, help="Mean, of rate files."
)
@click.option("--equal-sizes", is_flag=True, help="Requests of rate files are equal. Default: exponential sizes.")
@click.option("--starts-at", metavar="TIME", help="Date of second 0. Default: the trace's, or Monday 2026-01-05 UTC.")
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Of all that chance decides.")
@click.option(
    "--chart",
    type=click.Path(path_type=Path, dir_okay=False),
    callback=svg,
    metavar="FILE.svg",
    help="Draw the policies to this SVG.",
)
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write all figures to this file."
)
@click.option("--processes", type=click.IntRange(1, 64), help="Policies at once, for large loads. Default: 2 at most.")
def backtest(trace: Path | None, made: str | None, **options: Any) -> None:
    """Compare scaling policies on a load: waits, refusals, use of the hosts, and the bill.

    `predictive` and `reactive` are the product's own code (headrace.policies.scaling). `fixed` keeps the hosts that the
    peak needs. `oracle` knows the true rate of the coming --provision-s and keeps no margin: what a perfect forecast
    could save. All face the same requests.

    TRACE is a CSV file of requests with the columns time, prompt_tokens and output_tokens (dates or seconds; Azure's
    names TIMESTAMP, ContextTokens, GeneratedTokens count too), or a file of rates with the columns minute and requests
    (whole minutes from 0; a missing minute had none). The arrivals of a rate file are drawn by chance, and so are its
    sizes around --prompt-tokens and --output-tokens.

    --peak-hosts N multiplies the load: its highest mean over 10 minutes is then the work of N saturated hosts. A
    request file is thinned, or its requests are copied and the copies moved by up to 30 s.

    A host is billed from its order to the end of its draining. A request that would wait longer than --max-wait-s goes
    to the paid API while that takes more, or is refused (429). Figures cover the whole trace: on its first day,
    `predictive` knows no season yet. The last line has the figures of `predictive`.

    \b
    headrace backtest azure_2023_code.csv --peak-hosts 8 --chart azure.svg
    headrace backtest week.csv --peak-hosts 16 --prompt-tokens 900 --output-tokens 150
    headrace backtest --synthetic day --off season --off prices
    headrace backtest --synthetic day --overflow-usd 0.0003 --overflow-per-s 50
    """
    _check_numpy()
    name, load, world = _load_and_world(trace, made, options)
    terms = _terms(load, world, options)
    _show_terms(name, terms)
    results = _run(_cases(options), load, world, options["processes"])
    out.print(results_table(results))
    out.print(LEGEND, style="dim")
    _write(options, name, (load, world), terms, results)
    _echo_last_line(results)


def _check_numpy() -> None:
    """Raises: ConfigError: numpy is not installed."""
    try:
        import numpy
    except ImportError:
        message = "'headrace backtest' computes with numpy, which this environment lacks."
        raise ConfigError(f"{message} Run 'bin/headrace install --dev', or 'pip install numpy'.") from None
    assert numpy


def _echo_last_line(results: Sequence[CaseResult]) -> None:
    by_name = {result.case.name: result for result in results}
    if "predictive" in by_name:
        click.echo(last_line(by_name))


def _cases(options: dict[str, Any]) -> list[PolicyCase]:
    """The policies to run, then `predictive` without each mechanism that is switched off."""
    chosen = options["policies"] or POLICIES
    cases = [PolicyCase(policy) for policy in POLICIES if policy in chosen]
    return cases + [PolicyCase("predictive", mechanism) for mechanism in dict.fromkeys(options["off"])]


def _load_and_world(trace: Path | None, made: str | None, options: dict[str, Any]) -> tuple[str, OfferedLoad, World]:
    """The load, its name, and the world. Raises: ConfigError, UsageError."""
    if (trace is None) == (made is None):
        raise click.UsageError("Give a TRACE or --synthetic, and not both.")
    seed = options["seed"]
    read: RequestTrace | RateTrace = synthetic(made, seed) if made else read_trace(trace or Path())
    sizes = Sizes(options["prompt_tokens"], options["output_tokens"], not options["equal_sizes"])
    names = World.__dataclass_fields__.keys() & options.keys() - {"max_hosts"}
    world = World(**{name: options[name] for name in names})
    peak = options["peak_hosts"] and options["peak_hosts"] * world.tokens_per_s
    load = offered_load(read, sizes, seed, peak, _start(options["starts_at"]))
    world = replace(world, max_hosts=options["max_hosts"] or max_hosts(load, world))
    if world.max_hosts < world.min_hosts:
        raise ConfigError(f"--max-hosts {world.max_hosts} is below --min-hosts {world.min_hosts}.", param="max_hosts")
    return made or str(trace), load, world


def _start(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        message = f"--starts-at '{text[:40]}' is not a time. Write one like 2026-03-01T08:00."
        raise ConfigError(message, param="starts_at") from None
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


def _terms(load: OfferedLoad, world: World, options: dict[str, Any]) -> dict[str, Any]:
    """The options, defaults included, and what follows from them."""
    own = ("seed", "prompt_tokens", "output_tokens", "equal_sizes", "peak_hosts")
    return {
        **asdict(world),
        **{name: options[name] for name in own},
        "starts_at": load.start.isoformat(),
        "requests": len(load.times_s),
        "hours": load.seconds / 3600,
        "scale": load.scale,
        "peak_in_hosts": load.peak / world.tokens_per_s,
        "mean_in_hosts": float(load.demand.mean()) / world.tokens_per_s,
        "fixed_hosts": hosts_at_peak(load, world),
        "mean_service_s": float(load.work.mean()) / world.slot_tokens_per_s,
    }


def _show_terms(name: str, terms: dict[str, Any]) -> None:
    """The head: what was asked for, and on which terms."""
    scaled = "" if terms["peak_hosts"] is None else f", scaled by {terms['scale']:.3g}"
    out.print(
        f"[bold]{escape(name)}[/]: {terms['requests']:,} requests in {terms['hours']:.1f} h from {terms['starts_at']}"
        f"{scaled}. Demand in saturated hosts: mean {terms['mean_in_hosts']:.1f}, peak {terms['peak_in_hosts']:.1f}. "
        f"A request runs {terms['mean_service_s']:.1f} s."
    )
    shown = (*asdict(_WORLD), "fixed_hosts", "prompt_tokens", "output_tokens", "seed")
    out.print("  ".join(f"{name}={terms[name]:g}" for name in shown), style="dim")


def _run(cases: Sequence[PolicyCase], load: OfferedLoad, world: World, processes: int | None) -> list[CaseResult]:
    """Run the cases behind a progress bar on stderr."""
    columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn()
    with Progress(*columns, console=notes, transient=True) as progress:
        tasks = {case.name: progress.add_task(case.name, total=1.0) for case in cases}

        def tell(name: str, share: float) -> None:
            progress.update(tasks[name], completed=share)

        return run_all(cases, load, world, processes or min(2, os.cpu_count() or 1), tell)


def _write(
    options: dict[str, Any],
    name: str,
    given: tuple[OfferedLoad, World],
    terms: dict[str, Any],
    results: Sequence[CaseResult],
) -> None:
    """Write the chart and the JSON that were asked for. Raises: ConfigError: a file cannot be written."""
    from headrace.cli.backtest.chart import draw

    load, world = given
    try:
        if options["chart"]:
            drawn = draw(f"{Path(name).name}, {load.start:%Y-%m-%d}", load, world, results)
            options["chart"].write_text(drawn, encoding="utf-8")
            out.print(f"Chart: {escape(str(options['chart']))}")
        if options["json_file"]:
            options["json_file"].write_text(json.dumps(as_json(terms, results), indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{error.filename or 'The file'} cannot be written: {error.strerror or error}.") from None
