"""The release step beside a busy system: no migration stops the system, and its time-outs stop no migration."""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from headrace import connections
from headrace.config import PROJECT_ROOT
from headrace.store import months
from tests.waiting import until

DEADLINE_S = 30.0
INDEX = "concurrently.create_index('by_end_user', 'jobs', ['end_user'])"
APP = sa.text("INSERT INTO apps (id, name, webhook_secret) VALUES (gen_random_uuid(), :name, 's')")
#: Migrations that take something away, by the release after which no code uses it any more.
CONTRACTS: dict[str, str] = {}
TAKES_AWAY = re.compile(
    r"DROP (COLUMN|TABLE|VIEW|CONSTRAINT)|RENAME|SET NOT NULL|ALTER COLUMN \S+ TYPE|ADD CONSTRAINT(?!.* NOT VALID)",
    re.S,
)

WithNext = Callable[[str], Config]


@contextmanager
def upgrading(config: Config) -> Iterator[list[BaseException]]:
    """Upgrade in a thread; it has ended after the block, and what it raised is in the list."""
    raised: list[BaseException] = []

    def upgrade() -> None:
        try:
            command.upgrade(config, "head")
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=upgrade)
    thread.start()
    yield raised
    thread.join(DEADLINE_S)
    assert not thread.is_alive()


def waits_for_a_lock(engine: sa.Engine, begins: str) -> bool:
    query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE :begins"
    with engine.begin() as db:
        return bool(db.scalar(sa.text(query), {"begins": f"{begins}%"}))


def test_migration_may_take_longer_than_a_statement_of_the_api(
    with_next: WithNext, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = with_next("op.execute('SELECT pg_sleep(0.5)')")
    monkeypatch.setattr(connections, "STATEMENT_TIMEOUT_MS", 100)

    command.upgrade(config, "head")


def test_migration_that_waits_for_a_table_lets_others_by_and_tries_again(
    with_next: WithNext, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "RELEASE_LOCK_TIMEOUT_MS", 300)
    config = with_next("op.add_column('jobs', sa.Column('more', sa.Integer))")
    with engine.connect() as slow:
        slow.execute(sa.text("SELECT count(*) FROM jobs"))
        with upgrading(config) as raised:
            for _ in range(2):
                until(lambda: waits_for_a_lock(engine, "ALTER TABLE jobs"))
                with engine.begin() as db:
                    # It queues behind the migration, and is served before the migration is.
                    assert db.scalar(sa.text("SELECT count(*) FROM jobs")) == 0
            slow.rollback()
    assert raised == []
    assert "more" in {column["name"] for column in sa.inspect(engine).get_columns("jobs")}


def test_index_is_built_while_its_table_is_written_to(with_next: WithNext, engine: sa.Engine) -> None:
    config = with_next("concurrently.create_index('by_created', 'apps', ['created_at'])")
    with engine.connect() as slow:
        slow.execute(APP, {"name": "slow"})
        with upgrading(config) as raised:
            until(lambda: waits_for_a_lock(engine, "CREATE INDEX CONCURRENTLY"))
            with engine.begin() as db:
                db.execute(APP, {"name": "meanwhile"})
            slow.commit()
    assert raised == []
    assert "by_created" in {index["name"] for index in sa.inspect(engine).get_indexes("apps")}


@pytest.mark.parametrize(("table", "column"), [("apps", "created_at"), ("jobs", "state"), ("deliveries", "url")])
def test_index_waits_for_a_long_transaction_instead_of_being_built_again_and_again(
    with_next: WithNext, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch, table: str, column: str
) -> None:
    """An analyst's query, or a backup, may take longer than all tries of a release."""
    monkeypatch.setattr(connections, "RELEASE_LOCK_TIMEOUT_MS", 200)
    config = with_next(f"concurrently.create_index('by_it', '{table}', ['{column}'])")
    waiting = (
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE :build"
        " AND now() - query_start > interval '1 s'"
    )

    def waits_long() -> object:
        with engine.begin() as db:
            return db.scalar(sa.text(waiting), {"build": "CREATE INDEX CONCURRENTLY by_it%"})

    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as slow:
        slow.execute(sa.text("SELECT 1"))
        with upgrading(config) as raised:
            try:
                until(waits_long)
            finally:
                slow.rollback()
    assert raised == []


def test_index_of_a_partitioned_table_is_built_partition_by_partition_while_it_is_written_to(
    with_next: WithNext, engine: sa.Engine
) -> None:
    config = with_next(INDEX)
    with engine.begin() as db:
        db.execute(APP, {"name": "busy"})
        parts = [f"jobs_{month.name}" for month in months.found(db)]
    with engine.connect() as slow:
        slow.execute(sa.text(f"UPDATE {parts[0]} SET end_user = end_user"))
        with upgrading(config) as raised:
            until(lambda: waits_for_a_lock(engine, "CREATE INDEX CONCURRENTLY"))
            with engine.begin() as db:
                db.execute(sa.text("UPDATE jobs SET end_user = end_user"))
            slow.commit()
    assert raised == []
    with engine.begin() as db:
        valid = (
            "SELECT indexrelid::regclass::text, indisvalid FROM pg_index WHERE indexrelid::regclass::text LIKE :name"
        )
        found = {tuple(row) for row in db.execute(sa.text(valid), {"name": "by_end_user%"})}
    assert found == {("by_end_user", True)} | {(part.replace("jobs", "by_end_user"), True) for part in parts}
    assert len(parts) > 1


def test_index_whose_build_was_interrupted_is_built_anew(with_next: WithNext, engine: sa.Engine) -> None:
    config = with_next("concurrently.create_index('by_secret', 'apps', ['webhook_secret'], unique=True)")
    with engine.begin() as db:
        db.execute(APP, [{"name": "one"}, {"name": "another"}])
    with pytest.raises(sa.exc.IntegrityError):
        command.upgrade(config, "head")
    with engine.begin() as db:
        db.execute(sa.text("UPDATE apps SET webhook_secret = name"))

    command.upgrade(config, "head")

    with engine.begin() as db:
        assert db.scalar(sa.text("SELECT indisvalid FROM pg_index WHERE indexrelid = 'by_secret'::regclass"))


def test_two_releases_at_once_both_end_well(config: Config) -> None:
    """From nothing, with every index that is built concurrently on the way."""
    alembic = [sys.executable, "-m", "alembic", "upgrade", "head"]
    env = {**os.environ}  # noqa: TID251 - it is handed on whole.
    releases = [
        subprocess.Popen(
            alembic, cwd=PROJECT_ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for _ in range(2)
    ]
    outputs = [release.communicate(timeout=2 * DEADLINE_S)[0] for release in releases]
    assert [release.returncode for release in releases] == [0, 0], outputs


def test_no_migration_locks_a_table_for_as_long_as_an_index_takes_or_takes_away_what_the_old_code_uses(
    config: Config, engine: sa.Engine
) -> None:
    """A rule is broken by name: in CONTRACTS, with the release after which nothing uses what goes."""
    said: list[str] = []
    sa.event.listen(
        sa.Engine, "before_cursor_execute", note := lambda *given: said.append(given[2]), named=False, retval=False
    )
    try:
        for script in reversed(list(ScriptDirectory.from_config(config).walk_revisions())):
            tables = set(sa.inspect(engine).get_table_names())
            said.clear()
            command.upgrade(config, script.revision)
            # The views are dropped and made again beside it; no migration does that.
            for sql in (each for each in said if not re.match(r"DROP (VIEW|FUNCTION) IF EXISTS", each)):
                locking = re.search(r"CREATE (?:UNIQUE )?INDEX (?!CONCURRENTLY).* ON (\w+)", sql)
                assert not (locking and locking[1] in tables), (
                    f"{script.revision}: use headrace.tables.concurrently: {sql}"
                )
                takes_away = TAKES_AWAY.search(sql)
                assert not takes_away or script.revision in CONTRACTS, f"{script.revision}: expand first: {sql}"
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", note)
