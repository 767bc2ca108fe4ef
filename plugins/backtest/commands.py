"""`headrace backtest`: reads a trace, runs the policies on it, and prints, draws and writes what they did."""

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import pygal
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from headrace.charts import BLUE, GREEN, PINK, RED, SKY, WIDTH, Panel, options, scale, sheet, stepped
from headrace.cli.output import notes, out, table
from headrace.cli.parameters import svg
from headrace.errors import ConfigError
from plugins.backtest.load import (
    MINUTE_S,
    SYNTHETIC,
    OfferedLoad,
    RateTrace,
    RequestTrace,
    Sizes,
    offered_load,
    read_trace,
    smooth,
    synthetic,
)
from plugins.backtest.pilots import MECHANISMS
from plugins.backtest.pool import World
from plugins.backtest.runs import POLICIES, CaseResult, PolicyCase, hosts_at_peak, max_hosts, run_all

_WORLD, _SIZES = World(), Sizes()


class _Number(click.FloatRange):
    """A number within bounds. `nan` is within any bounds, as click compares them."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number: float = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"'{value}' is not a number.", param, ctx)
        return number


_Above0, _From0 = _Number(0, 1e9, min_open=True), _Number(0, 1e9)


#: The options that set the world's terms: their type and their help.
_TERMS: dict[str, tuple[click.ParamType[Any], str | None]] = {
    "usd_per_hour": (_From0, "Of a host."),
    "slots": (click.IntRange(1, 10_000), "Requests at once on a host."),
    "tokens_per_s": (_Above0, "Work of a saturated host: prompt tokens + 4 x output tokens."),
    "provision_s": (_From0, "From a host's order to ready."),
    "overflow_usd": (_From0, "A request at the paid API."),
    "overflow_per_s": (_From0, "Requests the API takes."),
    "max_wait_s": (_Above0, "Longest wait of a request."),
    "min_hosts": (click.IntRange(0, 10_000), None),
    "max_hosts": (click.IntRange(1, 10_000), "Default: 20, or 1.25 x the peak's if that is more."),
    "beta": (_From0, "Safety margin: staffing_beta."),
}


def _world_options(command: Callable[..., None]) -> Callable[..., None]:
    for name, (kind, about) in reversed(_TERMS.items()):
        default = None if name == "max_hosts" else getattr(_WORLD, name)
        option = f"--{name.replace('_', '-')}"
        command = click.option(option, type=kind, default=default, show_default=True, help=about)(command)
    return command


@click.command()
@click.argument("trace", required=False, type=click.Path(path_type=Path))
@click.option("--synthetic", "made", type=click.Choice(list(SYNTHETIC)), help="A made-up load in place of TRACE.")
@click.option("--peak-hosts", type=_Above0, metavar="N", help="Scale the load so that its peak saturates N hosts.")
@click.option("--policy", "policies", multiple=True, type=click.Choice(POLICIES), help="Repeatable. Default: all.")
@click.option("--off", multiple=True, type=click.Choice(MECHANISMS), help="Run predictive also without it. Repeatable.")
@_world_options
@click.option(
    "--prompt-tokens", type=_Above0, default=_SIZES.prompt_tokens, show_default=True, help="Mean, of rate files."
)
@click.option(
    "--output-tokens", type=_From0, default=_SIZES.output_tokens, show_default=True, help="Mean, of rate files."
)
@click.option("--equal-sizes", is_flag=True, help="Requests of rate files are equal. Default: exponential sizes.")
@click.option("--starts-at", metavar="TIME", help="Date of second 0. Default: the trace's, or Monday 2026-01-05 UTC.")
@click.option(
    "--seed", type=click.IntRange(0), default=1, show_default=True, help="The seed of all that chance decides."
)
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


#: Explains the columns of the table.
LEGEND = (
    "wait: until a request starts on a host; an expired one counts in full. 429, expired, spilled: % of all requests. "
    "use: % of slots busy; peak: over the top tenth of the load. USD/1k: hosts and paid API, for 1,000 answered "
    "requests. up/down: changes of the number of hosts."
)


def results_table(results: Sequence[CaseResult]) -> Table:
    """A row for each policy."""
    names = ("USD/1k", "p50 s", "p95 s", "p99 s", "429", "exp.", "spill", "use", "peak", "host-h", "up/down")
    rows = table("policy", numbers=names)
    for result in results:
        rows.add_row(result.case.name, *_cells(result))
    return rows


def _cells(result: CaseResult) -> list[str]:
    found = result.figures
    waits = (f"{wait:.1f}" for wait in (found.p50_wait_s, found.p95_wait_s, found.p99_wait_s))
    turned_away = (f"{100 * share:.2f}" for share in (found.refused_share, found.expired_share, found.spilled_share))
    uses = (f"{100 * use:.0f}" for use in (found.use, found.peak_use))
    changes = f"{found.ups}/{found.downs}"
    return [f"{found.usd_per_1000:.3f}", *waits, *turned_away, *uses, f"{found.host_hours:,.0f}", changes]


def last_line(results: Mapping[str, CaseResult]) -> str:
    """The figures of `predictive`. A ratio to a policy that did not run is `nan`.

    Args:
        results: by name; with `predictive`.
    """
    own = results["predictive"].figures

    def ratio(other: str) -> float:
        return own.usd_per_1000 / results[other].figures.usd_per_1000 if other in results else float("nan")

    return (
        f"usd_vs_reactive={ratio('reactive'):.3f} usd_vs_oracle={ratio('oracle'):.3f} peak_use={own.peak_use:.3f} "
        f"refused_share={own.refused_share:.5f} p95_wait_s={own.p95_wait_s:.1f} p99_wait_s={own.p99_wait_s:.1f}"
    )


def as_json(terms: Mapping[str, Any], results: Sequence[CaseResult]) -> dict[str, Any]:
    """Everything, for programs. Args: terms: the options and what follows from them."""
    return {"terms": terms, "policies": {result.case.name: _record(result) for result in results}}


def _record(result: CaseResult) -> dict[str, Any]:
    found = result.figures
    shares = {name: getattr(found, name) for name in ("refused_share", "expired_share", "spilled_share")}
    return {
        **asdict(found),
        **shares,
        "usd_per_1000": found.usd_per_1000,
        "changes": [{"second": second, "hosts": hosts} for second, hosts in result.changes],
    }


#: Longer traces are drawn in days.
HOURS_UP_TO_S = 2 * 86_400.0
#: With more changes than this, their marks would hide the lines.
MOST_MARKS = 400
#: Demand is drawn as means over this many minutes, or over more in a long trace: a point for each pixel is enough.
SMOOTH_MINUTES = 5
#: The steps between the labels of the time, in hours or days: the first of these that gives at most `LABELS`.
STEPS = (0.25, 0.5, 1, 2, 3, 6, 12, 24, 48)
LABELS = 12
#: The height of a panel.
HEIGHT = 150


def draw(title: str, load: OfferedLoad, world: World, results: Sequence[CaseResult]) -> str:
    """An SVG file with a panel for each policy. All have the same axes."""
    unit_s, unit = (3600.0, "h") if load.seconds <= HOURS_UP_TO_S else (86_400.0, "d")
    demand = _demand(load, world, unit_s)
    counts = [instant.ready + instant.requested for result in results for instant in result.instants]
    labels = scale(max([*counts, *(hosts for _, hosts in demand)]))
    axes = {"range": (0, labels[-1]), "y_labels": labels, **_times(load.seconds / unit_s, unit)}
    return sheet(
        title, HEIGHT, [Panel(each.case.name, _note(each), _chart(each, demand, unit_s, axes)) for each in results]
    )


def _demand(load: OfferedLoad, world: World, unit_s: float) -> list[tuple[float, float]]:
    minutes = math.ceil(len(load.demand) / WIDTH)
    means = smooth(load.demand, max(SMOOTH_MINUTES, minutes)) / world.tokens_per_s
    return [
        ((minute + 0.5) * MINUTE_S / unit_s, float(means[minute]))
        for minute in range(minutes // 2, len(means), minutes)
    ]


def _times(end: float, unit: str) -> dict[str, Any]:
    step = next((step for step in STEPS if end / step <= LABELS), end / LABELS)
    labels = [{"value": n * step, "label": f"{n * step:.4g} {unit}"} for n in range(math.floor(end / step) + 1)]
    return {"xrange": (0, end), "x_labels": labels}


def _chart(result: CaseResult, demand: Sequence[tuple[float, float]], unit_s: float, axes: dict[str, Any]) -> pygal.XY:
    """One policy: ordered and ready hosts, demand, and a mark for each change at the number that it led to."""
    chart = pygal.XY(**options(".3", (SKY, BLUE, RED, GREEN, PINK), **axes))
    count = [(each.second / unit_s, each.ready + each.requested) for each in result.instants]
    chart.add("ordered hosts", stepped(count), fill=True, stroke_style={"width": 1})
    chart.add("ready hosts", stepped([(each.second / unit_s, each.ready) for each in result.instants]))
    chart.add("demand", list(demand), stroke_style={"width": 1})
    after = {each.second: each.ready + each.requested for each in result.instants}
    changes = result.changes if len(result.changes) <= MOST_MARKS else []
    for sign, label in ((1, "order"), (-1, "removal")):
        marks = [(second / unit_s, after[second]) for second, change in changes if change * sign > 0]
        chart.add(label, marks, stroke=False, show_dots=True, dots_size=2.5)
    return chart


def _note(result: CaseResult) -> str:
    found = result.figures
    return (
        f"{found.usd_per_1000:.2f} USD/1k · p95 {found.p95_wait_s:.0f} s · 429 {found.refused_share:.2%} · "
        f"spilled {found.spilled_share:.2%} · use {found.use:.0%}, at peak {found.peak_use:.0%}"
    )
