"""`headrace operators`: who may log in to the pages at /ops, and with which role."""

import re
import sys
from typing import Any

import click
from rich.markup import escape

from headrace.cli.database import database, local_stack, operating
from headrace.cli.output import json_option, notes, out, print_json, table
from headrace.config import Settings
from headrace.domain.operators import Operator, Role
from headrace.policies import passwords
from headrace.store import actions
from headrace.store import operators as store

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")

_role_option = click.option(
    "--role",
    type=click.Choice([str(role) for role in Role]),
    required=True,
    help="viewer: sees every page, no prompts. operator: also retries, cancels, drains. admin: also changes limits "
    "and budgets, revokes keys, reads prompts and answers.",
)
_generate_option = click.option(
    "--generate", is_flag=True, help="Make a random password and print it, only this once. Without it, asks for one."
)


def _name(_context: click.Context, _parameter: click.Parameter, text: str) -> str:
    """An operator's name. Raises: BadParameter."""
    if not _NAME.fullmatch(text):
        raise click.BadParameter("a name has up to 64 letters, digits and the characters . _ @ + -")
    return text


@click.group()
def operators() -> None:
    """Make, list and delete the accounts of the pages at /ops.

    There is no default account: create one before the first login. Changes take effect at once.
    """


@operators.command()
@click.argument("name", callback=_name)
@_role_option
@_generate_option
@json_option
def create(name: str, role: str, generate: bool, as_json: bool) -> None:
    """Make the account NAME. Asks for a password; in a pipe, reads the first line of standard input.

    \b
    headrace operators create ada --role admin
    headrace operators create ada --role admin < password.txt
    headrace operators create guest --role viewer --generate
    """
    password = _password(generate)
    with operating() as audit:
        operator = actions.create_operator(audit, name, Role(role), passwords.hashed(password))
    if as_json:
        print_json(_json(operator) | ({"password": password} if generate else {}))
    elif generate:
        click.echo(password)
    else:
        stack = local_stack(Settings.load())
        pages = "/ops" if stack is None else f"{stack.ops_url}/ops"
        notes.print(f"'{operator.name}' can log in at {pages}.", markup=False)


@operators.command()
@click.argument("name", callback=_name)
@_generate_option
@json_option
def password(name: str, generate: bool, as_json: bool) -> None:
    """Set a new password for NAME. Its open sessions end, and failed logins are forgotten.

    Asks for the password; in a pipe, reads the first line of standard input.
    """
    new = _password(generate)
    with operating() as audit:
        actions.set_password(audit, name, passwords.hashed(new))
    if as_json:
        print_json({"name": name} | ({"password": new} if generate else {}))
    elif generate:
        click.echo(new)
    else:
        notes.print(f"'{name}' has a new password.", markup=False)


@operators.command()
@click.argument("name", callback=_name)
@_role_option
@json_option
def role(name: str, role: str, as_json: bool) -> None:
    """Give NAME another role."""
    with operating() as audit:
        actions.set_role(audit, name, Role(role))
    if as_json:
        print_json({"name": name, "role": role})
    else:
        notes.print(f"'{name}' is {role}.", markup=False)


@operators.command()
@click.argument("name", callback=_name)
@json_option
def delete(name: str, as_json: bool) -> None:
    """Delete the account NAME. Its open sessions end."""
    with operating() as audit:
        actions.delete_operator(audit, name)
    if as_json:
        print_json({"name": name})
    else:
        notes.print(f"'{name}' is deleted.", markup=False)


@operators.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
def list_all(as_json: bool) -> None:
    """List the accounts with their roles."""
    with database() as db:
        found = store.list_all(db)
    if as_json:
        print_json([_json(operator) for operator in found])
        return
    if not found:
        out.print("There are no operators: 'headrace operators create NAME --role admin' makes one.")
        return
    rows = table("operator", "role", "created (UTC)")
    for operator in found:
        rows.add_row(escape(operator.name), str(operator.role), f"{operator.created_at:%Y-%m-%d %H:%M}")
    out.print(rows)


def _password(generate: bool) -> str:
    if generate:
        return passwords.random_password()
    if not _is_at_a_terminal():
        return sys.stdin.readline().rstrip("\r\n")
    text: str = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    return text


def _is_at_a_terminal() -> bool:
    return sys.stdin.isatty()


def _json(operator: Operator) -> dict[str, Any]:
    return {"name": operator.name, "role": str(operator.role), "created_at": operator.created_at.isoformat()}
