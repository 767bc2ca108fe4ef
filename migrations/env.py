"""Runs migrations. The address comes from Settings; an advisory lock lets only one release run at a time.

An upgrade is one transaction: it drops the views, changes the tables, and makes the views again. A release that does
not get a table's lock at once gives way to the statements that queue behind it, and is retried.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import sqlalchemy as sa
from alembic import context
from alembic.runtime.migration import MigrationContext
from alembic.script import Script
from alembic.util import CommandError
from psycopg.errors import DeadlockDetected, DependentObjectsStillExist, LockNotAvailable
from sqlalchemy.exc import InternalError, OperationalError

from headrace import connections, startup
from headrace.errors import StoreUnavailable
from headrace.store import analyst, clock, months, views
from headrace.tables import metadata, revisions

log = logging.getLogger("headrace.release")

#: Any constant will do; it must be the same in every release.
MIGRATION_LOCK = 0x48656164
#: How long a release waits for another, and how often it looks, in seconds.
ANOTHER_FOR_S, LOOK_EVERY_S = 900.0, 0.5
#: Tries of a release that does not get a lock, and the pause between two, in seconds: some minutes in all.
TRIES, PAUSE_S = 60, 1.0


def run() -> None:
    if (given := context.config.attributes.get("connection")) is not None:  # A transaction of migrations/move.py.
        _migrate_as_one(given)
        return
    engine = connections.release(startup.load())
    try:
        with _alone(engine), engine.connect() as db:
            _check_age(db)
            _check_ledger_stays(db)
            _try(db)
    finally:
        engine.dispose()


@contextmanager
def _alone(engine: sa.Engine) -> Iterator[None]:
    """Hold the release's lock, in a transaction on a separate connection.

    A concurrent index build waits for every older snapshot to end, so this connection must not hold a snapshot. A
    statement that waits for the lock has one, so the lock is polled. Parameters leave an open portal, which has one, so
    the statement has no parameters.
    Raises: StoreUnavailable.
    """
    give_up_at = time.monotonic() + ANOTHER_FOR_S
    with engine.connect() as db:
        while not db.exec_driver_sql(f"SELECT pg_try_advisory_xact_lock({MIGRATION_LOCK})").scalar():
            db.rollback()
            if time.monotonic() > give_up_at:
                raise StoreUnavailable(f"Another release has been under way for {ANOTHER_FOR_S / 60:.0f} minutes.")
            time.sleep(LOOK_EVERY_S)
        yield
        db.rollback()


def _at(db: sa.Connection) -> str | None:
    return MigrationContext.configure(db).get_current_revision()


def _check_age(db: sa.Connection) -> None:
    """Raises: CommandError: the database is older than the baseline."""
    at = _at(db)
    db.rollback()
    if at is not None and revisions.is_from_before(at):
        raise CommandError(f"This database {revisions.lacking(at)}")


def _check_ledger_stays(db: sa.Connection) -> None:
    """Raises: CommandError: an unconfirmed downgrade would erase the ledger."""
    at = _at(db)
    has_entries = _ends_at_base(at) and db.scalar(sa.text("SELECT EXISTS (SELECT FROM ledger)"))
    db.rollback()
    if has_entries and context.get_x_argument(as_dictionary=True).get("erase-ledger") != "yes":
        raise CommandError(
            "This downgrade undoes the first migration, and with it the ledger, which has entries: what every request "
            "cost. Make a backup, and confirm: alembic -x erase-ledger=yes downgrade ..."
        )


def _ends_at_base(at: str | None) -> bool:
    """Whether the command takes a database at this revision down to no tables at all."""
    goal = _goal()
    if at is None or goal is None:
        return False
    return goal == "base" or (goal.startswith("-") and -int(goal) >= len(_between(at, "base")))


def _goal() -> str | None:
    """The command's argument; None for a command that changes nothing, such as `alembic check`."""
    try:
        return str(context.get_revision_argument() or "base")
    except KeyError:
        return None


def _between(upper: str, lower: str) -> list[Script]:
    """The migrations above `lower` up to `upper`, newest first."""
    return list(context.script.iterate_revisions(upper, lower))


def _is_whole(db: sa.Connection, name: str | None, kind: str, _parents: object) -> bool:
    """Whether `alembic check` compares this: a partition is described with the table that it is a part of."""
    if kind != "table":
        return True
    is_part = sa.text("SELECT relispartition FROM pg_class WHERE oid = to_regclass(quote_ident(:name))")
    return not db.scalar(is_part, {"name": name})


def _try(db: sa.Connection) -> None:
    """Migrate, and again if a lock is not free."""
    for tries in range(1, TRIES + 1):
        try:
            _migrate(db)
        except OperationalError as error:
            if not isinstance(error.orig, LockNotAvailable | DeadlockDetected) or tries == TRIES:
                raise
            log.warning("A release did not get its lock (%d of %d tries): %s", tries, TRIES, error.orig)
            db.rollback()
            time.sleep(PAUSE_S)
        else:
            return


def _migrate(db: sa.Connection) -> None:
    goal, at = _goal(), _at(db)
    applied = {script.revision for script in _between(at, "base")} if at else set()
    pending = [script for script in _between("head", "base") if script.revision not in applied]
    has_views = views.are_made(db)
    db.rollback()
    if goal is None or (has_views and not pending and goal == at):
        _run(db)
    elif goal == "base" or goal.startswith("-") or goal in applied - {at}:
        with db.begin():
            views.drop(db)
            if _ends_at_base(at):
                views.drop_tables_of_plugins(db)
        _run(db, transaction_per_migration=True)
    elif any("concurrently" in vars(script.module) for script in pending):
        # An index build commits what comes before it. The views stay meanwhile, however long it takes.
        with db.begin():
            views.make_functions_of_triggers(db)
        _run(db, transaction_per_migration=True)
        with db.begin():
            if not views.are_made(db):
                _finish(db, _drop_views(db))
    else:
        with db.begin():
            _migrate_as_one(db)


def _migrate_as_one(db: sa.Connection) -> None:
    """Upgrade in the transaction that this connection is in."""
    rights = _drop_views(db)
    views.make_functions_of_triggers(db)
    _run(db)
    if _at(db) == context.script.get_current_head():
        _finish(db, rights)


def _drop_views(db: sa.Connection) -> Sequence[str]:
    """Raises: CommandError: somebody's view reads one of them."""
    try:
        return views.drop(db)
    except InternalError as error:
        if not isinstance(error.orig, DependentObjectsStillExist):
            raise
        reason = " ".join(str(error.orig).split("HINT")[0].split())
        raise CommandError(f"{reason}. Drop that object, and make it again after the release.") from error


def _finish(db: sa.Connection, rights: Sequence[str]) -> None:
    """Make all but the tables: views, comments, analysts' rights, and the first months."""
    views.migrate_plugins(db)
    views.make(db, rights)
    analyst.renew(db)
    if not months.found(db):
        months.make(db, clock.now(db))


def _run(db: sa.Connection, *, transaction_per_migration: bool = False) -> None:
    context.configure(
        connection=db,
        target_metadata=metadata,
        transaction_per_migration=transaction_per_migration,
        include_name=partial(_is_whole, db),
    )
    with context.begin_transaction():
        context.run_migrations()


run()
