"""The semantic cache's tables are the same where the extension that its searches use may not be made."""

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

HAS_VECTORS = sa.text("SELECT to_regtype('vector') IS NOT NULL")


def test_the_extension_is_made_where_the_role_may(config: Config, engine: sa.Engine) -> None:
    command.upgrade(config, "head")
    with engine.begin() as db:
        assert db.scalar(HAS_VECTORS) is True


def test_a_role_that_may_make_no_extension_gets_the_same_tables(
    config: Config, engine: sa.Engine, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with engine.begin() as db:
        name = db.scalar(sa.text("SELECT current_database()"))
        db.exec_driver_sql("CREATE ROLE plain LOGIN PASSWORD 'plain'")
        db.exec_driver_sql("GRANT ALL ON SCHEMA public TO plain")
    url = sa.make_url(database_url).set(database=name, username="plain", password="plain")
    monkeypatch.setenv("DATABASE_URL", url.render_as_string(hide_password=False))
    try:
        command.upgrade(config, "head")

        command.check(config)
        with engine.begin() as db:
            assert db.scalar(HAS_VECTORS) is False
            # As an operator does it later, without a release.
            db.exec_driver_sql("CREATE EXTENSION vector")
            assert db.scalar(HAS_VECTORS) is True
    finally:
        with engine.begin() as db:
            db.exec_driver_sql("DROP OWNED BY plain CASCADE")
            db.exec_driver_sql("DROP ROLE plain")
