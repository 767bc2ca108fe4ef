"""What continuous batching brings: concurrent prompts against the same number one after another, on one real engine.

Knows the system from outside: HTTP to submit and poll, SQL to count. A stack of its own, in a temporary folder, with
the real vLLM engine and the model that `HEADRACE_MODEL` names.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import httpx2
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from bed.real_engine import check_installed
from bed.testbed import Counts, count_jobs
from headrace.config import Settings
from headrace.domain.states import TERMINAL, JobState
from headrace.stack.model import prepare
from headrace.stack.stack import Stack
from headrace.stack.state_folder import StackReport

SUBJECTS = ("a river", "the sea", "an old mill", "the first snow", "a lighthouse", "bread", "a long bridge", "the moon")
#: Seconds one poll holds on.
POLL_S = 20
#: Nothing may expire here: seconds within which a job must start.
MAX_WAIT_S = 3600

console = Console(highlight=False)

Submit = Callable[[str], int]


@dataclass(frozen=True, slots=True)
class Round:
    """Output tokens per second of both arms, measured one after the other."""

    sequential_tok_s: float
    concurrent_tok_s: float

    @property
    def ratio(self) -> float:
        """Concurrent over sequential."""
        return self.concurrent_tok_s / self.sequential_tok_s


@dataclass(frozen=True, slots=True)
class Figures:
    """One stack's rounds and what they come to.

    Attributes:
        max_running: the most jobs in the engine's batch.
    """

    max_running: int
    rounds: tuple[Round, ...]
    counts: Counts

    @property
    def ratio(self) -> float:
        """The median round's."""
        return statistics.median(each.ratio for each in self.rounds)

    @property
    def sequential_tok_s(self) -> float:
        """The median round's."""
        return statistics.median(each.sequential_tok_s for each in self.rounds)

    @property
    def concurrent_tok_s(self) -> float:
        """The median round's."""
        return statistics.median(each.concurrent_tok_s for each in self.rounds)

    @property
    def lost(self) -> int:
        """Jobs that were accepted and have no answer."""
        return self.counts.accepted - self.counts.succeeded


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured."""

    rounds: int
    prompts: int
    max_tokens: int


class Client:
    """Submits prompts to a running stack and waits for their answers."""

    def __init__(self, report: StackReport, max_tokens: int) -> None:
        self._model = report.model
        self._max_tokens = max_tokens
        headers = {"Authorization": f"Bearer {report.api_key}"}
        limits = httpx2.Limits(max_connections=None)
        self._http = httpx2.Client(base_url=report.url, headers=headers, timeout=POLL_S + 30, limits=limits)

    def answer(self, prompt: str) -> int:
        """Submit one prompt and poll until it has ended. Returns: output tokens of its answer."""
        body = {
            "model": self._model,
            "prompt": prompt,
            "max_tokens": self._max_tokens,
            "max_wait": MAX_WAIT_S,
            "temperature": 0,
        }
        accepted = self._http.post("/v1/jobs", json=body).raise_for_status().json()
        while True:
            job = self._http.get(f"/v1/jobs/{accepted['id']}", params={"wait": POLL_S}).raise_for_status().json()
            if job["status"] in TERMINAL:
                break
        if job["status"] != JobState.SUCCEEDED:
            raise click.ClickException(f"{job['id']} {job['status']}: {job['error']}")
        return int(job["usage"]["output_tokens"])


def prompts_of(plan: Plan, arm: str) -> list[str]:
    """As many prompts as a round has, none asked before: what tells them apart comes first, so no prefix is cached."""
    return [
        f"{arm} {no}: write a long story about {SUBJECTS[no % len(SUBJECTS)]}." for no in range(1, plan.prompts + 1)
    ]


def tokens_per_s(answer: Submit, prompts: list[str], threads: int) -> float:
    """Output tokens per second over the whole set, from the first submit to the last answer."""
    with ThreadPoolExecutor(threads) as pool:
        began = time.monotonic()
        tokens = sum(pool.map(answer, prompts))
        return tokens / (time.monotonic() - began)


def measure(plan: Plan, title: str, max_running: int | None) -> Figures:
    """Start a stack, measure its rounds, count its jobs, stop it.

    Args:
        max_running: jobs in the engine's batch; None for what the settings say.
    """
    settings = Settings.load(engine="vllm")
    pool = settings.pool
    env = {"OPENAI_API_KEY": "", "HEADRACE_MODEL_DIR": str(prepare(settings, console.print).folder)}
    if max_running is not None:
        env["HEADRACE_POOLS"] = json.dumps({pool: {"max_running": max_running}})
    console.rule(title)
    options = ("--engine", "vllm", "--without", "flower", "--without", "plugins")
    with TemporaryDirectory(prefix="headrace-benchmark-") as folder, Stack(Path(folder), options, env, _tell) as stack:
        rounds = _rounds(plan, Client(stack.report, plan.max_tokens))
        counts = count_jobs(stack.report.database_url)
    return Figures(max_running or settings.pools[pool].max_running, rounds, counts)


def _tell(line: str) -> None:
    """Pass on how the start goes, and not the addresses and keys after it."""
    if " ready (" in line:
        console.print(line, style="dim")


def _rounds(plan: Plan, client: Client) -> tuple[Round, ...]:
    """Both arms in turn, so that whatever else the machine does falls on both."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        warm = progress.add_task("warming up", total=plan.prompts)
        bar = progress.add_task("measuring", total=2 * plan.rounds * plan.prompts)

        def counted(task: object) -> Submit:
            def answer(prompt: str) -> int:
                tokens = client.answer(prompt)
                progress.advance(task)  # type: ignore[arg-type]
                return tokens

            return answer

        tokens_per_s(counted(warm), prompts_of(plan, "Zero"), plan.prompts)
        rounds = []
        for no in range(1, plan.rounds + 1):
            progress.update(bar, description=f"round {no}: one by one")
            sequential = tokens_per_s(counted(bar), prompts_of(plan, f"Single {no}"), threads=1)
            progress.update(bar, description=f"round {no}: all at once")
            concurrent = tokens_per_s(counted(bar), prompts_of(plan, f"Many {no}"), threads=plan.prompts)
            rounds.append(Round(sequential, concurrent))
    return tuple(rounds)


def show(plan: Plan, measured: dict[str, Figures]) -> None:
    """Every round of both arms, in tokens per second."""
    table = Table("batching", "round", header_style="bold")
    for heading in ("one by one", f"{plan.prompts} at once", "ratio"):
        table.add_column(heading, justify="right")
    for name, figures in measured.items():
        for no, each in enumerate(figures.rounds, 1):
            rates = (f"{each.sequential_tok_s:.1f}", f"{each.concurrent_tok_s:.1f}", f"{each.ratio:.2f}")
            table.add_row(f"{name} (batch of {figures.max_running})", str(no), *rates)
    console.print(table)


def summary(measured: dict[str, Figures]) -> str:
    """The one line that says it all; of the last stack, and the ratio with batching on beside it."""
    figures = list(measured.values())[-1]
    pairs = {"ratio": f"{figures.ratio:.2f}"}
    if len(measured) > 1:
        pairs["ratio_on"] = f"{measured['on'].ratio:.2f}"
    pairs["sequential_tok_s"] = f"{figures.sequential_tok_s:.0f}"
    pairs["concurrent_tok_s"] = f"{figures.concurrent_tok_s:.0f}"
    for name in asdict(figures.counts):
        pairs[name] = str(sum(getattr(each.counts, name) for each in measured.values()))
    return " ".join(f"{name}={value}" for name, value in pairs.items())


@click.command()
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True, help="The median round counts.")
@click.option("--prompts", type=click.IntRange(min=2), default=20, show_default=True, help="Of each arm in each round.")
@click.option("--max-tokens", type=click.IntRange(min=1), default=64, show_default=True, help="Bound of each answer.")
@click.option(
    "--off",
    type=click.Choice(["batching"]),
    help="Measure again with this switched off: one job at a time in the engine. The ratio falls to about 1.",
)
@click.option(
    "--json", "file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write every figure."
)
def main(rounds: int, prompts: int, max_tokens: int, off: str | None, file: Path | None) -> None:
    """Compare concurrent prompts with the same number one after another, through one queue on one engine.

    Starts a whole Headrace on this machine, with the real vLLM engine and the demo's model, in a temporary folder.
    Both arms submit over HTTP and poll with wait=. One arm submits a prompt once the answer before it is there; the
    other submits all at once, and the engine batches what it holds. No prompt is asked twice. The figure is output
    tokens per second; the peer is the first arm, measured in the same rounds on the same engine.

    The last line is name=value pairs: ratio (concurrent over sequential, median of the rounds), both rates, and what
    Postgres says became of all jobs. With --off batching, ratio is the one without batching and ratio_on the one with
    it. The status is 1 when a job has no answer.

    \b
    bin/headrace python benchmarks/continuous_batching.py
    bin/headrace python benchmarks/continuous_batching.py --off batching --json figures.json
    """
    check_installed()
    plan = Plan(rounds, prompts, max_tokens)
    measured = {"on": measure(plan, f"{prompts} prompts, batched", None)}
    if off is not None:
        measured["off"] = measure(plan, f"{prompts} prompts, one at a time in the engine", 1)
    show(plan, measured)
    if file is not None:
        report = {name: asdict(each) | {"ratio": each.ratio} for name, each in measured.items()}
        file.write_text(json.dumps({"plan": asdict(plan), "batching": report}, indent=2) + "\n")
    print(summary(measured))
    sys.exit(1 if any(each.lost for each in measured.values()) else 0)


if __name__ == "__main__":
    main()
