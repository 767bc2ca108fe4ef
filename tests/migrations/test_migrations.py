"""Every migration up, the tables equal to `headrace.tables`, every migration down."""

import sqlalchemy as sa
from alembic import command
from alembic.config import Config


def test_tables_are_those_of_the_code_when_every_migration_is_applied(config: Config) -> None:
    command.upgrade(config, "head")

    command.check(config)


def test_nothing_is_left_when_every_migration_is_undone(config: Config, engine: sa.Engine) -> None:
    command.upgrade(config, "head")

    command.downgrade(config, "base")

    assert sa.inspect(engine).get_table_names() == ["alembic_version"]
    assert sa.inspect(engine).get_view_names() == []
