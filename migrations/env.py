"""Runs migrations. The address comes from Settings; an advisory lock lets only one release run at a time.

A migration that does not get a table's lock at once gives way to the statements that queue behind it, and is retried.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import sqlalchemy as sa
from alembic import context
from alembic.runtime.migration import MigrationContext
from alembic.util import CommandError
from psycopg.errors import DeadlockDetected, LockNotAvailable
from sqlalchemy.exc import OperationalError

from headrace import connections, startup
from headrace.errors import StoreUnavailable
from headrace.tables import metadata

log = logging.getLogger("headrace.release")

#: Any constant will do; it must be the same in every release.
MIGRATION_LOCK = 0x48656164
#: The migration that makes the ledger append-only.
LEDGER_SINCE = 2
#: How long a release waits for another, and how often it looks, in seconds.
ANOTHER_FOR_S, LOOK_EVERY_S = 900.0, 0.5
#: Tries of a migration that does not get its lock, and the pause between two, in seconds: some minutes in all.
TRIES, PAUSE_S = 60, 1.0


def run() -> None:
    """Upgrade or downgrade, in one transaction per migration; without one while an index is built concurrently."""
    engine = connections.release(startup.load())
    try:
        with _alone(engine), engine.connect() as db:
            _check_ledger_stays(db)
            _migrate(db)
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


def _check_ledger_stays(db: sa.Connection) -> None:
    """Raises: CommandError: an unconfirmed downgrade would erase the ledger, or let its entries be changed."""
    is_undone = _undoes(LEDGER_SINCE, *MigrationContext.configure(db).get_current_heads())
    has_entries = is_undone and db.scalar(sa.text("SELECT EXISTS (SELECT FROM ledger)"))
    db.rollback()
    if has_entries and context.get_x_argument(as_dictionary=True).get("erase-ledger") != "yes":
        raise CommandError(
            f"This downgrade undoes migration {LEDGER_SINCE:04}, and with it the ledger, which has entries: what every "
            "request cost. Make a backup, and confirm: alembic -x erase-ledger=yes downgrade ..."
        )


def _undoes(revision: int, current: str = "0000") -> bool:
    """Whether the command takes a schema at `current` to before `revision`. Revisions are numbers."""
    try:
        to = context.get_revision_argument()
    except KeyError:  # A command that changes nothing, such as `alembic check`.
        return False
    goal = str(to or 0)
    # A target that is not a number goes up from here: `+1`, or a named revision.
    if not goal.removeprefix("-").isdigit() or not current.isdigit():
        return False
    ends_at = int(current) + int(goal) if goal.startswith("-") else int(goal)
    return ends_at < revision <= int(current)


def _is_whole(db: sa.Connection, name: str | None, kind: str, _parents: object) -> bool:
    """Whether `alembic check` compares this: a partition is described with the table that it is a part of."""
    if kind != "table":
        return True
    is_part = sa.text("SELECT relispartition FROM pg_class WHERE oid = to_regclass(quote_ident(:name))")
    return not db.scalar(is_part, {"name": name})


def _migrate(db: sa.Connection) -> None:
    for tries in range(1, TRIES + 1):
        context.configure(
            connection=db, target_metadata=metadata, transaction_per_migration=True, include_name=partial(_is_whole, db)
        )
        try:
            with context.begin_transaction():
                context.run_migrations()
        except OperationalError as error:
            if not isinstance(error.orig, LockNotAvailable | DeadlockDetected) or tries == TRIES:
                raise
            # Finished migrations are committed: the next try goes on with the one that failed.
            log.warning("A migration did not get its lock (%d of %d tries): %s", tries, TRIES, error.orig)
            db.rollback()
            time.sleep(PAUSE_S)
        else:
            return


run()
