"""Every migration up, the tables equal to `headrace.tables`, every migration down."""

from argparse import Namespace

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.util import CommandError


def test_tables_are_those_of_the_code_when_every_migration_is_applied(config: Config) -> None:
    command.upgrade(config, "head")

    command.check(config)


def test_nothing_is_left_when_every_migration_is_undone(config: Config, engine: sa.Engine) -> None:
    command.upgrade(config, "head")

    command.downgrade(config, "base")

    assert sa.inspect(engine).get_table_names() == ["alembic_version"]
    assert sa.inspect(engine).get_view_names() == []


@pytest.mark.parametrize("to", ["base", "0001", "-99"])
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
