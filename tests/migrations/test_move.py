"""The rows of a database that is older than 0.1.0 arrive whole, or nothing changes.

`before/0070.sql` is a dump of such a database, which the last code before 0.1.0 made and filled: rows in every table,
in three months and about no job, and one detached month.
"""

import os
import runpy
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from click.testing import CliRunner, Result
from sqlalchemy.exc import DatabaseError

from headrace.config import PROJECT_ROOT
from headrace.domain.ids import time_of
from headrace.stack.ports import free_port
from headrace.stack.postgres import Postgres
from headrace.store import Store, jobs, months
from headrace.tables import BY_MONTH, metadata

DUMP = (Path(__file__).parent / "before" / "0070.sql").read_text(encoding="utf-8")
SCRIPT = PROJECT_ROOT / "migrations" / "move.py"
ASIDE = "before_0_1_0"
#: Tables that a database of before has not.
NEW = {
    *("files", "batches", "batch_lines", "processes", "provider_batches"),
    *("host_hours", "bills", "bill_checks", "label_keys", "label_days", "charge_days"),
    *("paused_receivers", "plugin_versions"),
}
#: Columns that its tables have not.
ADDED = (
    *("discounted", "discounted_tokens", "is_repeat", "ended", "failed", "expired"),
    *("gpu_use", "gpu_memory", "gpu_watts", "error_cause", "start_after", "notes"),
)
Rows = dict[str, list[dict[str, Any]]]


def address() -> str:
    """The test's database, as `config` names it in the environment."""
    return os.environ["DATABASE_URL"].replace("+psycopg", "")  # noqa: TID251


def load(url: str) -> None:
    with psycopg.connect(url) as db:
        db.execute(DUMP.encode())


def run() -> Result:
    """What the script does, in this process."""
    script = runpy.run_path(str(SCRIPT))
    return CliRunner().invoke(script["main"], catch_exceptions=False)


@pytest.fixture
def old(config: Config, engine: sa.Engine) -> sa.Engine:
    """The old database, to which nothing is connected."""
    load(address())
    return engine


def rows(engine: sa.Engine, schema: str = "public") -> Rows:
    """Every row of every table, in an order."""
    found = {}
    with engine.begin() as db:
        for name in metadata.tables.keys() - NEW:
            each = db.exec_driver_sql(f"SELECT t.*, t::text AS sorted_by FROM {schema}.{name} t").mappings()
            found[name] = sorted((dict(row) for row in each), key=lambda row: sorted(map(str, row.values())))
    engine.dispose()
    for of_table in found.values():
        for row in of_table:
            del row["sorted_by"]
            # Nothing wrote or read them.
            for column in ("published_at", "batch_id", "custom_id"):
                row.pop(column, None)
            for column in ADDED:
                row.pop(column, None)
    return found


def sums(engine: sa.Engine, schema: str = "public") -> list[tuple[Any, ...]]:
    amounts = "count(*), sum(usd), sum(idle_usd), sum(api_usd), sum(saved_usd), sum(prompt_tokens), sum(output_tokens)"
    with engine.begin() as db:
        query = f"SELECT kind, {amounts} FROM {schema}.ledger GROUP BY kind ORDER BY kind"
        found = [tuple(row) for row in db.exec_driver_sql(query)]
    engine.dispose()
    return found


def test_every_row_arrives_and_the_ledger_adds_up_as_before(config: Config, old: sa.Engine) -> None:
    before, sums_before = rows(old), sums(old)
    assert [name for name, of_table in before.items() if not of_table] == [], "the dump has rows of every table"

    done = run()

    assert done.exit_code == 0, done.stderr
    after = rows(old)
    for name in metadata.tables.keys() - NEW:
        assert after[name] == before[name], name
    assert sums(old) == sums_before
    assert f"the ledger adds up to {sum(each[2] for each in sums_before)} USD, as before" in done.stdout
    assert rows(old, ASIDE) == before, "the old tables keep their rows"
    command.upgrade(config, "head")
    command.check(config)


def test_the_new_tables_go_on_where_the_old_ones_ended(config: Config, old: sa.Engine) -> None:
    with old.begin() as db:
        numbered = ("ledger", "own_prices", "decisions", "worker_samples", "audit_log", "list_prices")
        lasts = {name: db.scalar(sa.text(f"SELECT max(id) FROM {name}")) for name in numbered}
        [retry] = db.execute(sa.text("SELECT id, retry_of FROM jobs WHERE retry_of IS NOT NULL LIMIT 1")).all()
    old.dispose()

    assert run().exit_code == 0
    command.upgrade(config, "head")

    with old.begin() as db:
        adjustment = "INSERT INTO ledger (kind, usd) VALUES ('adjustment', 1) RETURNING id, tableoid::regclass::text"
        assert db.execute(sa.text(adjustment)).one() == (lasts["ledger"] + 1, "ledger_without_job")
        for name, last in lasts.items():
            following = sa.text("SELECT nextval(pg_get_serial_sequence(:name, 'id'))")
            assert db.scalar(following, {"name": name}) >= last + 1
    for change in ("UPDATE ledger SET usd = 0", "DELETE FROM ledger"):
        with pytest.raises(DatabaseError, match="immutable"), old.begin() as db:
            db.exec_driver_sql(change)
    again = "INSERT INTO job_retries (job_id, retried_as) VALUES (:old, :old)"
    with pytest.raises(DatabaseError, match="pk_job_retries"), old.begin() as db:
        db.execute(sa.text(again), {"old": retry.retry_of})


def test_each_row_is_in_the_month_of_its_job_and_months_follow_each_other(config: Config, old: sa.Engine) -> None:
    assert run().exit_code == 0

    with old.begin() as db:
        ends = [time_of(month.until) for month in months.found(db)]
        numbers = [end.year * 12 + end.month for end in ends]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        for table, key in BY_MONTH.items():
            homes = db.execute(sa.text(f"SELECT {key}, tableoid::regclass::text FROM {table}")).all()
            assert len({home for _, home in homes}) > 1
            for job_id, home in homes:
                month = "without_job" if job_id is None else f"{time_of(job_id):%Y_%m}"
                assert home == f"{table}_{month}"


def test_a_job_is_found_with_its_text_and_its_bill(config: Config, old: sa.Engine) -> None:
    with old.begin() as db:
        query = (
            "SELECT j.id, j.app_id, t.answer, l.usd FROM jobs j JOIN job_texts t ON t.job_id = j.id"
            " JOIN ledger l ON l.job_id = j.id AND l.kind = 'compute' WHERE j.state = 'succeeded' LIMIT 1"
        )
        job = db.execute(sa.text(query)).one()
    old.dispose()

    assert run().exit_code == 0
    command.upgrade(config, "head")

    with Store(old).begin() as db:
        assert jobs.find(db, job.app_id, job.id).answer == job.answer
        bill = sa.text("SELECT usd FROM cost_per_request WHERE job_id = :id")
        assert db.scalar(bill, {"id": job.id}) == job.usd > Decimal(0)


def test_roles_have_the_rights_that_they_had(
    config: Config, old: sa.Engine, role: str, caplog: pytest.LogCaptureFixture
) -> None:
    with old.begin() as db:
        db.exec_driver_sql(
            f"GRANT SELECT, UPDATE ON jobs, alembic_version TO {role}; GRANT SELECT ON charges TO {role}"
        )
        db.exec_driver_sql(f"GRANT SELECT (id, usd) ON ledger TO {role} WITH GRANT OPTION")
        db.exec_driver_sql(f"GRANT SELECT (published_at) ON deliveries TO {role}")
    old.dispose()

    assert run().exit_code == 0
    command.upgrade(config, "head")

    # The column is gone.
    [gone] = [record.getMessage() for record in caplog.records if record.name == "headrace.store.views"]
    assert f"GRANT SELECT (published_at) ON deliveries TO {role}" in gone
    with old.begin() as db:
        db.exec_driver_sql(f"SET LOCAL ROLE {role}")
        assert db.execute(sa.text("UPDATE jobs SET end_user = end_user")).rowcount > 0
        for readable in ("version_num FROM alembic_version", "count(usd) FROM ledger", "count(*) FROM charges"):
            assert db.scalar(sa.text(f"SELECT {readable}"))
        for closed in ("kind FROM ledger", "* FROM apps", "* FROM gpu_hours"):
            with pytest.raises(DatabaseError, match="permission denied"), db.begin_nested():
                db.execute(sa.text(f"SELECT {closed}"))
        assert db.scalar(sa.text("SELECT has_column_privilege('ledger', 'usd', 'SELECT WITH GRANT OPTION')"))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("ALTER TABLE jobs ADD COLUMN mine int", "before_0_1_0.jobs has columns that are unknown here"),
        ("UPDATE alembic_version SET version_num = '0069'", "at migration 0069. Bring it to 0070 first: check out"),
        ("UPDATE alembic_version SET version_num = '0100'", "at migration 0100: it is no older than 0.1.0"),
        ("DROP TABLE alembic_version", "has no tables of Headrace"),
    ],
)
def test_what_cannot_be_moved_stays_as_it_was(config: Config, old: sa.Engine, change: str, reason: str) -> None:
    with old.begin() as db:
        db.exec_driver_sql(change)
    before = rows(old)

    done = run()

    assert done.exit_code == 1
    assert reason in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert rows(old) == before
    assert ASIDE not in sa.inspect(old).get_schema_names()


def test_a_process_that_runs_is_in_the_way(config: Config, old: sa.Engine) -> None:
    with psycopg.connect(address(), application_name="headrace", autocommit=True):
        done = run()
    assert done.exit_code == 1
    assert "1 connections of Headrace are open: stop its processes first" in done.stderr


def test_without_an_address_the_database_of_this_machines_stack_is_moved(tmp_path: Path) -> None:
    postgres = Postgres(tmp_path / "postgres", free_port())
    with postgres.running():
        load(postgres.url.replace("+psycopg", ""))

    env = {**os.environ, "HEADRACE_STATE": str(tmp_path), "DATABASE_URL": ""}  # noqa: TID251
    done = subprocess.run([sys.executable, SCRIPT], cwd=PROJECT_ROOT, env=env, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    with postgres.running():
        engine = sa.create_engine(postgres.url)
        assert rows(engine) == rows(engine, ASIDE)
