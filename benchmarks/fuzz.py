"""Whether any request makes the API fail: calls made up from its whole OpenAPI document, against real processes.

The claim: of 50,000 calls none is answered with a 5xx that is the server's fault, and every answer is as the document
says. Knows the system from outside: HTTP.
"""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Thread
from typing import Any

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from bed.testbed import Testbed, console, line_of, patched
from peers import python_path

#: Processes that make calls.
CALLERS = 2
#: Ends of a job that its caller asked for, by a max_wait or a deadline that is over at once, or by `Prefer: wait=0`.
HONEST_ENDS = frozenset({"expired", "deadline_exceeded", "wait_timeout"})
POOLS = {"embed": {"model": "embeds", "engine": "simulator", "serves": "embeddings"}}
#: Nothing is held open for long.
ENV = {
    "HEADRACE_POOLS": json.dumps(POOLS),
    "HEADRACE_WAIT_LIMIT_S": "5",
    "HEADRACE_SIMULATOR__DECODE_TOKENS_PER_S": "5000",
    # One app makes all calls.
    "HEADRACE_CALLS_PER_MINUTE": str(10**9),
}
OFF = Path(__file__).parent / "bed" / "fuzz" / "off"


class Caller:
    """A process that makes calls. Attributes: calls: so far. told: what came of them, once it has ended."""

    def __init__(self, bed: Testbed, seed: int, calls: int) -> None:
        self.calls, self.told = 0, dict[str, Any]()
        command = [sys.executable, "-m", "bed.fuzz.calls", bed.url, bed.api_key, str(seed), str(calls)]
        env = {"PATH": "/usr/bin:/bin", "PYTHONPATH": python_path({}), "HOME": str(bed.folder)}
        self._process = subprocess.Popen(command, cwd=bed.folder, env=env, stdout=subprocess.PIPE, text=True)
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.told = json.loads(line)
            self.calls = self.told["calls"]

    def end(self) -> dict[str, Any]:
        """What came of its calls. Raises: ClickException: it failed."""
        self._reader.join()
        if self._process.wait() or "statuses" not in self.told:
            raise click.ClickException("A process that makes calls failed: its error is above.")
        return self.told

    def stop(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()


def run(bed: Testbed, seed: int, calls: int) -> list[dict[str, Any]]:
    """Make the calls, behind a progress bar."""
    callers = [Caller(bed, seed + number, calls // CALLERS) for number in range(CALLERS)]
    columns = TextColumn("calls"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    try:
        with Progress(*columns, console=console) as progress:
            bar = progress.add_task("", total=calls)
            while any(caller._reader.is_alive() for caller in callers):
                callers[0]._reader.join(1)
                progress.update(bar, completed=sum(caller.calls for caller in callers))
        return [caller.end() for caller in callers]
    finally:
        for caller in callers:
            caller.stop()


def summed(told: Sequence[Mapping[str, Any]], name: str) -> Counter[str]:
    """The counters of all callers."""
    found: Counter[str] = Counter()
    for each in told:
        found.update(each[name])
    return found


@click.command()
@click.option("--calls", type=click.IntRange(100), default=50_000, show_default=True, help="Calls to make, at least.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="The first of the seeds.")
@click.option("--off", type=click.Choice(["unicode"]), help="Leave out the check for what Postgres cannot hold.")
@click.option(
    "--json", "file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write every figure."
)
def main(calls: int, seed: int, off: str | None, file: Path | None) -> None:
    """Make calls up from the whole OpenAPI document, and count the answers that no client should get.

    Starts a whole Headrace on the simulator, with a pool for prompts and one for embeddings. Two processes call it,
    each with seeds of its own: Schemathesis's examples, bounds, random bodies within and outside the schemas, and calls
    that follow from the answers of others. `server_errors` counts 5xx and calls without an answer, but not a job's end
    that its caller asked for (`expired`, `deadline_exceeded`, `wait_timeout`). `nonconforming` counts answers that are
    not as the document says. The status is 1 unless both are 0.

    \b
    bin/headrace python benchmarks/fuzz.py
    bin/headrace python benchmarks/fuzz.py --calls 4000 --off unicode
    """
    env = ENV | (patched(OFF) if off else {})
    with Testbed(env, without=("flower", "webhooks", "overflow")) as bed:
        told = run(bed, seed, calls)
    errors = summed(told, "server_errors")
    unexpected = {code: count for code, count in errors.items() if code not in HONEST_ENDS}
    failures = [failure for each in told for failure in each["failures"]]
    for failure in failures:
        console.print(failure, markup=False)
    console.print(f"statuses: {dict(sorted(summed(told, 'statuses').items()))}; 5xx by code: {dict(errors)}")
    figures = {
        "calls": sum(each["calls"] for each in told),
        "operations": len({operation for each in told for operation in each["operations"]}),
        "server_errors": sum(unexpected.values()),
        "honest_ends": errors.total() - sum(unexpected.values()),
        "nonconforming": sum(each["failed"] for each in told),
        "gave_up": sum(each["gave_up"] for each in told),
    }
    if file is not None:
        file.write_text(json.dumps({"figures": figures, "callers": told}, indent=2) + "\n")
    print(line_of(figures))
    sys.exit(1 if figures["server_errors"] or figures["nonconforming"] else 0)


if __name__ == "__main__":
    main()
