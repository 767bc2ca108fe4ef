"""What benchmark tools see through Headrace and from vLLM's own server: requests a second, first token, next tokens.

The claim: `vllm bench serve` and GuideLLM run unchanged against both, and with no more requests at once than the engine
runs, Headrace is as fast. Both engines have the same arguments, are resident all the time, and work in turn. Knows the
system from outside: HTTP.
"""

import json
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent.parent))

from bed.bench_tools import TOOLS, Load, Run, Target
from bed.real_engine import check_installed, demo_folder, pool_of, real_stack, settings_of
from bed.testbed import console, line_of, rounds
from peers.vllm_server import vllm_server

#: Of each engine. Prefix caching is off, so that no token comes from an earlier round.
POOL = {"max_running": 16, "engine_options": {"enable_prefix_caching": False}}
#: Jobs that Headrace's engine runs at once when batching is off.
FEW = 2
#: The figure and its measure, whether the worse of two ratios is the lower one, and the goal.
RATIOS = {
    "throughput_ratio": ("throughput", True, 0.95),
    "ttft_ratio": ("ttft_ms", False, 1.3),
    "tpot_ratio": ("tpot_ms", False, 1.05),
}
#: Runs of a tool, by the server's name.
Runs = Mapping[str, Sequence[Run]]


@contextmanager
def both(folder: Path, off: str | None) -> Iterator[tuple[tuple[Target, Target], str]]:
    """Headrace and vLLM's own server, on the model in the folder; and the model's name."""
    console.print("both engines are loading", style="dim")
    changes = {"max_running": FEW} if off == "batching" else {}
    with ExitStack() as exits:
        stack = exits.enter_context(real_stack(settings_of(folder, POOL | changes), without=("flower", "webhooks")))
        direct_url = exits.enter_context(vllm_server(pool_of(folder, POOL)))
        report = stack.report
        yield (Target("Headrace", report.url, report.api_key), Target("vLLM", direct_url, "none")), report.model


def measure(
    targets: Sequence[Target], load: Load, tools: Sequence[str], number: int
) -> dict[str, dict[str, list[Run]]]:
    """Both servers in turn with each tool, on prompts that are new in each round; the first round warms up.

    The server that begins a round is second in the next. Returns: runs by tool and server.
    """
    found: dict[str, dict[str, list[Run]]] = {tool: {target.name: [] for target in targets} for tool in tools}
    order = list(targets)
    for no in rounds(number + 1, lambda no: f"round {no - 1}" if no > 1 else "warming up"):
        for tool in tools:
            for target in order:
                with TemporaryDirectory(prefix="headrace-side-") as folder:
                    run = TOOLS[tool](target, load, no, Path(folder))
                if no > 1:
                    found[tool][target.name].append(run)
        order.reverse()
    return found


def median(runs: Sequence[Run], name: str) -> float:
    """Of a measure, over the rounds."""
    return statistics.median(getattr(run, name) for run in runs)


def ratio(runs: Runs, name: str) -> float:
    """Headrace's measure over vLLM's."""
    return median(runs["Headrace"], name) / median(runs["vLLM"], name)


def show(found: Mapping[str, Runs]) -> None:
    """Every tool and server: medians over the rounds."""
    table = Table("tool", "server", header_style="bold", title="medians over the rounds")
    for heading in ("requests/s", "TTFT ms", "TPOT ms", "output tokens", "failed"):
        table.add_column(heading, justify="right")
    for tool, servers in found.items():
        for name, runs in servers.items():
            cells = [f"{median(runs, measure):.2f}" for measure in ("throughput", "ttft_ms", "tpot_ms")]
            table.add_row(tool, name, *cells, *(str(sum(each)) for each in _sums(runs)))
    console.print(table)


def _sums(runs: Sequence[Run]) -> tuple[list[int], list[int]]:
    return [run.output_tokens for run in runs], [run.failed for run in runs]


def summary(found: Mapping[str, Runs]) -> dict[str, Any]:
    """What the last line says."""
    worst, each = {}, {}
    for name, (measure, is_lower_worse, _) in RATIOS.items():
        ratios = {f"{name}_{tool}": ratio(runs, measure) for tool, runs in found.items()}
        worst[name] = (min if is_lower_worse else max)(ratios.values())
        each |= ratios
    failed = sum(run.failed for servers in found.values() for runs in servers.values() for run in runs)
    return worst | {"failed": failed} | each


def meets_goals(figures: Mapping[str, Any]) -> bool:
    """Whether Headrace is as fast, and every request has its answer."""
    missed = [
        name
        for name, (_, is_least, goal) in RATIOS.items()
        if (figures[name] < goal if is_least else figures[name] > goal)
    ]
    return not missed and not figures["failed"]


@click.command()
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True, help="The median round counts.")
@click.option("--requests", type=click.IntRange(min=1), default=64, show_default=True, help="Of each tool in a round.")
@click.option("--at-once", type=click.IntRange(1, 16), default=8, show_default=True, help="Each engine runs 16.")
@click.option("--prompt-tokens", type=click.IntRange(min=1), default=64, show_default=True)
@click.option("--output-tokens", type=click.IntRange(min=2), default=32, show_default=True)
@click.option("--tool", "tools", multiple=True, type=click.Choice(list(TOOLS)), default=list(TOOLS), show_default=True)
@click.option("--off", type=click.Choice(["batching"]), help=f"Let Headrace's engine run {FEW} jobs at once.")
@click.option(
    "--json", "file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write every figure."
)
def main(rounds: int, tools: tuple[str, ...], off: str | None, file: Path | None, **load: int) -> None:
    """Run `vllm bench serve` and GuideLLM against Headrace and against vLLM's own server.

    Starts a whole Headrace with the real vLLM engine in a temporary folder, and beside it vLLM's OpenAI-compatible
    server with the same engine arguments, prefix caching off. Both stay loaded. The tools are unchanged and stream chat
    completions: `--backend openai-chat --dataset-name random`, and `kind=synthetic_text`. They ask both servers in
    turn, with the same prompts, lengths and concurrency, and never more at once than an engine runs.

    The last line is name=value pairs. throughput_ratio is requests a second, Headrace's over vLLM's; ttft_ratio and
    tpot_ratio are ratios of the times to the first token and for each token after it. Each is of the medians of the
    rounds, and is the worse of the two tools; those of each tool follow, by its name. failed counts requests of all
    rounds without an answer, of both servers. The status is 1 when a ratio misses its goal or a request failed.

    \b
    bin/headrace python benchmarks/side_by_side.py
    bin/headrace python benchmarks/side_by_side.py --rounds 1 --off batching
    """
    check_installed()
    folder = demo_folder()
    with both(folder, off) as (targets, model):
        found = measure(targets, Load(model, folder, **load), tools, rounds)
    show(found)
    figures = summary(found)
    if file is not None:
        every = {tool: {name: [asdict(run) for run in runs] for name, runs in of.items()} for tool, of in found.items()}
        file.write_text(json.dumps({"plan": load, "figures": figures, "runs": every}, indent=2) + "\n")
    print(line_of(figures))
    sys.exit(0 if meets_goals(figures) else 1)


if __name__ == "__main__":
    main()
