"""The views, functions and comments of the database. A release makes them anew, after its migrations.

Each view and function is one file here, `NAME.sql`, with its comments: it can be pasted into psql. The comments of
tables stand in `headrace.tables`. Migrations change tables only.
"""

import hashlib
import logging
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DatabaseError
from sqlalchemy.schema import DropTable, SetColumnComment, SetTableComment

from headrace.hooks import Plugin
from headrace.installed import plugins
from headrace.tables import metadata, plugin_versions

log = logging.getLogger(__name__)

#: Functions of triggers. A release replaces and never drops them, since tables use them.
OF_TRIGGERS = ("note_job_retry", "refuse_audit_change", "refuse_ledger_change")
#: Each reads only tables and what stands before it.
MADE = (
    *("request_work", "full_usd", "charges", "costs_by_day", "charges_by_day", "users_by_day", "labels_by_day"),
    *("cost_per_day", "cost_per_user_day", "cost_per_label_day"),
    *("cost_elasticity", "cost_per_user_month", "cost_per_request"),
    *("gpu_hours", "cost_reconciliation", "savings_per_day", "split_point", "split_options", "budget_run_rate"),
    *("waits_per_hour", "cache_per_day", "semantic_cache_per_day", "compression_per_day", "routing_per_day"),
    "operator_actions",
)
#: The plugin of each of their views, which are made after the core's.
_OF_PLUGINS = {view: plugin.name for plugin in plugins() for view in plugin.views}
FUNCTIONS = ("request_work", "full_usd", "costs_by_day", "charges_by_day", "users_by_day", "labels_by_day")
VIEWS = tuple(sorted({*MADE, *_OF_PLUGINS}.difference(FUNCTIONS)))

_RIGHTS = sa.text(
    """
    SELECT format('GRANT %s ON %I TO %s%s', kind, name, coalesce(nullif(role, 0)::regrole::text, 'PUBLIC'),
                  CASE WHEN is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
    FROM (
        SELECT c.relname AS name, privilege_type AS kind, grantee AS role, is_grantable
        FROM pg_class c, aclexplode(c.relacl)
        WHERE c.oid = ANY (CAST(:names AS regclass[])) AND grantee <> c.relowner
        UNION ALL
        SELECT c.relname, format('%s (%I)', privilege_type, a.attname), grantee, is_grantable
        FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid, aclexplode(a.attacl)
        WHERE c.oid = ANY (CAST(:names AS regclass[])) AND grantee <> c.relowner
    ) given
    """
)
_COMMENTS = sa.text(
    """
    SELECT relname, NULL AS attname, obj_description(oid, 'pg_class') AS text
    FROM pg_class WHERE oid = ANY (CAST(:tables AS regclass[]))
    UNION ALL
    SELECT relname, attname, col_description(c.oid, attnum)
    FROM pg_class c JOIN pg_attribute ON attrelid = c.oid
    WHERE c.oid = ANY (CAST(:tables AS regclass[])) AND attnum > 0 AND NOT attisdropped
    """
)


def text(name: str) -> str:
    """The SQL that makes a view or function."""
    folder = files(f"plugins.{_OF_PLUGINS[name]}") / "views" if name in _OF_PLUGINS else files(__name__)
    return (folder / f"{name}.sql").read_text(encoding="utf-8")


def are_made(db: Connection) -> bool:
    """Whether the last release here had the same views, functions and comments."""
    return bool(db.scalar(sa.text("SELECT obj_description(to_regclass('alembic_version'))")) == _version())


def make_functions_of_triggers(db: Connection) -> None:
    """Make what migrations need before they make a trigger."""
    for name in OF_TRIGGERS:
        _run(db, text(name))


def rights_to(db: Connection, names: Sequence[str]) -> Sequence[str]:
    """Statements that give roles the rights that they have to these views and tables, as far as these exist."""
    present = (
        "SELECT to_regclass(name)::text FROM unnest(CAST(:names AS text[])) name WHERE to_regclass(name) IS NOT NULL"
    )
    return db.scalars(_RIGHTS, {"names": list(db.scalars(sa.text(present), {"names": list(names)}))}).all()


def give(db: Connection, rights: Sequence[str]) -> None:
    """Give roles their rights again. Args: rights: from `rights_to`."""
    for right in rights:
        try:
            with db.begin_nested():
                db.exec_driver_sql(right)
        except DatabaseError as error:  # The view or table, or its column, is no longer there.
            log.warning("A right is gone: %s: %s", right, error.orig)


def drop(db: Connection) -> Sequence[str]:
    """Drop the views and functions, so that migrations can change the tables.

    Returns: the rights that roles had to the views, for `give`.
    Raises: ProgrammingError: a view that is not Headrace's reads one of them.
    """
    rights = rights_to(db, VIEWS)
    # Readers first: a query locks a view before those that the view reads, so neither side waits for the other.
    for name in (*_lifted_out(db), *reversed((*MADE, *_OF_PLUGINS))):
        kind = "FUNCTION" if name in FUNCTIONS else "VIEW"
        db.exec_driver_sql(f"DROP {kind} IF EXISTS {name}")
    return rights


def _lifted_out(db: Connection) -> Sequence[str]:
    """The views of plugins that are installed no more, readers first."""
    if db.scalar(sa.text("SELECT to_regclass('plugin_versions')")) is None:
        return []
    row = plugin_versions.c
    gone = sa.select(row.views).where(row.name.not_in([plugin.name for plugin in plugins()]))
    return [view for of_plugin in db.scalars(gone) for view in reversed(of_plugin)]


def make(db: Connection, rights: Sequence[str] = ()) -> None:
    """Make the views, functions and comments on tables of now. Args: rights: from `drop`."""
    for name in (*MADE, *_OF_PLUGINS):
        _run(db, text(name))
    give(db, rights)
    _comment(db)
    _run(db, f"COMMENT ON TABLE alembic_version IS '{_version()}'")


def _comment(db: Connection) -> None:
    """Write the comments that differ. A comment waits for a vacuum of its table, but for no reader or writer."""
    names = [table.name for table in metadata.sorted_tables]
    present = {(row.relname, row.attname): row.text for row in db.execute(_COMMENTS, {"tables": names})}
    for table in metadata.sorted_tables:
        if present[table.name, None] != table.comment:
            db.execute(SetTableComment(table))
        for column in table.columns:
            if present[table.name, column.name] != column.comment:
                db.execute(SetColumnComment(column))


def migrate_plugins(db: Connection) -> None:
    """Run the files of SQL that plugins have beyond those that were run here, and note their versions."""
    row = plugin_versions.c
    held = {each.name: each.version for each in db.execute(sa.select(row.name, row.version))}
    for plugin in plugins():
        numbers = [0]
        for number, file in numbered(plugin):
            numbers.append(number)
            if number > held.get(plugin.name, 0):
                _run(db, file.read_text(encoding="utf-8"))
        note = insert(plugin_versions).values(name=plugin.name, version=numbers[-1], views=list(plugin.views))
        changed = {"version": note.excluded.version, "views": note.excluded.views}
        db.execute(note.on_conflict_do_update(index_elements=[row.name], set_=changed))


def numbered(plugin: Plugin) -> list[tuple[int, Traversable]]:
    """A plugin's files of SQL, `001.sql` and so on, in their order."""
    folder = files(f"plugins.{plugin.name}") / "sql"
    found = [file for file in folder.iterdir() if file.name.endswith(".sql")] if folder.is_dir() else []
    return sorted((int(file.name.removesuffix(".sql")), file) for file in found)


def drop_tables_of_plugins(db: Connection) -> None:
    """Drop the tables of plugins, with all that is in them."""
    of_plugins = (table for table in metadata.sorted_tables if table.info.get("plugin"))
    for table in reversed(list(of_plugins)):
        db.execute(DropTable(table, if_exists=True))


def _run(db: Connection, sql: str) -> None:
    # Without parameters, a percent sign is doubled for the driver.
    db.exec_driver_sql(sql.replace("%", "%%"))


@cache
def _version() -> str:
    """A digest of all that `make` makes, which changes with it."""
    digest = hashlib.sha256("\n".join(_texts()).encode()).hexdigest()
    return f"views {digest[:16]}"


def _texts() -> Iterator[str]:
    yield from map(text, (*OF_TRIGGERS, *MADE, *_OF_PLUGINS))
    for table in metadata.sorted_tables:
        for item in (table, *table.columns):
            yield f"{item} {item.comment}"
    for plugin in plugins():
        yield plugin.name
        yield from (file.read_text(encoding="utf-8") for _, file in numbered(plugin))
