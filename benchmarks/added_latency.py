"""What Headrace adds to the time to the first token: the same stream through it and from vLLM's own server.

The claim: at one request at a time, all that is between the caller and the engine (a durable row, a queue, a claim, the
way back through Redis) costs no more than 10 ms in the median. Knows the system from outside: HTTP, SQL.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
from rich.progress import track
from rich.table import Table

from bed.first_token import Heard, Listener
from bed.load import drive, percentile, request
from bed.real_engine import check_installed, demo_folder, pool_of, real_stack, settings_of
from bed.testbed import Counts, bearer, console, count_jobs, line_of
from headrace.domain.states import TERMINAL
from peers.vllm_server import vllm_server

#: The most that the median may be more than the peer's, in milliseconds.
GOAL_MS = 10.0
#: So that no token comes from an earlier prompt.
POOL = {"engine_options": {"enable_prefix_caching": False}}
#: Seconds between two requests: the server that has answered is idle again before the other begins.
PAUSE_S = 0.05
#: Requests of each arm before the clock counts.
WARM_UP = 5
#: Seconds that one poll holds on.
POLL_S = 30

SUBJECTS = ("a river", "the sea", "an old mill", "the first snow", "a lighthouse", "bread", "a long bridge", "the moon")

#: How one prompt is answered.
Arm = Callable[[str], Heard]


@dataclass(frozen=True, slots=True)
class Measured:
    """Answers of each arm to the same prompts, in the same order; and what Postgres says became of the jobs."""

    arms: Mapping[str, Sequence[Heard]]
    counts: Counts

    def first_ms(self, arm: str, percent: float) -> float:
        """The time to the first token that this percentage of an arm's answers stays within."""
        return 1000 * percentile([heard.first_s for heard in self.arms[arm]], percent)

    def added_ms(self, arm: str, percent: float) -> float:
        """How much more that is than the peer's."""
        return self.first_ms(arm, percent) - self.first_ms("direct", percent)

    @property
    def alike(self) -> int:
        """Prompts that the two streams answered with the same text."""
        pairs = zip(self.arms["queue"], self.arms["direct"], strict=True)
        return sum(ours.text == theirs.text for ours, theirs in pairs)


class Poller:
    """What is left without streams: a job, and a poll that holds on until it has ended."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        self._url, self._headers = url, headers

    def ask(self, body: Mapping[str, Any]) -> Heard:
        """Submit, and poll to the end: its first token is there when its last is. Raises: LoadError."""
        began = time.perf_counter()
        job = self._call("POST", "/v1/jobs", json.dumps(body).encode())
        while job["status"] not in TERMINAL:
            job = self._call("GET", f"/v1/jobs/{job['id']}?wait={POLL_S}")
        if job["status"] != "succeeded":
            raise click.ClickException(f"A job has no answer: {job['error']}")
        seconds = time.perf_counter() - began
        return Heard(seconds, seconds, 1, job["text"])

    def _call(self, method: str, path: str, body: bytes = b"") -> dict[str, Any]:
        answer = drive([self._url], iter([request(method, path, self._headers, body)]), 1).answers[0]
        if answer.status not in (200, 202):
            raise click.ClickException(f"{method} {path} was answered {answer.status}: {answer.body!r}")
        found: dict[str, Any] = json.loads(answer.body)
        return found


def prompt_of(no: int) -> str:
    """A prompt that was not asked before and has a long answer."""
    return f"Tale {no}: write a long story about {SUBJECTS[no % len(SUBJECTS)]}."


@dataclass(frozen=True, slots=True)
class Started:
    """Both engines, loaded."""

    arms: Mapping[str, Arm]
    database_url: str


@contextmanager
def started(max_tokens: int, off: str | None) -> Iterator[Started]:
    """Both engines loaded, and the ways to ask them."""
    folder = demo_folder()
    console.print("both engines are loading", style="dim")
    with ExitStack() as exits:
        pool = pool_of(folder, POOL)
        stack = exits.enter_context(real_stack(settings_of(folder, POOL)))
        direct_url = exits.enter_context(vllm_server(pool))
        key = bearer(stack.report.api_key)
        askers: dict[str, Listener | Poller] = {
            "queue": exits.enter_context(Listener(stack.report.url, key)),
            "direct": exits.enter_context(Listener(direct_url, {})),
        }
        if off == "streams":
            askers["polled"] = Poller(stack.report.url, key)

        def arm_of(asker: Listener | Poller) -> Arm:
            def ask(prompt: str) -> Heard:
                messages = [{"role": "user", "content": prompt}]
                return asker.ask(
                    {"model": pool.model, "messages": messages, "max_tokens": max_tokens, "temperature": 0}
                )

            return ask

        arms = {name: arm_of(asker) for name, asker in askers.items()}
        yield Started(arms, stack.report.database_url)


def measure(prompts: int, max_tokens: int, off: str | None) -> Measured:
    """Every prompt by every arm, one at a time; the arm that was asked first is asked last the next time."""
    with started(max_tokens, off) as system:
        found: dict[str, list[Heard]] = {name: [] for name in system.arms}
        order = list(system.arms)
        for no in track(range(1, WARM_UP + prompts + 1), "asking", console=console):
            for name in order:
                time.sleep(PAUSE_S)
                heard = system.arms[name](prompt_of(no))
                if no > WARM_UP:
                    found[name].append(heard)
            order.reverse()
        return Measured(found, count_jobs(system.database_url))


def show(measured: Measured) -> None:
    """Both percentiles of every arm."""
    table = Table("first token", header_style="bold", title="milliseconds from the request to its first token")
    for heading in ("p50", "p95", "p50 added", "p95 added", "p50 of the whole"):
        table.add_column(heading, justify="right")
    for name, heard in measured.arms.items():
        added = [f"{measured.added_ms(name, percent):.1f}" for percent in (50, 95)]
        table.add_row(
            name,
            *(f"{measured.first_ms(name, percent):.1f}" for percent in (50, 95)),
            *(added if name != "direct" else ("", "")),
            f"{1000 * percentile([each.total_s for each in heard], 50):.0f}",
        )
    console.print(table)


def summary(measured: Measured) -> dict[str, Any]:
    """What the last line says."""
    figures: dict[str, Any] = {"p50_ms": measured.added_ms("queue", 50), "p95_ms": measured.added_ms("queue", 95)}
    if "polled" in measured.arms:
        figures |= {f"p{percent}_ms_off": measured.added_ms("polled", percent) for percent in (50, 95)}
    for name in measured.arms:
        figures |= {f"{name}_p{percent}_ms": measured.first_ms(name, percent) for percent in (50, 95)}
    return figures | {"alike": measured.alike} | asdict(measured.counts)


@click.command()
@click.option("--prompts", type=click.IntRange(min=2), default=60, show_default=True, help="Of each arm.")
@click.option("--max-tokens", type=click.IntRange(min=2), default=16, show_default=True, help="Of each answer.")
@click.option(
    "--off",
    type=click.Choice(["streams"]),
    help="Measure beside it what is left without streams: a job, and a poll that holds on until it has ended.",
)
@click.option(
    "--json", "file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write every figure."
)
def main(prompts: int, max_tokens: int, off: str | None, file: Path | None) -> None:
    """Measure the time to the first token through Headrace, beside vLLM's own server called directly.

    Starts a whole Headrace with the real vLLM engine in a temporary folder, and beside it vLLM's OpenAI-compatible
    server with the same engine arguments, prefix caching off. Both stay loaded. One client asks them in turn for the
    same chat completions as streams, one at a time over a connection that stays open; the clock runs from before the
    request is sent until the first text has been read. No prompt is asked twice of one engine.

    The last line is name=value pairs: p50_ms and p95_ms, how much later than the peer's the median and the 95th
    percentile of the first tokens are; both of each arm as they are; how many answers are alike; and what Postgres says
    became of all jobs, the warm-up's included. The status is 1 when p50_ms is above 10, or a job has no answer.

    \b
    bin/headrace python benchmarks/added_latency.py
    bin/headrace python benchmarks/added_latency.py --off streams --json figures.json
    """
    check_installed()
    measured = measure(prompts, max_tokens, off)
    show(measured)
    figures = summary(measured)
    if file is not None:
        every = {name: [asdict(each) for each in heard] for name, heard in measured.arms.items()}
        plan = {"prompts": prompts, "max_tokens": max_tokens}
        file.write_text(json.dumps({"plan": plan, "figures": figures, "arms": every}, indent=2) + "\n")
    print(line_of(figures))
    missed = figures["p50_ms"] > GOAL_MS or figures["accepted"] != figures["succeeded"]
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
