"""Whether a budget can be overspent: many jobs at once for a paid API, until the money is gone.

The claim: what the provider charges never exceeds the budget, and little of the budget stays unused, however many calls
are under way. The provider keeps its own bill. Knows the system from outside: HTTP, the command line, SQL.
"""

import json
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
from rich.table import Table

from bed.load import drive, request
from bed.testbed import Testbed, bearer, console, lanes, line_of, rounds
from peers.paid_api import paid_api, usd

WITHOUT = ("gpu", "webhooks", "beat", "flower")
MAX_TOKENS = 64
#: How many times the most that one job may cost the budget holds, and how many times that is offered.
JOBS_IN_BUDGET, OFFERED = 400, 3
PROMPT = "Write one line about each of the rivers of the world, beginning with the longest of them. Number {no}."
#: After a refusal, in seconds.
PAUSE_S = 2.5
LONGEST_ROUND_S = 300.0


@dataclass(frozen=True, slots=True)
class Round:
    """One budget, spent.

    Attributes:
        bill_usd: what the provider counted.
        booked_usd: what the ledger says that the app's calls have cost.
        refused: submits that were told that no money is left.
        failed: jobs that were accepted and came too late for it.
    """

    cap_usd: Decimal
    bill_usd: Decimal
    booked_usd: Decimal
    submitted: int
    succeeded: int
    failed: int
    refused: int
    other: int

    @property
    def share(self) -> float:
        """Of the budget, what the provider charged."""
        return float(self.bill_usd / self.cap_usd)

    @property
    def overspent_usd(self) -> Decimal:
        """What it charged beyond the budget."""
        return max(Decimal(0), self.bill_usd - self.cap_usd)


class Spender:
    """Offers an app more than its budget pays."""

    def __init__(self, bed: Testbed, provider: str, callers: int) -> None:
        self._bed, self._provider, self._callers = bed, provider, callers

    def spend(self, name: str, cap_usd: Decimal, *, is_capped: bool) -> Round:
        """Make an app with this budget, or with none, and submit until all is offered."""
        key = self._bed.make_key(name)
        if is_capped:
            self._bed.sql("UPDATE apps SET day_usd = %s WHERE name = %s", cap_usd, name)
        before, statuses = self._bill(), Counter[str]()
        for _ in range(OFFERED * JOBS_IN_BUDGET // (2 * self._callers)):
            answers = self._submit(key)
            statuses += answers
            self._bed.wait_until_all_ended(LONGEST_ROUND_S)
            if answers["budget_exceeded"]:
                # The door counts for a moment what it has just let in.
                time.sleep(PAUSE_S)
        return self._round(name, cap_usd, self._bill() - before, statuses)

    def _submit(self, key: str) -> Counter[str]:
        """Twice as many jobs as callers, at once: what became of the submits."""
        bodies = (self._body(key, no) for no in range(2 * self._callers))
        answers = drive([self._bed.url], bodies, self._callers).answers
        return Counter("accepted" if answer.status == 202 else _code(answer.body) for answer in answers)

    def _body(self, key: str, no: int) -> bytes:
        job = {"prompt": PROMPT.format(no=no), "max_tokens": MAX_TOKENS, "overflow": "only", "max_wait": 3600}
        return request("POST", "/v1/jobs", bearer(key), json.dumps(job).encode())

    def _bill(self) -> Decimal:
        with urllib.request.urlopen(f"{self._provider}/bill") as answer:
            return usd(json.load(answer))

    def _round(self, name: str, cap_usd: Decimal, bill_usd: Decimal, statuses: Counter[str]) -> Round:
        booked = "SELECT coalesce(sum(l.usd), 0) FROM ledger l JOIN apps a ON a.id = l.app_id WHERE a.name = %s"
        states = "SELECT state, count(*) FROM jobs j JOIN apps a ON a.id = j.app_id WHERE a.name = %s GROUP BY 1"
        ended: dict[str, int] = dict(self._bed.sql(states, name))  # type: ignore[arg-type]
        refused = statuses["budget_exceeded"]
        return Round(
            cap_usd=cap_usd,
            bill_usd=bill_usd,
            booked_usd=self._bed.sql(booked, name)[0][0],
            submitted=statuses.total(),
            succeeded=ended.get("succeeded", 0),
            failed=ended.get("failed", 0),
            refused=refused,
            other=statuses.total() - refused - sum(ended.values()),
        )


def _code(body: bytes) -> str:
    return str(json.loads(body)["error"]["code"])


def measure(repeat: int, callers: int, *, is_capped: bool) -> Iterator[Round]:
    """Spend this number of budgets, each of a new app."""
    # The provider's price is that of headrace.toml, so that a budget in USD is one in its tokens.
    most_usd = (Decimal(len(PROMPT) + 24) * Decimal("0.15") + MAX_TOKENS * Decimal("0.60")) / 1_000_000
    with TemporaryDirectory(prefix="headrace-budget-") as folder, paid_api(Path(folder), tokens=48) as provider:
        settings = {
            **lanes(depth_cap=100_000),
            "OPENAI_API_KEY": "sk-stand-in",
            "OPENAI_BASE_URL": f"{provider}/v1",
            "HEADRACE_OVERFLOW__MAX_RUNNING": str(callers),
        }
        with Testbed(settings, WITHOUT) as bed:
            spender = Spender(bed, provider, callers)
            kind = "with" if is_capped else "without"
            for no in rounds(repeat, lambda no: f"{kind} a budget, run {no} of {repeat}"):
                yield spender.spend(f"{kind}-{no}", most_usd * JOBS_IN_BUDGET, is_capped=is_capped)


def show(found: list[Round], off: list[Round]) -> None:
    """One line a run."""
    table = Table("run", header_style="bold", title="one app's budget of a day, and what the provider charged")
    for heading in ("budget USD", "bill USD", "share", "ledger USD", "succeeded", "failed", "refused"):
        table.add_column(heading, justify="right")
    for name, group in (("", found), ("off ", off)):
        for no, each in enumerate(group, 1):
            amounts = f"{each.cap_usd:.6f}", f"{each.bill_usd:.6f}", f"{each.share:.4f}", f"{each.booked_usd:.6f}"
            table.add_row(f"{name}{no}", *amounts, str(each.succeeded), str(each.failed), str(each.refused))
    console.print(table)


def summary(found: list[Round], off: list[Round]) -> dict[str, Any]:
    """What the last line says."""
    figures: dict[str, Any] = {
        "overspend_usd": f"{sum(each.overspent_usd for each in found):f}",
        "least_share": min(each.share for each in found),
        "most_share": max(each.share for each in found),
        "ledger_minus_bill_usd": f"{sum(each.booked_usd - each.bill_usd for each in found):f}",
    }
    if off:
        figures["share_off"] = min(each.share for each in off)
    counts = {name: sum(getattr(each, name) for each in found) for name in ("submitted", "refused", "other")}
    ended = {name: sum(getattr(each, name) for each in found) for name in ("succeeded", "failed")}
    return figures | counts | {"accepted": sum(ended.values()), **ended, "expired": 0}


@click.command()
@click.option("--repeat", type=click.IntRange(min=1), default=10, show_default=True, help="Budgets to spend.")
@click.option("--callers", type=click.IntRange(min=1), default=32, show_default=True, help="Calls under way at once.")
@click.option("--off", type=click.Choice(["budget"]), help="Spend one more without a limit.")
@click.option(
    "--json", "file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write every figure."
)
def main(repeat: int, callers: int, off: str | None, file: Path | None) -> None:
    """Spend an app's budget at a paid API with many calls at once, and read the provider's own bill.

    Starts a stack in a temporary folder, with an overflow worker and no GPU worker, and a stand-in for the paid API
    that streams and counts. Each run makes an app with a budget, and submits three times as many jobs as it can pay.

    The last line is name=value pairs: overspend_usd, what the provider charged beyond the budgets, in all runs;
    least_share and most_share, of a budget, what it charged; what the ledger has more than the bill; with --off budget,
    the share without a limit; and what became of all submits and jobs. The status is 1 when anything was overspent, a
    share is below 0.95, the ledger is not the bill, or a job had another end.

    \b
    bin/headrace python benchmarks/budget.py
    bin/headrace python benchmarks/budget.py --off budget --json figures.json
    """
    found = list(measure(repeat, callers, is_capped=True))
    without = list(measure(1, callers, is_capped=False)) if off else []
    show(found, without)
    figures = summary(found, without)
    if file is not None:
        runs = {"runs": [asdict(each) for each in found], "off": [asdict(each) for each in without]}
        file.write_text(json.dumps({"figures": figures, **runs}, indent=2, default=str) + "\n")
    print(line_of(figures))
    is_met = all(not each.overspent_usd and each.share >= 0.95 and each.booked_usd == each.bill_usd for each in found)
    sys.exit(0 if is_met and figures["other"] == 0 else 1)


if __name__ == "__main__":
    main()
