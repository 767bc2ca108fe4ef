"""`headrace costs reconcile`, for operators: how a provider's bill and the ledger differ."""

from collections.abc import Sequence
from dataclasses import asdict
from decimal import Decimal
from pathlib import Path
from typing import Any

import click
from rich.markup import escape

from headrace.cli.database import operating, operator_settings
from headrace.cli.output import json_option, notes, out, print_json, table
from headrace.store.money import tariffs
from headrace.store.money.host_hours import HostTerms
from plugins.bills import files, store
from plugins.bills.checks import ALARM, Cause, by_cause, share
from plugins.bills.store import PoolCheck

#: The most differences that a terminal shows.
SHOWN = 40


@click.command()
@click.option(
    "--bill",
    "paths",
    required=True,
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The provider's bill; several times for several files of one bill.",
)
@click.option(
    "--type", "types", multiple=True, metavar="NAME", help="Only hosts of this type; more than once for more."
)
@click.option("--tag", "tags", multiple=True, metavar="KEY=VALUE", help="Only resources of AWS with this tag.")
@json_option
def reconcile(paths: Sequence[Path], types: Sequence[str], tags: Sequence[str], as_json: bool) -> None:
    """Compare a provider's bill with the ledger by day, pool, machine or model, and say why they differ.

    FILE is a CSV with the columns day,host,type,hours,usd for hosts, or day,model,requests,prompt_tokens,
    cached_tokens,output_tokens,usd for the paid API; AWS's cost and usage report, with resource ids; OpenAI's usage
    export, or its answers of usage and costs as JSON. A name that ends in .gz is unpacked. docs/analytics.md has
    examples.

    \b
    missing_host  the ledger has a host that the bill has not
    unknown_host  the bill has one that the ledger has not: look for a machine that was never ended
    price         the same hours or tokens cost something else
    hours         a host was billed for longer, or for less
    double        the bill has the same charge twice
    unbooked      the provider counted more tokens than the ledger
    overbooked    it counted fewer
    midnight      the same amount is on another day: no error
    rounding      too little to matter

    The result is kept: the view bill_differences, the page /ops/bills, and a metric with an alert. A later check of a
    day replaces the earlier one. Days that are not over are left out. The exit status is 1 if differences that are
    errors add up to more than 1 % of the bill.
    """
    bill = files.read(paths, types, files.read_tags(tags))
    settings = operator_settings()
    with operating(settings) as audit:
        prices = tariffs.in_force(audit.db, settings).api
        found = store.reconcile_bill(audit.db, bill, HostTerms.of(settings), prices)
        days = [day.isoformat() for day in bill.days]
        audit.record("costs.reconcile", bill.source, file=bill.file, days=days)
    wrong = share([each.checked for each in found])
    if as_json:
        print_json({"source": bill.source, "share": f"{wrong:f}", "checks": [_check(each) for each in found]})
    else:
        _print_checks(found, wrong)
    if wrong > ALARM:
        raise click.exceptions.Exit(1)


def _print_checks(found: Sequence[PoolCheck], wrong: Decimal) -> None:
    differing = [each for each in found if each.checked.cause is not Cause.NONE]
    rows = table("day", "pool", "name", "type", "cause", numbers=("ledger", "billed", "difference USD"))
    for each in sorted(differing, key=lambda each: -abs(each.checked.difference_usd))[:SHOWN]:
        row = each.checked
        usd = f"{row.ledger_usd:,.4f}", f"{row.billed_usd:,.4f}", f"{row.difference_usd:,.4f}"
        rows.add_row(
            f"{row.day}", escape(each.pool or "-"), escape(row.name), escape(each.kind or "-"), row.cause, *usd
        )
    if differing:
        out.print(rows)
        causes = table("cause", numbers=("difference USD",))
        for cause, more_usd in by_cause([each.checked for each in found]).items():
            causes.add_row(cause, f"{more_usd:,.4f}")
        out.print(causes)
    if len(differing) > SHOWN:
        notes.print(f"{len(differing):,} rows differ; these are the {SHOWN} largest. --json prints all.")
    ledger_usd = sum((each.checked.ledger_usd for each in found), Decimal())
    billed_usd = sum((each.checked.billed_usd for each in found), Decimal())
    out.print(
        f"Billed {billed_usd:,.4f} USD; the ledger has {ledger_usd:,.4f} USD. Errors: {float(wrong):.2%} of the bill."
    )


def _check(each: PoolCheck) -> dict[str, Any]:
    row = each.checked
    amounts = {name: f"{value:f}" for name, value in asdict(row).items() if isinstance(value, Decimal)}
    about = {"day": row.day.isoformat(), "pool": each.pool or None, "name": row.name, "type": each.kind}
    return {**about, "cause": row.cause, **amounts, "difference_usd": f"{row.difference_usd:f}"}
