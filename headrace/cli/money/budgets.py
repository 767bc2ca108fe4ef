"""`headrace budgets`, for operators: the limits of spending at the paid API, and the spending."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import click
from rich.markup import escape
from rich.table import Table

from headrace.cli.database import database, operating, operator_settings
from headrace.cli.output import json_option, out, print_json, table
from headrace.cli.parameters import usd
from headrace.domain.limits import SHUT, Account, SpendingLimits, reached, share
from headrace.store import actions
from headrace.store.money import budgets as store

_TOGETHER = "all together"
#: A process with another environment may have a budget.
READ_HERE = "This is what headrace.toml and the environment of this command say; '/ops/budgets' shows the API's own."


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
@click.pass_context
def budgets(context: click.Context, as_json: bool) -> None:
    """Show the budgets of the paid API: the limits, and the spending of this day and this month.

    Reserved is the most that running calls can cost. 'headrace apps limit NAME --day-usd N' sets an app's own budget.
    Without a budget nothing is sent to the paid API.
    """
    if context.invoked_subcommand is not None:
        return
    settings = operator_settings()
    with database(settings) as db:
        balances = store.balances(db, settings.budgets)
    if as_json:
        accounts = [_json(account) for account in balances.accounts]
        print_json({"limits": _limits_json(balances.together), "accounts": accounts})
        return
    out.print(escape(describe(balances.together)), soft_wrap=True, highlight=False)
    out.print(_table(balances.accounts) if balances.accounts else "Nothing was spent at the paid API this month.")


@budgets.command("set")
@click.option("--day-usd", callback=usd, metavar="USD", help="In a day of UTC; 'none' for no limit.")
@click.option("--month-usd", callback=usd, metavar="USD", help="In a month of UTC; 'none' for no limit.")
@json_option
def set_(as_json: bool, **limits: Decimal | str | None) -> None:
    """Store the limits of all apps together at the paid API. They override [budgets] in headrace.toml at once.

    A limit that is not given does not change.
    """
    changes = {name: _given(value) for name, value in limits.items() if value is not None}
    if not changes:
        raise click.UsageError("Give --day-usd, --month-usd, or both.")
    settings = operator_settings()
    with operating(settings) as audit:
        actions.set_budgets(audit, changes, settings.budgets)
        together = store.limits(audit.db, settings.budgets)
    if as_json:
        print_json(_limits_json(together))
        return
    out.print(escape(describe(together)), soft_wrap=True, highlight=False)


@budgets.command()
@json_option
def unset(as_json: bool) -> None:
    """Delete the stored limits of all apps together, so that [budgets] in headrace.toml applies again."""
    settings = operator_settings()
    with operating(settings) as audit:
        was_stored = actions.unset_budgets(audit, settings.budgets)
        together = store.limits(audit.db, settings.budgets)
    if as_json:
        print_json({**_limits_json(together), "was_stored": was_stored})
        return
    if not was_stored:
        out.print("No limits were stored.")
    out.print(escape(describe(together)), soft_wrap=True, highlight=False)


def _given(value: Decimal | str | None) -> Decimal | None:
    return value if isinstance(value, Decimal) else None


def describe(together: SpendingLimits) -> str:
    """One line with the limits of all apps together, and where they are set."""
    if not together.are_set:
        return SHUT if together.is_stored else f"{SHUT} {READ_HERE}"
    source = "stored with 'headrace budgets set'" if together.is_stored else "from the settings that this command reads"
    amounts = {"a day": together.day_usd, "a month": together.month_usd}
    shown = ", ".join(f"{_shown(limit_usd)} USD {each}" for each, limit_usd in amounts.items() if limit_usd is not None)
    return f"All apps together: {shown} ({source})."


def _limits_json(together: SpendingLimits) -> dict[str, str | None]:
    amounts = {"day_usd": together.day_usd, "month_usd": together.month_usd}
    shown = {name: None if limit_usd is None else f"{limit_usd:f}" for name, limit_usd in amounts.items()}
    return {**shown, "source": "stored" if together.is_stored else "settings"}


def _table(accounts: Sequence[Account]) -> Table:
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
    """The amount with two decimals, or with more if two would round it."""
    cents = round(limit_usd, 2)
    return f"{cents:,.2f}" if cents == limit_usd else f"{limit_usd.normalize():,f}"


def _used(account: Account) -> str:
    if account.limit_usd is None:
        return "-"
    text = f"{share(account.used_usd, account.limit_usd):.0%}"
    if account.is_used_up:
        return f"[red]{text}, used up[/red]"
    return f"[yellow]{text}[/yellow]" if reached(account.used_usd, account.limit_usd, is_short=False) else text


def _json(account: Account) -> dict[str, Any]:
    limit = None if account.limit_usd is None else f"{account.limit_usd:f}"
    amounts = {"spent_usd": f"{account.spent_usd:f}", "reserved_usd": f"{account.reserved_usd:f}", "limit_usd": limit}
    whose = {"app": account.app, "period": account.period, "starts_at": account.starts_at.isoformat()}
    return {**whose, **amounts, "is_used_up": account.is_used_up, "told_percent": dict(account.told_percent)}
