"""Moves the rows of a database that is older than 0.1.0 into the tables of 0.1.0. The command's --help says how."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import click
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from rich.console import Console
from rich.table import Table
from sqlalchemy import Connection

from headrace import connections, startup
from headrace.config import PROJECT_ROOT, Settings
from headrace.domain.ids import oldest_id, time_of
from headrace.errors import HeadraceError
from headrace.stack.ports import free_port
from headrace.stack.postgres import Postgres
from headrace.stack.state_folder import state_lock
from headrace.store import clock, months, views
from headrace.tables import BY_MONTH, revisions

#: The schema that keeps the old tables.
ASIDE = "before_0_1_0"
#: Tables that a database of before has not.
NEW = (*("processes", "host_hours", "label_keys", "label_days", "charge_days", "paused_receivers", "plugin_versions"),)
#: The last migration before the baseline. Its tables have the columns of the baseline, and these, which had no use.
LAST, UNUSED = "0070", {("deliveries", "published_at"), ("jobs", "batch_id"), ("jobs", "custom_id")}
#: A migration's file that is in the history only.
LAST_FILE = "migrations/versions/0070_payload_versions.py"

_OTHERS = sa.text(
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'headrace'"
    " AND pid <> pg_backend_pid()"
)
#: Statements that set aside what the old migrations made. A view or function of others stays, and reads the old tables.
_SETTING_ASIDE = sa.text(
    f"""
    SELECT format('ALTER %s %s SET SCHEMA {ASIDE}', CASE relkind WHEN 'v' THEN 'VIEW' ELSE 'TABLE' END, oid::regclass)
    FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v')
      AND (relname = ANY (:names) OR relname ~ :months)
    UNION ALL
    SELECT format('ALTER FUNCTION %s SET SCHEMA {ASIDE}', oid::regprocedure)
    FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND proname = ANY (:functions)
    """
)
_COLUMNS = sa.text(
    "SELECT attname FROM pg_attribute WHERE attrelid = CAST(:table AS regclass) AND attnum > 0 AND NOT attisdropped"
    " ORDER BY attnum"
)
_NUMBERED = sa.text("SELECT attname FROM pg_attribute WHERE attrelid = CAST(:table AS regclass) AND attidentity <> ''")


class Moved(NamedTuple):
    """A table's rows, and a digest of their contents, which does not depend on their order."""

    table: str
    rows: int
    digest: int


@click.command()
def main() -> None:
    """Move the rows of a database that is older than 0.1.0 into the tables of 0.1.0.

    Stop every process of Headrace and make a backup first. The database is that of DATABASE_URL, or
    HEADRACE_RELEASE_DATABASE_URL; without them, the one in the state folder of `headrace up`.

    One transaction sets the old tables aside in the schema before_0_1_0, makes the new ones, copies every row, and
    compares each table's contents with the old one's. If anything fails, nothing has changed. The disk must have room
    for a second copy of the rows.

    Afterwards run the release ('alembic upgrade head') and start the processes. Roles have the rights to the new tables
    and views that they had to the old ones. Views of your own belong to the old tables: make them again. Once all is
    well, drop the old tables:

    \b
        DROP SCHEMA before_0_1_0 CASCADE
    """
    try:
        with _database() as settings, connections.release(settings).begin() as db:
            moved = move(db)
            usd = db.scalar(sa.text("SELECT coalesce(sum(usd), 0) FROM ledger"))
    except HeadraceError as error:
        raise click.ClickException(str(error)) from error
    table = Table("table", "rows", header_style="bold")
    for each in moved:
        table.add_row(each.table, f"{each.rows:,}")
    Console().print(table)
    click.echo(f"Every row has arrived; the ledger adds up to {usd} USD, as before. The old tables are in {ASIDE}.")


@contextmanager
def _database() -> Iterator[Settings]:
    """Settings with a database that answers: the given one, or that of this machine's stack, which must not run."""
    settings = startup.load()
    if settings.model_fields_set & {"database_url", "release_database_url"}:
        yield settings
        return
    with state_lock(settings.state_dir):
        postgres = Postgres(settings.state_dir.resolve() / "postgres", free_port())
        with postgres.running():
            yield settings.model_copy(update={"database_url": postgres.url})


def move(db: Connection) -> list[Moved]:
    """Move every row, in the transaction of this connection. Raises: ClickException: it cannot be done."""
    _check(db)
    config = Config(toml_file=PROJECT_ROOT / "pyproject.toml", attributes={"connection": db})
    made = ScriptDirectory.from_config(config).get_revision(revisions.BASELINE).module.TABLES
    tables = [table for table in made if table not in NEW]
    rights = views.rights_to(db, [*tables, *views.VIEWS, "alembic_version"])
    _set_aside(db, tables)
    command.upgrade(config, revisions.BASELINE)
    views.give(db, rights)
    _make_months(db)
    # The rows that it would make are among the copied ones.
    db.exec_driver_sql("ALTER TABLE jobs DISABLE TRIGGER job_is_retried_once")
    moved = [_copy(db, table) for table in tables]
    db.exec_driver_sql("ALTER TABLE jobs ENABLE TRIGGER job_is_retried_once")
    return moved


def _check(db: Connection) -> None:
    if db.scalar(sa.text("SELECT to_regclass('public.alembic_version')")) is None:
        raise click.ClickException("This database has no tables of Headrace: there is nothing to move.")
    at = db.scalar(sa.text("SELECT max(version_num) FROM public.alembic_version")) or "0000"
    if not revisions.is_from_before(at):
        raise click.ClickException(f"This database is at migration {at}: it is no older than 0.1.0.")
    if at != LAST:
        raise click.ClickException(
            f"This database is at migration {at}. Bring it to {LAST} first: check out the commit before "
            f"'git rev-list -1 HEAD -- {LAST_FILE}' and run its release ('alembic upgrade head')."
        )
    if others := db.scalar(_OTHERS):
        raise click.ClickException(f"{others} connections of Headrace are open: stop its processes first.")


def _set_aside(db: Connection, tables: list[str]) -> None:
    db.exec_driver_sql(f"CREATE SCHEMA {ASIDE}")
    names = {
        "names": [*tables, *views.VIEWS, "alembic_version"],
        "months": rf"^({'|'.join(BY_MONTH)})_(first|\d{{4}}_\d\d)$",
        "functions": [*views.FUNCTIONS, *views.OF_TRIGGERS],
    }
    for statement in db.scalars(_SETTING_ASIDE, names).all():
        db.exec_driver_sql(statement)


def _make_months(db: Connection) -> None:
    """Make the months of all rows. The ledger, and maybe the webhooks, have rows of months that were detached."""
    now = clock.now(db)
    job, *others = (
        db.scalar(sa.text(f"SELECT {key} FROM {ASIDE}.{table} WHERE {key} IS NOT NULL ORDER BY {key} LIMIT 1"))
        for table, key in (("jobs", "id"), ("ledger", "job_id"), ("deliveries", "job_id"))
    )
    oldest = [time_of(job_id) for job_id in (job, *others) if job_id]
    months.make(db, now, min(oldest, default=None))
    for month in months.found(db):
        if month.until <= (job or oldest_id(now)):
            part = f"deliveries_{month.name}"
            db.exec_driver_sql(f"ALTER TABLE {part} DROP CONSTRAINT {part}_job_id_fkey")


def _copy(db: Connection, table: str) -> Moved:
    """Copy a table's rows, and compare. Raises: ClickException: something is not as it was."""
    old, new = f"{ASIDE}.{table}", f"public.{table}"
    columns, before = (db.scalars(_COLUMNS, {"table": name}).all() for name in (new, old))
    if gone := {(table, name) for name in before}.difference(UNUSED, ((table, name) for name in columns)):
        raise click.ClickException(f"{old} has columns that are unknown here: {sorted(gone)}.")
    # Columns that the old table has not get their defaults.
    listed = ", ".join(name for name in columns if name in before)
    db.exec_driver_sql(f"INSERT INTO {new} ({listed}) OVERRIDING SYSTEM VALUE SELECT {listed} FROM {old}")
    for name in db.scalars(_NUMBERED, {"table": new}).all():
        sequence = db.scalar(sa.text("SELECT pg_get_serial_sequence(:table, :name)"), {"table": old, "name": name})
        following = f"SELECT setval(pg_get_serial_sequence('{new}', '{name}'), last_value, is_called) FROM {sequence}"
        db.exec_driver_sql(following)
    db.exec_driver_sql(f"ANALYZE {new}")
    contents = [_contents(db, each, listed) for each in (old, new)]
    if contents[0] != contents[1]:
        raise click.ClickException(f"{table} differs after the copy: {contents[0]} and {contents[1]}. Nothing is done.")
    return Moved(table, *contents[1])


def _contents(db: Connection, table: str, columns: str) -> tuple[int, int]:
    digest = "coalesce(sum(hashtextextended(t::text, 0)::numeric), 0)::text"
    count, total = db.exec_driver_sql(f"SELECT count(*), {digest} FROM (SELECT {columns} FROM {table}) t").one()
    return count, int(total)


if __name__ == "__main__":
    main()
