"""Send lines to the provider's batch tier while its batches go wrong, and compare the ledger with its bill.

The claim: each line ends once and right, whatever the provider left out, returned twice or made up; and what it billed
and did not return is booked, to the last digit. The provider keeps its own bill.
"""

import json
import sys
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from http import HTTPStatus
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent.parent))

from bed.batches.client import ENDPOINT, BatchClient
from bed.testbed import Counts, Testbed, console, line_of, patched, wait_until
from plugins.batches.tests.batch_provider import BatchProvider, Reply
from tests.contracts.conftest import StandIn

#: By fault, the number of lines that the provider answers, of those in a batch. `none` is no fault.
ANSWERED = {
    "none": lambda lines: lines,
    "expires": lambda lines: lines // 2,
    "fails": lambda _: 0,
    "fails_in_part": lambda lines: lines - 1,
    "rejects": lambda lines: lines - 1,
    "drops": lambda lines: lines - 1,
    "twice": lambda lines: lines,
    "unknown": lambda lines: lines,
    "bills_more": lambda lines: lines,
    "malformed": lambda lines: lines - 1,
    "garbage": lambda lines: lines,
    "late": lambda lines: lines,
}
#: Lines of these end as `failed`: one of each batch.
REJECTED = ("rejects",)
WITHOUT = ("gpu", "webhooks", "flower", "ops")
#: USD per 1,000,000 tokens of a prompt and of an answer, and the factor of the tier.
PRICE, TIER = (Decimal(10), Decimal(100)), Decimal("0.5")
#: Seconds until a call without an answer is given up, and until a `late` create answers. Its batch is listed only
#: then, which is later than the next look for it.
SILENT_S, LATE_S = 6, 20
SETTINGS = f"""
[overflow]
model = "gpt-4o-mini"
timeout_s = {SILENT_S}

[batches]
provider_tier = true
provider_poll_s = 1

[prices."gpt-4o-mini"]
input_usd_per_mtok = "{PRICE[0]}"
output_usd_per_mtok = "{PRICE[1]}"
tiers = {{ batch = "{TIER}" }}
version = "v1"
source = "benchmark"
"""
#: By mechanism that can be taken away, the figure that shows it.
OFF = {"settlement": "unbooked_usd", "lookup": "charged_twice"}
OFF_FOLDER = Path(__file__).parent / "bed" / "batches" / "off"
ANSWER_TOKENS, LONGEST_S = 16, 300.0
_ENDED = "SELECT count(*) FROM provider_batches WHERE state = 'ended'"
_LINES = """
    SELECT count(*), count(*) FILTER (WHERE state = 'succeeded'), count(*) FILTER (WHERE state = 'failed'),
           (SELECT count(*) FROM batch_lines WHERE job_id = ANY (array_agg(jobs.id)))
    FROM jobs WHERE notes->>'batches' = 'batch_' || replace(%s::text, '-', '')
"""
_CHARGES = """
    SELECT count(*), count(DISTINCT job_id), count(*) FILTER (WHERE price_version LIKE '%%/batch'),
           coalesce(sum(usd) FILTER (WHERE price_version LIKE '%%/batch'), 0) FROM ledger
    WHERE kind = 'api' AND job_id IN (
        SELECT id FROM jobs WHERE notes->>'batches' = 'batch_' || replace(%s::text, '-', '')
    )
"""
_WASTE = "SELECT coalesce(sum(unreturned_usd), 0) FROM provider_batches WHERE batch_id = %s"
#: All that the ledger has of the provider's batches, and what is still reserved.
_BOOKED = """
    SELECT (SELECT coalesce(sum(usd), 0) FROM ledger WHERE price_version LIKE '%/batch'),
           (SELECT coalesce(sum(reserved_usd), 0) FROM budgets)
"""


@dataclass
class FaultyProvider(BatchProvider):
    """Each batch meets the fault that the prompt of its first line begins with.

    Attributes:
        bills: USD, by fault.
        batches_of: how many batches of the lines of each fault it has run.
    """

    bills: dict[str, Decimal] = field(default_factory=dict)
    batches_of: Counter[str] = field(default_factory=Counter)

    def _create(self, asked: dict[str, Any]) -> Reply:
        status, made = reply = super()._create(asked)
        is_first = len(self.lines) == len({self._fault(name) for name in self.lines})
        if status == HTTPStatus.OK and isinstance(made, dict) and is_first and self._fault(made["id"]) == "late":
            self.hidden.add(made["id"])
            threading.Event().wait(LATE_S)
            self.hidden.discard(made["id"])
        return reply

    def _fault(self, name: str) -> str:
        """Returns the fate of the batch of this name."""
        prompt: str = json.loads(self.lines[name].splitlines()[0])["body"]["messages"][-1]["content"]
        return prompt.split()[0]

    def run_out(self) -> None:
        """End what still runs, as a provider does with what is not cancelled."""
        for batch in self.batches.values():
            self._looked_at(batch)

    def _end(self, batch: dict[str, Any], status: str) -> None:
        fault = self._fault(batch["id"])
        before, self.faults = list(self.billed), {fault}
        super()._end(batch, status)
        self.batches_of[fault] += 1
        tokens = (now - then for now, then in zip(self.billed, before, strict=True))
        usd = sum(number * price for number, price in zip(tokens, PRICE, strict=True)) * TIER / 1_000_000
        self.bills[fault] = self.bills.get(fault, Decimal()) + usd


@dataclass(frozen=True, slots=True)
class Found:
    """What became of the lines of a batch that met one fault.

    Attributes:
        right: those that ended as they should, if each has one job, and the provider answered as many as it did.
        answered: those that the provider's batch answered.
        twice: entries that charge a line again, and lines that the provider ran in a second batch.
        booked_usd: what the batch's answers cost.
        unreturned_usd: what is booked beyond the answers.
    """

    fault: str
    lines: int
    right: int
    answered: int
    twice: int
    booked_usd: Decimal
    unreturned_usd: Decimal
    billed_usd: Decimal


@dataclass(frozen=True, slots=True)
class Outcome:
    """A whole run. Attributes: unbooked_usd: the provider's bill less what the ledger has of it."""

    found: Sequence[Found]
    counts: Counts
    unbooked_usd: Decimal
    reserved_usd: Decimal

    @property
    def figures(self) -> dict[str, Any]:
        """What the last line says."""
        return {
            "right_share": sum(each.right for each in self.found) / sum(each.lines for each in self.found),
            "charged_twice": sum(each.twice for each in self.found),
            "unbooked_usd": f"{self.unbooked_usd.normalize():f}",
            "reserved_usd": f"{self.reserved_usd.normalize():f}",
        }


def measure(lines: int, env: Mapping[str, str]) -> Outcome:
    """A batch for each fault, all at once. What the provider's batch does not answer, a single call does."""
    with TemporaryDirectory(prefix="headrace-provider-") as folder, closing(StandIn()) as server:
        settings = Path(folder) / "headrace.toml"
        settings.write_text(SETTINGS)
        server.batches = provider = FaultyProvider()
        paid = {"OPENAI_API_KEY": "sk-stand-in", "OPENAI_BASE_URL": server.url}
        with Testbed({"HEADRACE_CONFIG": str(settings), **paid, **env}, WITHOUT, has_batches=True) as bed:
            with closing(BatchClient(bed.stack.report)) as client:
                # All lines go to the provider at once, and those that come back are single calls to it.
                begun = {fault: client.begin(_file(Path(folder), fault, lines), overflow="only") for fault in ANSWERED}
            console.print(f"{len(begun)} batches of {lines} lines go to the provider", style="dim")
            wait_until(lambda: bed.sql(_ENDED)[0][0] >= len(begun), LONGEST_S, "The provider's batches do not end.")
            provider.run_out()
            bed.wait_until_all_ended(LONGEST_S)
            found = [_found(bed, fault, batch_id, lines, provider) for fault, batch_id in begun.items()]
            [(booked_usd, reserved_usd)] = bed.sql(_BOOKED)
            return Outcome(found, bed.count(), sum(provider.bills.values()) - booked_usd, reserved_usd)


def _file(folder: Path, fault: str, lines: int) -> Path:
    path = folder / f"{fault}.jsonl"
    with path.open("w") as file:
        for number in range(lines):
            body = {"messages": [{"role": "user", "content": f"{fault} {number}"}], "max_tokens": ANSWER_TOKENS}
            line = {"custom_id": f"line-{number}", "method": "POST", "url": ENDPOINT, "body": body}
            file.write(json.dumps(line) + "\n")
    return path


def _found(bed: Testbed, fault: str, name: str, lines: int, provider: FaultyProvider) -> Found:
    batch_id = name.removeprefix("batch_")
    [(jobs, succeeded, failed, names)] = bed.sql(_LINES, batch_id)
    [(charged, charged_jobs, answered, usd)] = bed.sql(_CHARGES, batch_id)
    [(unreturned_usd,)] = bed.sql(_WASTE, batch_id)
    rejected = 1 if fault in REJECTED else 0
    is_right = jobs == names == lines and failed == rejected and answered == ANSWERED[fault](lines)
    right = succeeded + failed if is_right else 0
    twice = charged - charged_jobs + lines * max(0, provider.batches_of[fault] - 1)
    return Found(fault, lines, right, answered, twice, usd, unreturned_usd, provider.bills.get(fault, Decimal()))


def show(outcome: Outcome, title: str) -> None:
    """One line for each fault."""
    table = Table("the provider's fault", header_style="bold", title=title)
    for heading in ("lines", "ended right", "by the batch", "charged twice", "USD", "not returned USD", "bill USD"):
        table.add_column(heading, justify="right")
    for each in outcome.found:
        counts = (each.lines, each.right, each.answered, each.twice)
        usd = (each.booked_usd, each.unreturned_usd, each.billed_usd)
        table.add_row(each.fault, *map(str, counts), *(f"{amount:f}" for amount in usd))
    console.print(table)


@click.command()
@click.option("--lines", type=click.IntRange(min=2), default=50, show_default=True, help="Of each fault's batch.")
@click.option(
    "--off",
    type=click.Choice(list(OFF)),
    multiple=True,
    help="Once more, without: settlement, which compares the provider's bill; lookup, of a batch that may be made.",
)
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write figures.")
def main(lines: int, off: Sequence[str], file: Path | None) -> None:
    """Send batches to a provider whose batches go wrong in every known way, and compare the ledger with its bill.

    Starts a stack whose lines only the paid API answers, and a provider that keeps a bill. Each batch meets one fault:
    it expires halfway, fails as a whole, fails in part, rejects a line, leaves one out, answers one twice, answers a
    line that was never sent, bills tokens that no line has, or returns what cannot be read; or the call that makes it
    answers late, and it is listed as late. What comes back is a single call each.

    The last line is name=value pairs: right_share, of the lines, those that ended once and as they should;
    charged_twice, entries that charge a line again, and lines that ran in two of the provider's batches; unbooked_usd,
    the provider's bill less what the ledger has of its batches; reserved_usd, what is still reserved at the end; with
    --off settlement, what is not booked where only the answers are; with --off lookup, what is charged twice where a
    batch is asked for again at once; and what became of all jobs. The status is 1 if a line ended wrong or was charged
    twice, if the ledger is not the bill, if anything is reserved, or if a mechanism that is off changes nothing.

    \b
    bin/headrace python benchmarks/provider_batches.py
    bin/headrace python benchmarks/provider_batches.py --off settlement --off lookup
    """
    outcome = measure(lines, {})
    show(outcome, "Each fault in a batch of its own")
    figures = outcome.figures
    is_met = figures["right_share"] == 1 and not figures["charged_twice"]
    is_met = is_met and not outcome.unbooked_usd and not outcome.reserved_usd
    for name in off:
        without = measure(lines, patched(OFF_FOLDER) | {"BATCH_OFF": name})
        show(without, f"Without the {name}")
        figures[f"{OFF[name]}_off"] = without.figures[OFF[name]]
        is_met = is_met and float(without.figures[OFF[name]]) > 0
    figures |= asdict(outcome.counts)
    if file is not None:
        faults = [asdict(each) for each in outcome.found]
        file.write_text(json.dumps({"figures": figures, "faults": faults}, indent=2, default=str) + "\n")
    print(line_of(figures))
    sys.exit(0 if is_met else 1)


if __name__ == "__main__":
    main()
