"""`headrace analyst`, for operators: a role in Postgres for analysts, and its URL."""

import secrets

import click
import sqlalchemy as sa

from headrace.cli.analyst.dictionary import PAGE, page
from headrace.cli.database import database, operating, operator_settings
from headrace.cli.output import json_option, notes, out, print_json
from headrace.config import PROJECT_ROOT, Settings
from headrace.errors import ConfigError
from headrace.stack.secret import persistent_secret
from headrace.store import actions
from headrace.store import analyst as store

#: The name of the role where none is given.
ROLE = "analyst"


@click.command()
@click.option("--role", default=ROLE, show_default=True, metavar="NAME", help="The role's name in Postgres.")
@click.option("--page", "writes", is_flag=True, help=f"Write {PAGE} in the checkout instead.")
@json_option
def analyst(role: str, writes: bool, as_json: bool) -> None:
    """Make a role in Postgres that reads the figures, and print its URL.

    It reads the views and tables of docs/analytics.md. It sees no prompt, answer, key or secret, and changes nothing. A
    query may take 5 minutes: then Postgres stops it, or the control process ends its session.

    Each call gives the role a new password, so that an earlier URL stops working. On the stack of this machine the role
    exists already and keeps its password. The database's user needs CREATEROLE.
    """
    settings = operator_settings()
    if writes:
        with database(settings) as db:
            text = page(store.dictionary(db))
        (PROJECT_ROOT / PAGE).write_text(text, encoding="utf-8")
        out.print(f"{PAGE} is made.")
        return
    url = make_analyst(settings, role)
    if as_json:
        print_json({"url": url, "role": role})
        return
    click.echo(url)
    notes.print("It reads the views and tables of docs/analytics.md, and changes nothing.")


def make_analyst(settings: Settings, role: str = ROLE) -> str:
    """Make the role, or renew its rights; returns its URL. Raises: StoreUnavailable, ConfigError."""
    if not role.strip() or "\0" in role:
        raise ConfigError("A role needs a name.", param="role")
    is_kept = role == ROLE and "database_url" not in Settings.load().model_fields_set
    password = persistent_secret(settings.state_dir / "analyst") if is_kept else secrets.token_urlsafe(32)
    with operating(settings) as audit:
        if not actions.allow_analyst(audit, role, password):
            notes.print("A superuser can take more from it: docs/analytics.md has the statements.")
    own = sa.make_url(settings.database_url)
    return own.set(drivername="postgresql", username=role, password=password).render_as_string(hide_password=False)
