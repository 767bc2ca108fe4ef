"""Views, functions and comments have one text each. Each release makes them anew, with the rights that roles have."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy.exc import DatabaseError

from headrace.config import PROJECT_ROOT
from headrace.domain.ids import new_id
from headrace.store import analyst, views

FOLDER = Path(views.__file__).parent
WithNext = Callable[[str], Config]


def oids(engine: sa.Engine) -> dict[str, int]:
    with engine.begin() as db:
        of_views = sa.text("SELECT relname, oid FROM pg_class WHERE relname = ANY (:names)")
        return {row.relname: row.oid for row in db.execute(of_views, {"names": list(views.VIEWS)})}


def test_each_view_and_function_has_a_file_and_each_file_is_made() -> None:
    assert {file.stem for file in FOLDER.glob("*.sql")} == {*views.MADE, *views.OF_TRIGGERS}
    for name in views.MADE:
        kind = "FUNCTION" if name in views.FUNCTIONS else "VIEW"
        assert re.search(rf"^CREATE {kind} {name}\b", views.text(name), re.MULTILINE)
    for name in views.OF_TRIGGERS:
        assert re.search(rf"^CREATE OR REPLACE FUNCTION {name}\b", views.text(name), re.MULTILINE)


def test_no_migration_makes_a_view_a_function_or_a_comment() -> None:
    for file in (PROJECT_ROOT / "migrations" / "versions").iterdir():
        if file.suffix in (".py", ".sql"):
            assert not re.search(r"CREATE (OR REPLACE )?(VIEW|FUNCTION)|COMMENT ON|comment=", file.read_text()), file


def test_every_view_and_column_of_a_view_says_what_it_means(config: Config, engine: sa.Engine) -> None:
    command.upgrade(config, "head")
    with engine.begin() as db:
        found = [each for each in analyst.dictionary(db) if each.name in views.VIEWS]
    assert len(found) == len(views.VIEWS)
    assert [(each.name, name) for each in found for name, _, about in each.columns if not (about and each.about)] == []


def test_a_release_that_changes_nothing_leaves_the_views_alone(config: Config, engine: sa.Engine) -> None:
    command.upgrade(config, "head")
    before = oids(engine)
    with engine.connect() as reader:
        reader.execute(sa.text("SELECT count(*) FROM charges"))

        command.upgrade(config, "head")

    assert oids(engine) == before


@pytest.mark.parametrize("made_of", ["DROP VIEW charges CASCADE", "COMMENT ON COLUMN jobs.cache IS 'old'"])
def test_a_release_with_other_texts_makes_views_and_comments_anew(
    config: Config, engine: sa.Engine, made_of: str
) -> None:
    command.upgrade(config, "head")
    before = oids(engine)
    with engine.begin() as db:
        db.exec_driver_sql(made_of)
        db.exec_driver_sql("COMMENT ON TABLE alembic_version IS 'views of an older release'")

    command.upgrade(config, "head")

    assert oids(engine).keys() == before.keys()
    assert not set(oids(engine).values()) & set(before.values())
    command.check(config)


def test_a_migration_changes_a_column_that_a_view_reads(with_next: WithNext, engine: sa.Engine) -> None:
    config = with_next("op.execute('ALTER TABLE apps ALTER COLUMN name TYPE varchar(200)')")

    command.upgrade(config, "head")

    with engine.begin() as db:
        kind = "SELECT atttypid::regtype::text FROM pg_attribute WHERE attrelid = 'charges'::regclass"
        assert db.scalar(sa.text(f"{kind} AND attname = 'app'")) == "character varying"


def test_a_failed_migration_leaves_the_views_and_tables_of_before(with_next: WithNext, engine: sa.Engine) -> None:
    config = with_next("op.execute('ALTER TABLE apps ADD COLUMN more int'); op.execute('SELECT 1 / 0')")
    before = oids(engine)

    with pytest.raises(DatabaseError, match="division by zero"):
        command.upgrade(config, "head")

    assert oids(engine) == before
    assert "more" not in {column["name"] for column in sa.inspect(engine).get_columns("apps")}


def test_the_views_stay_while_an_index_is_built(with_next: WithNext, engine: sa.Engine) -> None:
    config = with_next("concurrently.create_index('by_secret', 'apps', ['webhook_secret'])")
    before = oids(engine)

    command.upgrade(config, "head")

    assert oids(engine) == before
    assert "by_secret" in {index["name"] for index in sa.inspect(engine).get_indexes("apps")}


def test_rights_of_others_stay_as_they_were(with_next: WithNext, engine: sa.Engine, role: str) -> None:
    config = with_next("op.add_column('apps', sa.Column('more', sa.Integer))")
    with engine.begin() as db:
        db.exec_driver_sql(f"GRANT SELECT (id, state) ON jobs TO {role}; GRANT SELECT ON ledger, charges TO {role}")
        db.exec_driver_sql(f"GRANT SELECT (app, usd) ON cost_per_request TO {role} WITH GRANT OPTION")
        # A view of the operators' own.
        db.exec_driver_sql("CREATE VIEW theirs AS SELECT count(*) AS jobs FROM jobs")

    command.upgrade(config, "head")

    with engine.begin() as db:
        assert db.scalar(sa.text("SELECT jobs FROM theirs")) == 0
        db.exec_driver_sql(f"SET LOCAL ROLE {role}")
        for readable in ("count(id) FROM jobs", "count(*) FROM charges", "count(usd) FROM cost_per_request"):
            assert db.scalar(sa.text(f"SELECT {readable}")) == 0
        for closed in ("metadata FROM jobs", "job_id FROM cost_per_request", "* FROM gpu_hours"):
            with pytest.raises(DatabaseError, match="permission denied"), db.begin_nested():
                db.execute(sa.text(f"SELECT {closed}"))


def test_an_analyst_reads_what_a_release_adds(with_next: WithNext, engine: sa.Engine) -> None:
    name = f"analyst_{new_id().hex}"
    config = with_next("op.add_column('apps', sa.Column('more', sa.Integer))")
    with engine.begin() as db:
        assert analyst.allow(db, name, "of-the-test")
        # As if this release had added the two.
        db.exec_driver_sql(f"REVOKE ALL ON charges, hosts FROM {name}; REVOKE SELECT (pool) ON hosts FROM {name}")
    try:
        command.upgrade(config, "head")

        with engine.begin() as db:
            db.exec_driver_sql(f"SET LOCAL ROLE {name}")
            assert db.scalar(sa.text("SELECT count(pool) FROM hosts")) == 0
            assert db.scalar(sa.text("SELECT count(*) FROM charges")) == 0
            with pytest.raises(DatabaseError, match="permission denied"), db.begin_nested():
                db.execute(sa.text("SELECT webhook_secret FROM apps"))
    finally:
        with engine.begin() as db:
            db.exec_driver_sql(f"DROP OWNED BY {name}; DROP ROLE {name}")


def test_a_view_of_others_that_reads_one_of_these_is_named(with_next: WithNext, engine: sa.Engine) -> None:
    config = with_next("op.add_column('apps', sa.Column('more', sa.Integer))")
    with engine.begin() as db:
        db.exec_driver_sql("CREATE VIEW theirs AS SELECT sum(usd) AS usd FROM charges")

    with pytest.raises(CommandError, match=r"view theirs depends on view charges.* make it again after the release"):
        command.upgrade(config, "head")

    with engine.begin() as db:
        assert db.scalar(sa.text("SELECT usd FROM theirs")) is None
        db.exec_driver_sql("DROP VIEW theirs")
    command.upgrade(config, "head")
