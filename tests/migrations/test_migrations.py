"""Every migration up, the tables equal to `headrace.tables`, every migration down."""

import secrets
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from headrace.config import PROJECT_ROOT, Settings
from headrace.connections import postgres


@pytest.fixture
def config(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Config]:
    """Alembic, pointed at a database of this test's own."""
    name = f"migrations_{secrets.token_hex(4)}"
    admin = postgres(Settings.load(database_url=database_url)).execution_options(isolation_level="AUTOCOMMIT")
    with admin.connect() as db:
        db.execute(sa.text(f"CREATE DATABASE {name}"))
    url = sa.make_url(database_url).set(database=name).render_as_string(hide_password=False)
    monkeypatch.setenv("DATABASE_URL", url)
    yield Config(toml_file=PROJECT_ROOT / "pyproject.toml")
    with admin.connect() as db:
        db.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


def test_tables_are_those_of_the_code_when_every_migration_is_applied(config: Config) -> None:
    command.upgrade(config, "head")

    command.check(config)


def test_nothing_is_left_when_every_migration_is_undone(config: Config, database_url: str) -> None:
    command.upgrade(config, "head")

    command.downgrade(config, "base")

    engine = postgres(Settings.load())
    assert sa.inspect(engine).get_table_names() == ["alembic_version"]
    assert sa.inspect(engine).get_view_names() == []
    engine.dispose()
