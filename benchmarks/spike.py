"""A launch day: ten times what the own pool can do, for minutes, against real processes and a stand-in paid API.

The claim: the door stays honest and up, what it accepts is answered, the paid API takes what the pool cannot, within
its budget, and nothing any more afterwards. Knows the system from outside: HTTP, SQL, the provider's own bill.
"""

import json
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
from rich.table import Table

from bed.load import drive, request
from bed.reconciliation import LARGEST, reconcile
from bed.testbed import Testbed, bearer, console, line_of, wait_until
from headrace.store.money.cost_hours import Reconciliation
from peers.paid_api import paid_api, usd

WITHOUT = ("webhooks", "flower")
#: The own pool: answers at once, the tokens of each, and tokens a second.
SLOTS, TOKENS, TOKENS_PER_S = 16, 32, 16
#: Of the one host on which the pool runs.
USD_PER_HOUR = "4.10"
CAPACITY_PER_S = SLOTS / (TOKENS / TOKENS_PER_S)
#: Load before and after, as a share of the capacity, and for how long.
CALM, BEFORE_S, AFTER_S = 0.5, 20.0, 60.0
#: Of one answer of the paid API here: 6 prompt and 24 output tokens.
PAID_USD = Decimal("0.0000153")
TICK_S = 0.2
#: Seconds of one line of the table.
LINE_S = 15.0
LONGEST_END_S = 120.0


@dataclass(frozen=True, slots=True)
class Plan:
    """The shape of the load: a multiple of the capacity, its length, and the most that it may cost."""

    times: float
    seconds: float
    cap_usd: Decimal | None

    @property
    def whole_s(self) -> float:
        """All of it."""
        return BEFORE_S + self.seconds + AFTER_S

    def rate(self, at_s: float) -> float:
        """Jobs a second that are offered then."""
        is_spike = BEFORE_S <= at_s < BEFORE_S + self.seconds
        return CAPACITY_PER_S * (self.times if is_spike else CALM)


@dataclass(slots=True)
class Run:
    """What came of one load.

    Attributes:
        lines: statuses of the answers by the time of their submit.
        bills: the ledger beside the provider's bill and the hosts'.
    """

    plan: Plan
    began: float
    bills: Reconciliation | None = None
    lines: dict[int, Counter[int]] = field(default_factory=dict)
    bill_usd: Decimal = Decimal(0)
    rows: list[dict[str, Any]] = field(default_factory=list)

    @property
    def statuses(self) -> Counter[int]:
        """Of all answers."""
        return sum(self.lines.values(), Counter())

    def share(self, name: str, value: str) -> float:
        """Of the accepted jobs, those with this value."""
        return sum(row["jobs"] for row in self.rows if row[name] == value) / sum(row["jobs"] for row in self.rows)

    @property
    def back_after_s(self) -> float:
        """From the end of the spike until the last job was sent to the paid API."""
        last = max((row["last"] for row in self.rows if row["route"] == "overflow"), default=0.0)
        return float(max(0.0, last - self.began - BEFORE_S - self.plan.seconds))


def offer(bed: Testbed, plan: Plan) -> Run:
    """Submit by the clock, whatever becomes of it, until the plan is over and nothing is open."""
    key, run, owed = bearer(bed.api_key), Run(plan, time.time()), 0.0
    began = time.monotonic()
    number = 0
    while (at_s := time.monotonic() - began) < plan.whole_s:
        owed += plan.rate(at_s) * TICK_S
        count = int(owed)
        owed -= count
        if count:
            bodies = [_body(key, number + no) for no in range(count)]
            line = run.lines.setdefault(int(at_s / LINE_S), Counter())
            line.update(drive([bed.url], iter(bodies), count).statuses)
            number += count
        time.sleep(max(0.0, began + (at_s // TICK_S + 1) * TICK_S - time.monotonic()))
    wait_until(lambda: not bed.open_jobs(), LONGEST_END_S, None)
    return run


def _body(key: dict[str, str], number: int) -> bytes:
    job = {"prompt": f"What is a headrace? {number}", "max_tokens": TOKENS, "lane": "normal"}
    return request("POST", "/v1/jobs", key, json.dumps(job).encode())


def measure(plan: Plan) -> tuple[Run, list[dict[str, Any]]]:
    """The run, and what started where in each line of the table."""
    with TemporaryDirectory(prefix="headrace-spike-") as folder, paid_api(Path(folder), tokens=24) as provider:
        settings = {
            "OPENAI_API_KEY": "sk-stand-in",
            "OPENAI_BASE_URL": f"{provider}/v1",
            "HEADRACE_OVERFLOW__MAX_RUNNING": "128",
            "HEADRACE_POOLS__CHAT__MAX_RUNNING": str(SLOTS),
            "HEADRACE_SIMULATOR__OUTPUT_TOKENS": str(TOKENS),
            "HEADRACE_SIMULATOR__DECODE_TOKENS_PER_S": str(TOKENS_PER_S),
            "HEADRACE_OBSERVE_EVERY_S": "1",
            "HEADRACE_SCALING__HOST_TYPE": "sim",
            "HEADRACE_HOSTS__SIM__USD_PER_HOUR": USD_PER_HOUR,
        }
        if plan.cap_usd is not None:
            settings["HEADRACE_BUDGETS__DAY_USD"] = f"{plan.cap_usd:f}"
        with Testbed(settings, WITHOUT) as bed:
            run = offer(bed, plan)
            with urllib.request.urlopen(f"{provider}/bill") as answer:
                run.bill_usd = usd(json.load(answer))
            run.bills = reconcile(bed, run.bill_usd)
            run.rows = [
                {"state": state, "route": route, "jobs": jobs, "last": float(last)}
                for state, route, jobs, last in bed.sql(
                    "SELECT state, route, count(*), extract(epoch FROM max(created_at)) FROM jobs GROUP BY 1, 2"
                )
            ]
            return run, _starts(bed, run)


def _starts(bed: Testbed, run: Run) -> list[dict[str, Any]]:
    query = """
        SELECT floor((extract(epoch FROM created_at) - %s) / %s)::int, route, count(*),
            percentile_cont(0.95) WITHIN GROUP (ORDER BY extract(epoch FROM started_at - created_at))
        FROM jobs GROUP BY 1, 2
    """
    rows = bed.sql(query, run.began, LINE_S)
    return [{"line": line, "route": route, "jobs": jobs, "p95": wait} for line, route, jobs, wait in rows]


def show(run: Run, starts: list[dict[str, Any]], title: str) -> None:
    """One line for each `LINE_S` seconds."""
    table = Table("from", header_style="bold", title=title)
    for heading in ("offered/s", "202/s", "429/s", "5xx", "own pool/s", "paid API/s", "own p95 wait s"):
        table.add_column(heading, justify="right")
    by_line = {(row["line"], row["route"]): row for row in starts}
    for line, statuses in sorted(run.lines.items()):
        own, paid = (by_line.get((line, route), {"jobs": 0, "p95": None}) for route in ("pool", "overflow"))
        wait = "-" if own["p95"] is None else f"{own['p95']:.1f}"
        rates = (statuses.total(), statuses[202], statuses[429])
        broken = sum(count for status, count in statuses.items() if status not in (202, 429))
        shown = *(f"{each / LINE_S:.1f}" for each in rates), str(broken)
        table.add_row(f"{line * LINE_S:.0f} s", *shown, *(f"{each['jobs'] / LINE_S:.1f}" for each in (own, paid)), wait)
    console.print(table)
    console.print(str(run.bills))


def summary(run: Run, suffix: str = "") -> dict[str, Any]:
    """What the last line says of a run."""
    statuses, accepted = run.statuses, sum(row["jobs"] for row in run.rows)
    figures: dict[str, Any] = {
        "five_xx": sum(count for status, count in statuses.items() if status not in (202, 429)),
        "succeeded_share": run.share("state", "succeeded"),
        "overflow_share": run.share("route", "overflow"),
        "back_after_s": run.back_after_s,
        "bill_usd": f"{run.bill_usd:f}",
        "refused": statuses[429],
        "accepted": accepted,
    }
    if run.bills is not None:
        figures["difference_share"] = float(run.bills.share)
    if run.plan.cap_usd is not None:
        figures["bill_share"] = float(run.bill_usd / run.plan.cap_usd)
        figures["overspend_usd"] = f"{max(Decimal(0), run.bill_usd - run.plan.cap_usd):f}"
    for state in ("succeeded", "expired", "failed"):
        figures[state] = sum(row["jobs"] for row in run.rows if row["state"] == state)
    return {f"{name}{suffix}": value for name, value in figures.items()}


def plans(times: float, seconds: float, *, is_capped: bool) -> Iterator[tuple[str, Plan]]:
    """The runs, each with the suffix of its figures."""
    yield "", Plan(times, seconds, None)
    if is_capped:
        # Enough for about half of what the spike offers.
        yield "_capped", Plan(times, seconds, PAID_USD * int(CAPACITY_PER_S * times * seconds / 2))


@click.command()
@click.option("--times", type=click.FloatRange(min=1), default=10, show_default=True, help="The capacity, offered.")
@click.option("--seconds", type=click.FloatRange(min=5), default=300, show_default=True, help="For so long.")
@click.option("--capped/--not-capped", default=True, help="A second run, whose budget runs out in the middle.")
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write figures.")
def main(times: float, seconds: float, capped: bool, file: Path | None) -> None:
    """Offer ten times what the own pool can do, for five minutes, and see what becomes of it.

    Starts a stack with a simulated engine of a known rate, an overflow worker, and a stand-in for the paid API that
    keeps its own bill. Load is offered by the clock: calm, spike, calm. The second run's budget is used up in the
    middle of the spike; the first is its counter-proof, without a limit.

    The last line is name=value pairs, those of the second run with the suffix _capped: five_xx, answers that were
    neither 202 nor 429; of the accepted jobs, the shares that succeeded and that the paid API took; back_after_s,
    seconds from the end of the spike until the last job was sent there; its bill, and with a budget the share of
    that, and what was beyond it; difference_share, how far the sum of the ledger is from the provider's bill and
    the host's hours times their price, as a part of these. The status is 1 when that is 0.001 or more, an answer
    was a 5xx, less than 0.99 of the accepted jobs of the first run succeeded, the paid API took none, or a budget
    was overspent or used by less than 0.95.

    \b
    bin/headrace python benchmarks/spike.py
    bin/headrace python benchmarks/spike.py --seconds 30 --not-capped
    """
    figures: dict[str, Any] = {}
    for suffix, plan in plans(times, seconds, is_capped=capped):
        kind = "without a limit" if plan.cap_usd is None else f"with {plan.cap_usd:f} USD"
        console.print(f"{plan.whole_s:.0f} s of load, {kind}", style="dim")
        run, starts = measure(plan)
        show(run, starts, f"{times:g} times the capacity of {CAPACITY_PER_S:g} jobs a second, {kind}")
        figures |= summary(run, suffix)
    if file is not None:
        file.write_text(json.dumps(figures, indent=2) + "\n")
    print(line_of(figures))
    is_met = all(value < LARGEST for name, value in figures.items() if name.startswith("difference_share"))
    is_met &= figures["five_xx"] == 0 and figures["succeeded_share"] >= 0.99 and figures["overflow_share"] > 0
    if capped:
        is_met &= figures["five_xx_capped"] == 0 and 0.95 <= figures["bill_share_capped"] <= 1
    sys.exit(0 if is_met else 1)


if __name__ == "__main__":
    main()
