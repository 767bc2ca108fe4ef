"""How full the KV ledger keeps a cache, step by step: against letting everybody in, and against the worst case.

The claim: with the ledger at most a hundredth of the jobs is preempted, and the cache is nearly as full as with no
limit. A step makes one token of each running job and costs the same for all jobs, so that only the policies differ;
what a preempted job computes again is counted, and costs nothing here. Knows the ledger, and no engine.
"""

import json
import random
import statistics
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from bed.testbed import line_of
from headrace.domain.queues import Lane
from workers.taking.kv_ledger import HeldJob, KvLedger
from workers.taking.lengths import by_lane

console = Console(stderr=True)

#: Blocks and their size: small and large GPUs, and the demo's cache of 256 MiB.
POOLS = ((64, 16), (256, 16), (1024, 16), (91, 128))
DEMO_POOL = "91 x 128"
#: Prompts and answers are log-normal: mean and deviation of the logarithm, least and most.
PROMPT, ANSWER = (4.5, 0.7, 20, 300), (4.2, 0.9, 4, 512)
MAX_RUNNING = 256
LANE = Lane.NORMAL
GOAL_PREEMPTED, GOAL_USE = 0.01, 0.85

Policy = Callable[[KvLedger, HeldJob], bool]


@dataclass(frozen=True, slots=True)
class Work:
    """One job: what is known before it runs, and what only its end tells."""

    prompt_tokens: int
    answer_tokens: int


@dataclass(slots=True)
class Run:
    """What became of all jobs.

    Attributes:
        use: share of the blocks in use at each step while jobs waited.
        again: tokens that were computed once more.
    """

    steps: int = 0
    preemptions: int = 0
    preempted: set[int] = field(default_factory=set)
    again: int = 0
    use: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Figures:
    """One policy on one pool, over all seeds."""

    preempted_share: float
    preemptions: float
    kv_use: float
    steps: float
    again_tokens: float

    @classmethod
    def of(cls, runs: list[Run], jobs: int) -> "Figures":
        """Means over the runs."""
        return cls(
            statistics.fmean(len(run.preempted) / jobs for run in runs),
            statistics.fmean(run.preemptions for run in runs),
            statistics.fmean(statistics.fmean(run.use) for run in runs),
            statistics.fmean(run.steps for run in runs),
            statistics.fmean(run.again for run in runs),
        )


def work(jobs: int, seed: int) -> list[Work]:
    """So many jobs; the same for every policy."""
    dice = random.Random(seed)

    def draw(mean: float, deviation: float, least: int, most: int) -> int:
        return int(min(most, max(least, dice.lognormvariate(mean, deviation))))

    return [Work(draw(*PROMPT), draw(*ANSWER)) for _ in range(jobs)]


class Cache:
    """An engine's cache, as vLLM runs it: who came last is preempted when a step finds no block."""

    def __init__(self, jobs: list[Work], blocks: int, block_tokens: int, policy: Policy) -> None:
        self._jobs, self._blocks, self._block_tokens, self._policy = jobs, blocks, block_tokens, policy
        self._ledger = KvLedger(blocks, block_tokens, by_lane())
        self._waiting = list(range(len(jobs)))
        self._running: dict[int, HeldJob] = {}
        self.run = Run()

    def finish(self) -> Run:
        """Run every job to its end."""
        while self._waiting or self._running:
            self._admit()
            self._preempt()
            self._step()
        return self.run

    def _admit(self) -> None:
        while self._waiting and len(self._running) < MAX_RUNNING:
            job = self._jobs[self._waiting[0]]
            held = HeldJob(LANE, job.prompt_tokens, ANSWER[3])
            if self._running and not self._policy(self._ledger, held):
                return
            number = self._waiting.pop(0)
            self._running[number] = held
            self._ledger.hold(str(number), held)

    def _preempt(self) -> None:
        while self._needed() > self._blocks:
            number, held = self._running.popitem()
            self._ledger.preempted(str(number))
            self._ledger.release(str(number), has_ended=False)
            self._waiting.insert(0, number)
            self.run.preemptions += 1
            self.run.preempted.add(number)
            self.run.again += held.prompt_tokens + held.produced

    def _step(self) -> None:
        self.run.steps += 1
        if self._waiting:
            self.run.use.append(self._needed() / self._blocks)
        for number, held in list(self._running.items()):
            self._ledger.produced(str(number), held.produced + 1)
            if held.produced == self._jobs[number].answer_tokens:
                self._ledger.release(str(number), has_ended=True)
                del self._running[number]

    def _needed(self) -> int:
        """Blocks that the next token of each job needs."""
        tokens = (held.prompt_tokens + held.produced + 1 for held in self._running.values())
        return sum(-(-each // self._block_tokens) for each in tokens)


def policies(blocks: int, block_tokens: int) -> dict[str, Policy]:
    """The ledger, and the two it is compared with."""

    def of(tokens: int) -> int:
        return -(-tokens // block_tokens)

    def is_open(ledger: KvLedger, job: HeldJob) -> bool:
        return ledger.used_blocks + of(job.prompt_tokens + 1) <= blocks

    def worst_case(ledger: KvLedger, job: HeldJob) -> bool:
        return ledger.most_blocks + of(job.prompt_tokens + job.max_tokens) <= blocks

    return {"open": is_open, "worst case": worst_case, "ledger": KvLedger.fits}


def show(found: dict[str, dict[str, Figures]]) -> None:
    """Every pool, policy by policy."""
    table = Table("pool", "policy", header_style="bold", title="means over the seeds")
    for heading in ("preempted", "preemptions", "KV use", "steps", "of open's", "again tokens"):
        table.add_column(heading, justify="right")
    for pool, by_policy in found.items():
        for name, each in by_policy.items():
            table.add_row(
                pool,
                name,
                f"{each.preempted_share:.3f}",
                f"{each.preemptions:.1f}",
                f"{each.kv_use:.2f}",
                f"{each.steps:.0f}",
                f"{each.steps / by_policy['open'].steps:.2f}",
                f"{each.again_tokens:,.0f}",
            )
        table.add_section()
    console.print(table)


@click.command()
@click.option("--jobs", type=click.IntRange(min=10), default=1000, show_default=True, help="In one run.")
@click.option("--seeds", type=click.IntRange(min=1), default=2, show_default=True, help="Runs of each policy.")
@click.option(
    "--json", "file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write every figure."
)
def main(jobs: int, seeds: int, file: Path | None) -> None:
    """Run the same jobs through caches of four sizes, with three ways to decide who is let in.

    Prompts have 20 to 300 tokens and answers 4 to 512, log-normal; every job asks for up to 512, and the ledger knows
    no length before the first answer has ended. `open` lets in each job whose prompt has blocks now, which is what the
    engine does by itself; `worst case` keeps blocks for the longest answer of each. They are the counter-proof: what
    the cache does without the ledger.

    The last line is name=value pairs: with the ledger the largest share of preempted jobs over the pools, and the use
    of the demo's cache and how many steps it took for open's one; then the same of the other two. The status is 1 when
    the ledger misses a goal: 0.01 preempted, 0.85 used.

    \b
    bin/headrace python benchmarks/kv_steps.py
    bin/headrace python benchmarks/kv_steps.py --jobs 300 --json steps.json
    """
    found: dict[str, dict[str, Figures]] = {}
    for blocks, block_tokens in POOLS:
        pool = f"{blocks} x {block_tokens}"
        found[pool] = {}
        for name, policy in policies(blocks, block_tokens).items():
            console.print(f"{pool}, {name}")
            runs = [Cache(work(jobs, seed), blocks, block_tokens, policy).finish() for seed in range(1, seeds + 1)]
            found[pool][name] = Figures.of(runs, jobs)
    show(found)
    figures = summary(found)
    if file is not None:
        every = {pool: {name: asdict(each) for name, each in row.items()} for pool, row in found.items()}
        file.write_text(json.dumps({"jobs": jobs, "seeds": seeds, "figures": figures, "pools": every}, indent=2) + "\n")
    print(line_of(figures))
    sys.exit(1 if figures["preempted_share"] > GOAL_PREEMPTED or figures["kv_use"] < GOAL_USE else 0)


def summary(found: dict[str, dict[str, Figures]]) -> dict[str, Any]:
    """What the last line says."""
    figures: dict[str, Any] = {}
    for name, suffix in (("ledger", ""), ("open", "_open"), ("worst case", "_worst_case")):
        rows = [by_policy[name] for by_policy in found.values()]
        figures[f"preempted_share{suffix}"] = max(row.preempted_share for row in rows)
        figures[f"kv_use{suffix}"] = found[DEMO_POOL][name].kv_use
        figures[f"steps_ratio{suffix}"] = found[DEMO_POOL][name].steps / found[DEMO_POOL]["open"].steps
    return figures


if __name__ == "__main__":
    main()
