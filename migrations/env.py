"""Runs migrations. The address comes from Settings; an advisory lock lets only one release run at a time."""

import sqlalchemy as sa
from alembic import context

from headrace.config import Settings
from headrace.connections import postgres
from headrace.tables import metadata

#: Any constant will do; it must be the same in every release.
MIGRATION_LOCK = 0x48656164


def run() -> None:
    """Upgrade or downgrade in one transaction per migration."""
    engine = postgres(Settings.load())
    with engine.connect() as db:
        db.execute(sa.text("SELECT pg_advisory_lock(:key)"), {"key": MIGRATION_LOCK})
        db.commit()
        context.configure(connection=db, target_metadata=metadata, transaction_per_migration=True)
        with context.begin_transaction():
            context.run_migrations()
    engine.dispose()


run()
