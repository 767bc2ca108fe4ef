"""The data dictionary, `docs/dictionary.md`, made from the comments in the database. Returns text; writes no file."""

from collections.abc import Iterable

from headrace.store.analyst import Relation
from headrace.store.views import VIEWS

#: From the root of a checkout.
PAGE = "docs/dictionary.md"

_HEAD = """\
# Data dictionary

`bin/headrace analyst --page` makes this page from the comments in the database; do not edit it.

The role of analysts reads these views and tables, and these columns of them ([analytics.md](analytics.md)). Days, hours
and months are those of UTC. An amount is in USD, a time that ends in `_s` in seconds. The HTTP API calls `state`
`status`, `finish_by` `deadline`, and `public_id` `id`; all other names are the same in SQL, HTTP and metrics.
"""
#: A name of a type that is shorter than Postgres's, and as clear.
_TYPES = {"timestamp with time zone": "timestamptz", "double precision": "float8"}


def page(relations: Iterable[Relation]) -> str:
    """The whole page: the views, then the tables."""
    views: list[str] = []
    tables: list[str] = []
    for each in relations:
        (views if each.name in VIEWS else tables).append(_section(each))
    return f"{_HEAD}\n## Views\n{''.join(views)}\n## Tables\n{''.join(tables)}"


def _section(relation: Relation) -> str:
    about = f"{relation.about}\n\n" if relation.about else ""
    rows = "".join(
        f"| `{name}` | {_TYPES.get(type_, type_)} | {_cell(text)} |\n" for name, type_, text in relation.columns
    )
    return f"\n### {relation.name}\n\n{about}| column | type | meaning |\n|---|---|---|\n{rows}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
