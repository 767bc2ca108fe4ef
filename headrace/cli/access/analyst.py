"""`headrace analyst`, for operators: a role in Postgres for analysts, its URL, and the dictionary of what it reads."""

import secrets
from collections import Counter
from collections.abc import Iterable, Iterator, Set
from itertools import groupby
from textwrap import fill

import click
import sqlalchemy as sa

from headrace.cli.database import database, operating, operator_settings
from headrace.cli.output import json_option, notes, out, print_json
from headrace.config import PROJECT_ROOT, Settings
from headrace.errors import ConfigError
from headrace.stack.state_folder import persistent_secret
from headrace.store import actions
from headrace.store import analyst as store
from headrace.store.analyst import Relation
from headrace.store.views import VIEWS

#: The name of the role where none is given.
ROLE = "analyst"
#: The data dictionary, from the root of a checkout.
PAGE = "docs/dictionary.md"

_HEAD = """\
# Data dictionary

`bin/headrace analyst --page` makes this page from the comments in the database; do not edit it.

The role of analysts reads these views and tables, and these columns of them ([analytics.md](analytics.md)). Days, hours
and months are those of UTC. An amount is in USD, a time that ends in `_s` in seconds. The HTTP API has
some of them under other names, such as `status` for `state`, `deadline` for `finish_by`, and `id` for `public_id`.

## Columns in several views

A view or table lists these as "Common". Columns that need no description are left out; in psql, `\\d jobs` lists all
columns with their types.
"""
#: A column that this number of views or tables have, with the same type and comment, is described once.
COMMON = 3


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


def page(relations: Iterable[Relation]) -> str:
    """The data dictionary, made from the comments in the database: the common columns, the views, then the tables."""
    relations = list(relations)
    counts = Counter(column for each in relations for column in each.columns if column[2])
    # The most frequent one of several meanings of a name is the last here.
    usual = {column[0]: column for column, count in reversed(counts.most_common()) if count >= COMMON}
    common = set(usual.values())
    views: list[str] = []
    tables: list[str] = []
    for each in relations:
        (views if each.name in VIEWS else tables).append(_section(each, common))
    return f"{_HEAD}\n{''.join(_described(sorted(common)))}\n## Views\n{''.join(views)}\n## Tables\n{''.join(tables)}"


def _section(relation: Relation, common: Set[tuple[str, str, str]]) -> str:
    own = [column for column in relation.columns if column[2] and column not in common]
    shared = [f"`{column[0]}`" for column in relation.columns if column in common]
    items = list(_described(own))
    items += [_item(f"Common: {', '.join(shared)}.")] if shared else []
    about = f"{fill(relation.about, 120, break_on_hyphens=False)}\n\n" if relation.about else ""
    return f"\n### {relation.name}\n\n{about}{''.join(items)}"


def _described(columns: Iterable[tuple[str, str, str]]) -> Iterator[str]:
    """The items of columns; neighbours of the same type and comment share one."""
    for (_, text), alike in groupby(columns, lambda column: column[1:]):
        names = ", ".join(f"`{name}`" for name, _, _ in alike)
        yield _item(f"{names}: {text}")


def _item(text: str) -> str:
    # No break at hyphens: a broken name cannot be searched for.
    return fill(f"- {text}", 120, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False) + "\n"
