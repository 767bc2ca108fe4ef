"""`headrace budgets`, for operators: what is spent at the paid API, and how much of each limit that is."""

import json
from decimal import Decimal

import click
from rich.markup import escape
from rich.table import Table

from headrace.budgets import reached, share
from headrace.cli.client import out
from headrace.cli.database import database
from headrace.cli.table import table
from headrace.config import Settings
from headrace.store import budgets as store
from headrace.store.budgets import Account

_TOGETHER = "all together"


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
def budgets(as_json: bool) -> None:
    """Show what was spent at the paid API this day and this month, by each app and by all together.

    Reserved is what calls under way may cost at most. 'headrace apps limit NAME --day-usd N' sets an app's budget;
    [budgets] in headrace.toml, or HEADRACE_BUDGETS__DAY_USD, that of all apps together.
    """
    with database() as db:
        accounts = store.current(db, Settings.load().budgets)
    if as_json:
        click.echo(json.dumps([_json(account) for account in accounts], indent=2, ensure_ascii=False))
    elif accounts:
        out.print(_table(accounts))
    else:
        out.print("Nothing was spent at the paid API this month.")


def _table(accounts: list[Account]) -> Table:
    rows = table("app", "period")
    for heading in ("from", "spent USD", "reserved USD", "limit USD", "used"):
        rows.add_column(heading, justify="right")
    for account in accounts:
        name = f"[dim]{_TOGETHER}[/dim]" if account.app is None else escape(account.app)
        limit = "-" if account.limit_usd is None else _shown(account.limit_usd)
        amounts = f"{account.spent_usd:,.6f}", f"{account.reserved_usd:,.6f}", limit, _used(account)
        rows.add_row(name, account.period, f"{account.starts_at:%Y-%m-%d}", *amounts)
    return rows


def _shown(limit_usd: Decimal) -> str:
    """In cents, unless that would round it."""
    cents = round(limit_usd, 2)
    return f"{cents:,.2f}" if cents == limit_usd else f"{limit_usd.normalize():,f}"


def _used(account: Account) -> str:
    if account.limit_usd is None:
        return "-"
    text = f"{share(account.used_usd, account.limit_usd):.0%}"
    match reached(account.used_usd, account.limit_usd, is_short=account.is_short):
        case ():
            return text
        case (_,):
            return f"[yellow]{text}[/yellow]"
    return f"[red]{text}[/red]"


def _json(account: Account) -> dict[str, str | int | None]:
    limit = None if account.limit_usd is None else f"{account.limit_usd:f}"
    amounts = {"spent_usd": f"{account.spent_usd:f}", "reserved_usd": f"{account.reserved_usd:f}", "limit_usd": limit}
    whose = {"app": account.app, "period": account.period, "starts_at": account.starts_at.isoformat()}
    return {**whose, **amounts, "told_percent": account.told_percent}
