"""What the queue costs an engine: prompts through Headrace against vLLM's own offline `LLM.generate`.

The claim: with many prompts the queue keeps the engine as busy as one call that has them all at once. Both engines have
the same arguments, are resident all the time, and work in turn. Knows the system from outside: HTTP, SQL.
"""

import json
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import click
from rich.table import Table

from bed.real_engine import QueueClient, check_installed, demo_folder, pool_of, real_stack, settings_of
from bed.testbed import Counts, console, count_jobs, line_of, rounds
from headrace.config import PROJECT_ROOT
from headrace.connections import model_files
from headrace.domain.prompts import Message
from headrace.policies.tokens import PromptTokenizer
from headrace.stack.stack import Stack
from peers.json_peer import JsonPeer

#: Of each engine: room for all prompts at once, so that the cache decides nothing.
POOL = {
    "max_running": 256,
    "kv_cache_mib": 1024,
    "max_model_tokens": 1024,
    "engine_options": {"enable_prefix_caching": False},
}
TINY = PROJECT_ROOT / "tests" / "contracts" / "tiny_llama.py"
GOALS = {"demo": 0.95, "tiny": 0.9}

SUBJECTS = ("a river", "the sea", "an old mill", "the first snow", "a lighthouse", "bread", "a long bridge", "the moon")


@dataclass(frozen=True, slots=True)
class Round:
    """One set of prompts, answered by both."""

    queue_s: float
    offline_s: float
    queue_tokens: int
    offline_tokens: int

    @property
    def ratio(self) -> float:
        """The queue's tokens a second over the offline call's."""
        return (self.queue_tokens / self.queue_s) / (self.offline_tokens / self.offline_s)


class Offline:
    """The peer's side."""

    def __init__(self, peer: JsonPeer) -> None:
        self._peer = peer

    def generate(self, prompts: Sequence[Sequence[int]], max_tokens: int) -> tuple[float, int]:
        """Seconds, and tokens of all answers."""
        answer = self._peer.ask({"prompts": prompts, "max_tokens": max_tokens})
        return answer["seconds"], answer["tokens"]


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured."""

    rounds: int
    sizes: tuple[int, ...]
    max_tokens: int


def prompts_of(number: int, name: str) -> list[str]:
    """Prompts that were not asked before and have long answers."""
    return [f"{name} {no}: write a long story about {SUBJECTS[no % len(SUBJECTS)]}." for no in range(1, number + 1)]


@contextmanager
def both(folder: Path, max_running: int) -> Iterator[tuple[QueueClient, Offline, Stack]]:
    """A stack and the peer, on the model in the folder."""
    ours = settings_of(folder, POOL | {"max_running": max_running})
    with real_stack(ours, without=("flower", "webhooks", "beat")) as stack:
        peer = JsonPeer("peers.offline_engine", settings_of(folder, POOL))
        try:
            yield QueueClient(stack), Offline(peer), stack
        finally:
            peer.close()


def measure(name: str, folder: Path, plan: Plan, max_running: int) -> tuple[dict[int, list[Round]], Counts]:
    """Every size in every round, the two in turn: the one that began a round is second in the next."""
    tokenizer = cast(PromptTokenizer, model_files.tokenizer_for(pool_of(folder, POOL)))
    found: dict[int, list[Round]] = {size: [] for size in plan.sizes}
    console.rule(f"{name}: both engines are loading")
    with both(folder, max_running) as (queue, offline, stack):
        for no in rounds(plan.rounds + 1, lambda no: f"{name}: " + (f"round {no - 1}" if no > 1 else "warming up")):
            for size in plan.sizes:
                texts = prompts_of(size, f"Round {no} of {name}")
                tokens = [tokenizer.encode([Message("user", text)]) for text in texts]
                if no % 2:
                    ours, theirs = queue.generate(texts, plan.max_tokens), offline.generate(tokens, plan.max_tokens)
                else:
                    theirs, ours = offline.generate(tokens, plan.max_tokens), queue.generate(texts, plan.max_tokens)
                if ours.prompt_tokens != (expected := sum(map(len, tokens))):
                    raise click.ClickException(f"Different prompts: {ours.prompt_tokens} and {expected} tokens.")
                if no > 1:
                    found[size].append(Round(ours.seconds, theirs[0], ours.tokens, theirs[1]))
        return found, count_jobs(stack.report.database_url)


def ratio(measured: Sequence[Round]) -> float:
    """The median round's."""
    return statistics.median(each.ratio for each in measured)


def show(found: Mapping[str, Mapping[int, Sequence[Round]]]) -> None:
    """Every model and size: medians over the rounds."""
    table = Table("model", "prompts", header_style="bold", title="medians over the rounds")
    for heading in ("queue tok/s", "offline tok/s", "ratio", "least-most", "tokens alike", "ms a job"):
        table.add_column(heading, justify="right")
    for name, sizes in found.items():
        for size, measured in sizes.items():
            table.add_row(
                name,
                str(size),
                f"{statistics.median(each.queue_tokens / each.queue_s for each in measured):.0f}",
                f"{statistics.median(each.offline_tokens / each.offline_s for each in measured):.0f}",
                f"{ratio(measured):.3f}",
                f"{min(each.ratio for each in measured):.2f}-{max(each.ratio for each in measured):.2f}",
                str(all(each.queue_tokens == each.offline_tokens for each in measured)),
                f"{statistics.median(1000 * (each.queue_s - each.offline_s) / size for each in measured):.2f}",
            )
    console.print(table)


def summary(found: Mapping[str, Mapping[int, Sequence[Round]]], counts: Sequence[Counts]) -> dict[str, Any]:
    """What the last line says."""
    figures: dict[str, Any] = {}
    for name, sizes in found.items():
        suffix = "" if name == "demo" else f"_{name}"
        figures |= {f"ratio_{size}{suffix}": ratio(measured) for size, measured in sizes.items()}
    totals = [asdict(each) for each in counts]
    return figures | {name: sum(each[name] for each in totals) for name in totals[0]}


@click.command()
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True, help="The median round counts.")
@click.option("--size", "sizes", multiple=True, type=click.IntRange(2, 256), default=(64, 256), show_default=True)
@click.option("--max-tokens", type=click.IntRange(min=1), default=64, show_default=True, help="Of each answer.")
@click.option("--model", "names", multiple=True, type=click.Choice(["demo", "tiny"]), default=("demo", "tiny"))
@click.option(
    "--off",
    type=click.Choice(["batching"]),
    help="Measure one round more with eight jobs at a time in the queue's engine, which still has room for all.",
)
@click.option(
    "--json", "file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write every figure."
)
def main(
    rounds: int, sizes: tuple[int, ...], max_tokens: int, names: tuple[str, ...], off: str | None, file: Path | None
) -> None:
    """Compare prompts through the queue with the same prompts given to the engine in one call.

    Starts a whole Headrace with the real vLLM engine in a temporary folder, and beside it a process with vLLM's `LLM`
    and the same engine arguments, prefix caching off. Both stay loaded and work in turn on the same prompts, which are
    new in each round. The queue's clock runs from the first POST until the last job could be read as succeeded; the
    peer's is its one call to `generate`. `demo` is the demo's model; `tiny` has random weights and is so fast that what
    Headrace does for each job shows.

    The last line is name=value pairs: for each size the ratio of tokens a second, the queue's over the peer's, median
    of the rounds, and what Postgres says became of all jobs, the warm-up's included. The status is 1 when a ratio is
    below its goal, 0.95 for demo and 0.9 for tiny, or a job has no answer.

    \b
    bin/headrace python benchmarks/queue_vs_offline.py
    bin/headrace python benchmarks/queue_vs_offline.py --model tiny --size 64 --off batching
    """
    check_installed()
    plan = Plan(rounds, sizes, max_tokens)
    found: dict[str, dict[int, list[Round]]] = {}
    counts: list[Counts] = []
    with TemporaryDirectory(prefix="headrace-tiny-") as made:
        for name in names:
            folder = _folder(name, Path(made))
            found[name], counted = measure(name, folder, plan, POOL["max_running"])  # type: ignore[arg-type]
            counts.append(counted)
            if off is not None:
                found[f"{name}_off"], counted = measure(name, folder, Plan(1, sizes, max_tokens), 8)
                counts.append(counted)
    show(found)
    figures = summary(found, counts)
    if file is not None:
        every = {name: {size: [asdict(each) for each in of] for size, of in row.items()} for name, row in found.items()}
        file.write_text(json.dumps({"plan": asdict(plan), "figures": figures, "rounds": every}, indent=2) + "\n")
    print(line_of(figures))
    missed = any(ratio(of) < GOALS[name] for name in names for of in found[name].values())
    sys.exit(1 if missed or figures["accepted"] != figures["succeeded"] else 0)


def _folder(name: str, made: Path) -> Path:
    if name == "demo":
        return demo_folder()
    folder = made / "tiny"
    subprocess.run([sys.executable, TINY, folder], check=True, capture_output=True)
    return folder


if __name__ == "__main__":
    main()
