"""The fast pool's callers while a batch fills the other pool, and when more of them come than the fast pool can answer.

The claim: a batch that saturates one pool does not slow the answers of the other, and what would miss the fast pool's
latency goal is refused at once. Real processes, simulated engines. Knows the system from outside: HTTP, SQL.
"""

import http.client
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import repeat
from pathlib import Path
from urllib.parse import urlsplit

import click
from rich.table import Table

from bed.load import drive, percentile, request
from bed.testbed import Testbed, bearer, console, line_of, wait_until

#: Goals: the p95 beside a saturated pool over that beside an idle one, and that under overload over the latency goal.
MOST_RATIO, MOST_OF_GOAL = 1.3, 1.1
FAST, LARGE = "small", "large"
#: Slots of each engine, and tokens a second of each of its answers.
SLOTS, TOKENS_PER_S = 8, 60
#: Tokens of an answer to a caller who waits, and of a batch job's.
ANSWER, BATCH_ANSWER = 20, 200
GOAL_S = 1.0
#: What the fast pool's worker is set to answer until that is measured: what its slots can do.
DRAIN_JOBS_PER_S = SLOTS * TOKENS_PER_S // ANSWER
#: Batch jobs that wait beside those that run, and seconds between two looks at how many do.
WAITING, FEED_S = 64, 0.25
#: Seconds between two callers; and when they are more than the fast pool can answer.
EVERY_S, OVERLOAD_EVERY_S = 0.15, 1 / (2 * DRAIN_JOBS_PER_S)
WARM_UP = 20
#: Callers of the counter-proof's lane `batch`, each of which waits behind the whole batch.
OFF_CALLERS = 20
#: Nothing of the counter-proof may expire: seconds within which it must start.
LONG_S = 3600
TIMEOUT_S = 300.0
THREADS = 200
SETTINGS = {
    "HEADRACE_POOLS__CHAT__MODEL": LARGE,
    "HEADRACE_POOLS__CHAT__MAX_RUNNING": str(SLOTS),
    "HEADRACE_POOLS__FAST__MODEL": FAST,
    "HEADRACE_POOLS__FAST__MAX_RUNNING": str(SLOTS),
    "HEADRACE_POOLS__FAST__LATENCY_GOAL_S": str(GOAL_S),
    "HEADRACE_POOLS__FAST__DRAIN_JOBS_PER_S": str(DRAIN_JOBS_PER_S),
    "HEADRACE_SIMULATOR__DECODE_TOKENS_PER_S": str(TOKENS_PER_S),
    "HEADRACE_SIMULATOR__OUTPUT_TOKENS": str(BATCH_ANSWER),
    "HEADRACE_OBSERVE_EVERY_S": "1",
    "HEADRACE_WAIT_LIMIT_S": str(TIMEOUT_S),
}
WITHOUT = ("overflow", "webhooks", "flower")


@dataclass(frozen=True, slots=True)
class Calls:
    """What the callers of one phase saw.

    Attributes:
        answered_s: from the request to its whole answer, of each that was answered.
        refused_s: from the request to its refusal.
        others: of the rest, how often which status came.
    """

    answered_s: Sequence[float]
    refused_s: Sequence[float]
    others: Counter[int]

    @property
    def p95_s(self) -> float:
        """What 95 % of the answers stay within."""
        return percentile(self.answered_s, 95)


class Callers:
    """Clients that wait for their answers, each started by the clock, whatever became of the one before."""

    def __init__(self, bed: Testbed) -> None:
        self._address, self._key = urlsplit(bed.url), bearer(bed.api_key)

    def run(
        self, number: int, every_s: float, model: str, lane: str = "high", max_wait_s: float | None = None
    ) -> Calls:
        """So many calls."""
        job = {"lane": lane} | ({} if max_wait_s is None else {"max_wait": max_wait_s})
        messages = [{"role": "user", "content": "Hello there"}]
        body = json.dumps({"model": model, "messages": messages, "max_tokens": ANSWER, "job": job}).encode()
        began = time.monotonic()
        with ThreadPoolExecutor(THREADS) as threads:
            calls = []
            for no in range(number):
                time.sleep(max(0.0, began + no * every_s - time.monotonic()))
                calls.append(threads.submit(self._call, body))
            found = [call.result() for call in calls]
        answered = [seconds for status, seconds in found if status == http.HTTPStatus.OK]
        refused = [seconds for status, seconds in found if status == http.HTTPStatus.TOO_MANY_REQUESTS]
        known = (http.HTTPStatus.OK, http.HTTPStatus.TOO_MANY_REQUESTS)
        return Calls(answered, refused, Counter(status for status, _ in found if status not in known))

    def _call(self, body: bytes) -> tuple[int, float]:
        began = time.monotonic()
        connection = http.client.HTTPConnection(self._address.hostname or "", self._address.port, timeout=TIMEOUT_S)
        try:
            headers = {**self._key, "Content-Type": "application/json"}
            connection.request("POST", "/v1/chat/completions", body, headers)
            response = connection.getresponse()
            response.read()
            return response.status, time.monotonic() - began
        finally:
            connection.close()


@contextmanager
def batch(bed: Testbed) -> Iterator[None]:
    """Keep all slots of the other pool in use, and `WAITING` batch jobs behind them."""
    body = json.dumps(
        {"model": LARGE, "prompt": "A long tale", "max_tokens": BATCH_ANSWER, "lane": "batch", "max_wait": LONG_S}
    ).encode()
    job = request("POST", "/v1/jobs", bearer(bed.api_key), body)
    over, is_full = threading.Event(), threading.Event()

    def feed() -> None:
        states = "count(*) FILTER (WHERE state = 'running'), count(*) FILTER (WHERE state = 'queued')"
        with bed.watching() as ask:
            while not over.wait(FEED_S):
                [(running, waiting)] = ask(f"SELECT {states} FROM jobs WHERE pool = 'chat' AND lane = 'batch'")
                if missing := max(0, WAITING + SLOTS - running - waiting):
                    drive([bed.url], repeat(job, missing), min(missing, 4))
                elif running:
                    is_full.set()

    with ThreadPoolExecutor(1) as thread:
        feeding = thread.submit(feed)
        try:
            wait_until(is_full.is_set, TIMEOUT_S, "The batch does not fill its pool.")
            yield
        finally:
            over.set()
            feeding.result()


def measure(prompts: int, off: str | None) -> dict[str, Calls]:
    """By phase, what its callers saw."""
    found = {}
    with Testbed(SETTINGS, WITHOUT) as bed:
        callers = Callers(bed)
        callers.run(WARM_UP, EVERY_S, FAST)
        console.print("the other pool is idle", style="dim")
        found["idle"] = callers.run(prompts, EVERY_S, FAST)
        with batch(bed):
            console.print("a batch saturates it", style="dim")
            found["saturated"] = callers.run(prompts, EVERY_S, FAST)
            console.print("and twice as many callers come as the fast pool can answer", style="dim")
            found["overload"] = callers.run(2 * prompts, OVERLOAD_EVERY_S, FAST)
            if off == "fast":
                console.print("without the fast pool: in lane high of the saturated pool", style="dim")
                found["off high"] = callers.run(prompts, EVERY_S, LARGE, max_wait_s=LONG_S)
                console.print("and in its lane batch", style="dim")
                found["off batch"] = callers.run(OFF_CALLERS, EVERY_S, LARGE, "batch", LONG_S)
    return found


def summary(found: dict[str, Calls]) -> dict[str, object]:
    """What the last line says."""
    idle, saturated, overload = found["idle"], found["saturated"], found["overload"]
    figures: dict[str, object] = {
        "p95_ratio": saturated.p95_s / idle.p95_s,
        "refused": len(saturated.refused_s),
    }
    if "off batch" in found:
        figures["p95_ratio_off"] = found["off batch"].p95_s / idle.p95_s
        figures["p95_ratio_off_high"] = found["off high"].p95_s / idle.p95_s
    return figures | {
        "p95_ms": 1000 * saturated.p95_s,
        "idle_p95_ms": 1000 * idle.p95_s,
        "overload_p95_of_goal": overload.p95_s / GOAL_S,
        "overload_answered": len(overload.answered_s),
        "overload_refused": len(overload.refused_s),
        "overload_refusal_p95_ms": 1000 * percentile(overload.refused_s, 95),
        "failed": sum(calls.others.total() for calls in found.values()),
    }


def show(found: dict[str, Calls]) -> None:
    """Every phase."""
    table = Table("", header_style="bold", title="milliseconds to the whole answer")
    for heading in ("answered", "refused", "others", "p50", "p95"):
        table.add_column(heading, justify="right")
    for name, calls in found.items():
        numbers = (len(calls.answered_s), len(calls.refused_s), calls.others.total())
        times = (f"{1000 * percentile(calls.answered_s, percent):.0f}" for percent in (50, 95))
        table.add_row(name, *map(str, numbers), *times)
    console.print(table)


@click.command()
@click.option("--prompts", type=click.IntRange(min=20), default=200, show_default=True, help="Callers of each phase.")
@click.option("--off", type=click.Choice(["fast"]), help="Then ask the same of the saturated pool, in two lanes.")
@click.option(
    "--json", "file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write every figure."
)
def main(prompts: int, off: str | None, file: Path | None) -> None:
    """Measure callers who wait for answers of a fast pool, beside an idle and beside a saturated pool.

    Starts a whole Headrace with two pools, each with a simulated engine of 8 slots. Callers in the lane high of the
    fast pool, which has a latency goal of 1 s, come by the clock and wait for answers of 20 tokens: first with nothing
    beside them, then while batch jobs fill the other pool and 64 more wait there, and then at twice the rate that the
    fast pool can answer. --off fast asks the same of the saturated pool instead: in its lane high, and in its lane
    batch.

    The last line is name=value pairs: p95_ratio, the p95 from request to answer beside the batch over that without it;
    refused, the callers refused beside the batch; p95_ratio_off and p95_ratio_off_high, those of the saturated pool's
    lanes batch and high; overload_p95_of_goal, the p95 of those that were answered under overload, over the goal. The
    status is 1 if p95_ratio is above 1.3, a caller was refused beside the batch, overload_p95_of_goal is above 1.1,
    no caller was refused under overload, or a call failed in any other way.

    \b
    bin/headrace python benchmarks/fast_path.py
    bin/headrace python benchmarks/fast_path.py --off fast --json figures.json
    """
    found = measure(prompts, off)
    show(found)
    figures = summary(found)
    if file is not None:
        phases = {name: asdict(calls) for name, calls in found.items()}
        file.write_text(json.dumps({"figures": figures, "phases": phases}, indent=2) + "\n")
    print(line_of(figures))
    is_good = (
        found["saturated"].p95_s <= MOST_RATIO * found["idle"].p95_s
        and not found["saturated"].refused_s
        and found["overload"].p95_s <= MOST_OF_GOAL * GOAL_S
        and found["overload"].refused_s
        and not figures["failed"]
    )
    sys.exit(0 if is_good else 1)


if __name__ == "__main__":
    main()
