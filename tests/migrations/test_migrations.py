"""Every migration up, the tables equal to `headrace.tables`, every migration down; and none on an older database."""

from argparse import Namespace

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy.exc import DatabaseError


def test_tables_are_those_of_the_code_when_every_migration_is_applied(config: Config) -> None:
    command.upgrade(config, "head")

    command.check(config)


def test_nothing_is_left_when_every_migration_is_undone(config: Config, engine: sa.Engine) -> None:
    command.upgrade(config, "head")

    command.downgrade(config, "base")

    assert sa.inspect(engine).get_table_names() == ["alembic_version"]
    assert sa.inspect(engine).get_view_names() == []


@pytest.mark.parametrize("to", ["base", "-1", "-99"])
def test_a_downgrade_below_the_ledger_asks_first(config: Config, engine: sa.Engine, to: str) -> None:
    command.upgrade(config, "head")
    with engine.begin() as db:
        db.execute(sa.text("INSERT INTO ledger (kind, usd) VALUES ('adjustment', 1)"))
        (head,) = db.scalars(sa.text("SELECT version_num FROM alembic_version"))

    with pytest.raises(CommandError, match="alembic -x erase-ledger=yes downgrade"):
        command.downgrade(config, to)

    with engine.begin() as db:
        assert db.scalar(sa.text("SELECT count(*) FROM ledger")) == 1
        assert db.scalars(sa.text("SELECT version_num FROM alembic_version")).all() == [head], "nothing was undone"


def test_a_downgrade_below_the_ledger_goes_on_once_it_is_confirmed(config: Config, engine: sa.Engine) -> None:
    command.upgrade(config, "head")
    with engine.begin() as db:
        db.execute(sa.text("INSERT INTO ledger (kind, usd) VALUES ('adjustment', 1)"))
    config.cmd_opts = Namespace(x=["erase-ledger=yes"])

    command.downgrade(config, "base")

    assert sa.inspect(engine).get_table_names() == ["alembic_version"]


@pytest.mark.parametrize("revision", ["0001", "0070"])
def test_a_database_that_is_older_than_the_baseline_is_left_alone_and_told_what_to_do(
    config: Config, engine: sa.Engine, revision: str
) -> None:
    with engine.begin() as db:
        db.exec_driver_sql("CREATE TABLE alembic_version (version_num text)")
        db.execute(sa.text("INSERT INTO alembic_version VALUES (:revision)"), {"revision": revision})

    with pytest.raises(CommandError) as raised:
        command.upgrade(config, "head")

    assert str(raised.value) == (
        f"This database is at migration {revision}, which is older than 0.1.0: move its rows to the tables of now with "
        "'bin/headrace python migrations/move.py', whose --help says more."
    )
    assert sa.inspect(engine).get_table_names() == ["alembic_version"]


def test_the_ledger_refuses_each_change_from_the_first_migration_on(config: Config, engine: sa.Engine) -> None:
    command.upgrade(config, "head")
    with engine.begin() as db:
        db.exec_driver_sql("INSERT INTO ledger (kind, usd) VALUES ('adjustment', 1)")

    for change in ("UPDATE {} SET usd = 0", "DELETE FROM {}"):
        for table in ("ledger", "ledger_without_job"):
            with pytest.raises(DatabaseError, match="immutable"), engine.begin() as db:
                db.exec_driver_sql(change.format(table))
