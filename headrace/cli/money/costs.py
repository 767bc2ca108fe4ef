"""`headrace costs`, for operators: what a month cost, and whether it adds up to the hosts' bill."""

import csv
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import click
from rich.table import Table

from headrace.cli.database import database
from headrace.cli.output import json_option, notes, out, print_json, table
from headrace.store import clock
from headrace.store.money import costs as store
from headrace.store.money.costs import AppMonth, PoolMonth

#: What the kinds of charges are called here.
_KINDS = {"compute": "own hosts", "api": "paid API", "waste": "wasted", "cache": "cache", "idle": "idle"}


class Month(click.ParamType[datetime]):
    """A month such as `2026-11`: its first moment in UTC."""

    name = "month"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Read it. Fails for anything else."""
        try:
            month = datetime.strptime(str(value), "%Y-%m").replace(tzinfo=UTC)
            _next_month(month)  # None follows the last one that Python knows.
            return month
        except ValueError:
            self.fail(f"'{value}' is not a month such as 2026-11.", param, ctx)


@click.command()
@click.option("--month", type=Month(), metavar="YYYY-MM", help="A month of UTC; by default this one.")
@click.option("--csv", "as_csv", is_flag=True, help="Print the charges by app and kind as CSV.")
@json_option
def costs(month: datetime | None, as_csv: bool, as_json: bool) -> None:
    """Show what a month cost, and whether the shares of the requests add up to the hosts' bill.

    \b
    bill        the leases of the pool's hosts times their price, in the hours that are closed
    used        the part of it that the prices of requests cover
    boot        the part for hosts that were not ready yet
    shared      the full cost of all requests, and the rest, which no request pays: waste, hours without requests
    difference  shared minus bill: anything but 0 is an error

    \b
    price       what the app is charged
    full        with the request's share of hosts that were paid for and not used
    at the API  the same tokens at the paid API's list price

    An hour is closed five minutes after its end. Until then, and where [hosts.TYPE] has no price, a request counts at
    its price. docs/analytics.md describes the model, and has the queries behind this.
    """
    if as_csv and as_json:
        raise click.UsageError("Give --csv or --json, not both.")
    with database() as db:
        since = month or _first_of_month(clock.now(db))
        until = _next_month(since)
        cost = store.month(db, since, until)
    pools, apps = cost.pools, cost.apps
    if as_json:
        print_json({"month": f"{since:%Y-%m}", "pools": [_pool(each) for each in pools], "apps": _plain(apps)})
    elif as_csv:
        writer = csv.DictWriter(sys.stdout, [field.name for field in fields(AppMonth)])
        writer.writeheader()
        writer.writerows(_plain(apps))
    else:
        _print(since, pools, apps)


def _first_of_month(now: datetime) -> datetime:
    return now.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def _next_month(first: datetime) -> datetime:
    year, month = divmod(first.year * 12 + first.month, 12)
    return first.replace(year=year, month=month + 1)


def _print(since: datetime, pools: Sequence[PoolMonth], apps: Sequence[AppMonth]) -> None:
    if pools:
        out.print(_pools(pools))
    else:
        out.print(f"No hour of own hosts with a price was closed in {since:%Y-%m}.")
    out.print()
    out.print(_apps(apps) if apps else f"Nothing was charged in {since:%Y-%m}.")
    if unpriced := sum(each.unpriced_host_hours for each in pools):
        notes.print(f"{unpriced} hours of hosts are not in the bill, because their type has no price: [hosts.TYPE].")
    if left := sum(each.open_requests for each in apps):
        notes.print(
            f"{left:,} requests count at their price: their hours are not closed, or their hosts have no price."
        )
    for each in pools:
        if each.difference_usd:
            notes.print(
                f"The shares of pool {each.pool} differ from its bill: please report this, with the rows of the view "
                "'cost_reconciliation' ('SELECT * FROM cost_reconciliation' in psql)."
            )


def _pools(pools: Sequence[PoolMonth]) -> Table:
    rows = table("pool")
    for heading in ("host hours", "bill USD", "used", "boot", "shared USD", "difference"):
        rows.add_column(heading, justify="right", no_wrap=True)
    for each in pools:
        shared = each.requests_usd + each.platform_usd
        shares = _share(each.used_usd, each.bill_usd), _share(each.boot_usd, each.bill_usd)
        usd = f"{each.bill_usd:,.4f}", *shares, f"{shared:,.4f}", f"{each.difference_usd:f}"
        rows.add_row(each.pool, f"{each.host_hours:,.1f}", *usd)
    return rows


def _apps(apps: Sequence[AppMonth]) -> Table:
    rows = table("app", "by")
    for heading in ("requests", "tokens", "price USD", "full USD", "at the API", "full/1,000"):
        rows.add_column(heading, justify="right", no_wrap=True)
    for each in apps:
        tokens = each.prompt_tokens + each.output_tokens
        at_api = "-" if each.api_usd is None else f"{each.api_usd:,.4f}"
        counts = f"{each.requests:,}", f"{tokens:,}", f"{each.usd:,.4f}", f"{each.full_usd:,.4f}", at_api
        rows.add_row(each.app or "-", _KINDS.get(each.kind, each.kind), *counts, f"{_per_1000(each):,.4f}")
    return rows


def _per_1000(each: AppMonth) -> Decimal:
    return each.full_usd * 1000 / each.requests


def _share(part: Decimal, whole: Decimal) -> str:
    return f"{part / whole:.0%}" if whole else "-"


def _pool(each: PoolMonth) -> dict[str, Any]:
    return {**_values(each), "difference_usd": f"{each.difference_usd:f}"}


def _plain(apps: Sequence[AppMonth]) -> list[dict[str, Any]]:
    return [_values(each) for each in apps]


def _values(each: PoolMonth | AppMonth) -> dict[str, Any]:
    return {name: f"{value:f}" if isinstance(value, Decimal) else value for name, value in asdict(each).items()}
