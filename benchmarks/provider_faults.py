"""What becomes of jobs whose paid API misbehaves in every way that is known of, and what it costs.

The claim: each ends right, with the whole answer or its honest reason; a lost answer is tried again once, booked as
waste, and never charged to the app; and nothing is paid that the ledger does not know. The provider keeps its own bill.
"""

import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from bed.load import drive, request
from bed.testbed import Counts, Testbed, bearer, console, lanes, line_of, wait_until
from peers.faulty_api import FAULTS, LOCKS, TOKENS, Bill, FaultyApi, faulty_api

WITHOUT = ("webhooks", "beat", "flower")
SILENCE_S = 2.0
LONGEST_S = 180.0
CONNECTIONS = 32
WHOLE = "".join(f"w{number} " for number in range(TOKENS))


@dataclass(frozen=True, slots=True)
class Found:
    """What became of the accepted jobs that met one fault.

    Attributes:
        right: those that ended as they should: with the whole answer, or failed as `prompt_rejected`.
        charged: ledger entries that charge the app, of all these jobs.
        waste_usd: what the ledger books as spent for nothing.
        over_usd: what the ledger has more than the provider's bill: it books the most that a lost answer can cost.
    """

    fault: str
    jobs: int
    right: int
    calls: int
    charged: int
    waste_usd: Decimal
    over_usd: Decimal

    @property
    def calls_per_job(self) -> float:
        """Calls that the provider counted."""
        return self.calls / self.jobs


class Faults:
    """Puts jobs to the provider."""

    def __init__(self, bed: Testbed, api: FaultyApi, jobs: int) -> None:
        self._bed, self._api, self._jobs = bed, api, jobs
        self._key = bearer(bed.api_key)

    def each(self) -> Iterator[Found]:
        """Every fault that is one call's, all at the same time."""
        console.print(f"{len(FAULTS)} faults, {self._jobs} jobs each", style="dim")
        self._submit(list(FAULTS), "only")
        self._bed.wait_until_all_ended(LONGEST_S)
        for fault in FAULTS:
            yield self._found(fault, {"prompt_rejected"} if fault == "400" else set())

    def locked(self, lock: str) -> Iterator[Found]:
        """The account is locked out for a while: jobs that the own pool may answer, and such that it may not."""
        console.print(f"{lock}: the account is locked out, and let in again", style="dim")
        either, paid_alone, after = f"{lock}_allow", f"{lock}_only", f"{lock}_after"
        self._api.lock = lock
        self._submit([either], "allow")
        self._bed.wait_until_all_ended(LONGEST_S)
        # Until the door knows, it lets them in, and they fail.
        wait_until(lambda: self._submit([paid_alone], "only")[503], LONGEST_S, "The door stays open.")
        self._bed.wait_until_all_ended(LONGEST_S)
        yield self._found(either, set())
        yield self._found(paid_alone, {"engine_unavailable", "overflow_unavailable"})
        self._api.lock = None
        wait_until(lambda: self._submit([after], "only")[202], LONGEST_S, "The paid API stays closed.")
        self._bed.wait_until_all_ended(LONGEST_S)
        yield self._found(after, set())

    def _submit(self, faults: Sequence[str], overflow: str) -> Counter[int]:
        words = [f"{fault} {no}" for no in range(self._jobs) for fault in faults]
        jobs = [{"prompt": word, "max_tokens": 64, "overflow": overflow, "max_wait": 3600} for word in words]
        bodies = (request("POST", "/v1/jobs", self._key, json.dumps(job).encode()) for job in jobs)
        statuses = drive([self._bed.url], bodies, CONNECTIONS).statuses
        if set(statuses) - {202, 503}:
            raise click.ClickException(f"Submits were answered with {dict(statuses)}.")
        return statuses

    def _found(self, fault: str, reasons: set[str]) -> Found:
        """What became of it. Args: reasons: what its jobs fail with; none where they succeed."""
        jobs = """
            SELECT j.id, j.state, j.route, j.error_code, t.answer FROM jobs j JOIN job_texts t ON t.job_id = j.id
            WHERE split_part(t.messages->0->>'content', ' ', 1) = %s
        """
        rows = self._bed.sql(jobs, fault)
        right = 0
        for _, state, route, code, answer in rows:
            is_whole = state == "succeeded" and (answer == WHOLE or route == "pool")
            right += (state == "failed" and code in reasons) if reasons else is_whole
        [(charged, waste_usd, usd)] = self._bed.sql(
            """
            SELECT count(*) FILTER (WHERE kind IN ('api', 'compute')),
                coalesce(sum(usd) FILTER (WHERE kind = 'waste'), 0),
                coalesce(sum(usd) FILTER (WHERE kind <> 'compute'), 0) FROM ledger WHERE job_id = ANY(%s)
            """,
            [row[0] for row in rows],
        )
        bill = self._api.bills.get(fault, Bill())
        return Found(fault, len(rows), right, bill.calls, charged, waste_usd, usd - bill.usd)


def measure(jobs: int, *, retries: bool) -> tuple[list[Found], Counts]:
    """All faults on one stack, and what became of all jobs."""
    with faulty_api() as api:
        settings = {
            **lanes(depth_cap=100_000),
            "OPENAI_API_KEY": "sk-stand-in",
            "OPENAI_BASE_URL": f"{api.url}/v1",
            "HEADRACE_OVERFLOW__TIMEOUT_S": str(SILENCE_S),
            "HEADRACE_OVERFLOW__MAX_RUNNING": "64",
            # A small pool of our own, which spills at once.
            "HEADRACE_OVERFLOW__SPILL_DEPTH": "1",
            "HEADRACE_POOLS__CHAT__MAX_RUNNING": "4",
        }
        if not retries:
            settings["HEADRACE_MAX_ATTEMPTS"] = "1"
        with Testbed(settings, WITHOUT) as bed:
            faults = Faults(bed, api, jobs)
            found = list(faults.each())
            for lock in LOCKS if retries else ():
                found += faults.locked(lock)
            return found, bed.count()


def show(found: Sequence[Found], title: str) -> None:
    """One line for each fault."""
    table = Table("the provider's fault", header_style="bold", title=title)
    for heading in ("jobs", "ended right", "calls a job", "charged", "waste USD", "over the bill USD"):
        table.add_column(heading, justify="right")
    for each in found:
        counts = (str(each.jobs), str(each.right), f"{each.calls_per_job:.2f}" if each.jobs else "-", str(each.charged))
        table.add_row(each.fault, *counts, f"{each.waste_usd:.6f}", f"{each.over_usd:.6f}")
    console.print(table)


def summary(found: Sequence[Found]) -> dict[str, Any]:
    """What the last line says."""
    of_one_call = [each for each in found if each.fault in FAULTS]
    return {
        "right_share": sum(each.right for each in found) / sum(each.jobs for each in found),
        "calls_per_job": sum(each.calls for each in of_one_call) / sum(each.jobs for each in of_one_call),
        "wasted_usd": f"{sum(each.waste_usd for each in found):f}",
        "charged_twice": sum(max(0, each.charged - each.jobs) for each in found),
        "unbooked_usd": f"{sum(max(Decimal(0), -each.over_usd) for each in found):f}",
    }


@click.command()
@click.option("--jobs", type=click.IntRange(min=1), default=20, show_default=True, help="For each fault.")
@click.option("--off", type=click.Choice(["retries"]), help="Once more, with one attempt for each job.")
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write figures.")
def main(jobs: int, off: str | None, file: Path | None) -> None:
    """Let a paid API fail in every known way, and see what becomes of the jobs and what it costs.

    Starts a stack with an overflow worker, a small simulated pool and a provider that fails the first call of each
    prompt: 429 with and without Retry-After, 500, 503, silence, a reset before and in the answer, a stream that is cut
    off, a malformed chunk, wrong JSON, no usage, a rejection; then it locks the whole account out, and lets it in.

    The last line is name=value pairs: right_share, of the jobs, those that ended as they should; calls_per_job, by the
    provider's count, where it failed one call of each; wasted_usd, what the ledger books as spent for nothing;
    charged_twice, entries that charge an app beyond one a job; unbooked_usd, what the provider charged and the ledger
    does not know; with --off retries, the share without them; and what became of all jobs. The status is 1 when a
    job ended wrong, was charged twice, or anything is unbooked.

    \b
    bin/headrace python benchmarks/provider_faults.py
    bin/headrace python benchmarks/provider_faults.py --off retries
    """
    found, counts = measure(jobs, retries=True)
    show(found, "Each fault once a job")
    figures = summary(found)
    if off:
        without, _ = measure(jobs, retries=False)
        show(without, "With one attempt for each job")
        figures["right_share_off"] = summary(without)["right_share"]
    figures |= asdict(counts)
    if file is not None:
        faults = [asdict(each) for each in found]
        file.write_text(json.dumps({"figures": figures, "faults": faults}, indent=2, default=str) + "\n")
    print(line_of(figures))
    is_met = figures["right_share"] == 1 and not figures["charged_twice"] and not Decimal(figures["unbooked_usd"])
    sys.exit(0 if is_met else 1)


if __name__ == "__main__":
    main()
