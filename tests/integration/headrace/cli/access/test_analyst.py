"""`headrace analyst` on a real Postgres: what its role reads, and what it cannot."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from click.testing import Result
from sqlalchemy.exc import DBAPIError

from headrace.cli.access.analyst import PAGE, page
from headrace.config import PROJECT_ROOT, Settings
from headrace.domain.prompts import Message
from headrace.domain.queues import Ticket
from headrace.store import Store
from headrace.store.analyst import CLOSED, HIDDEN, SESSION, VIEWS, dictionary, readable
from headrace.tables import apps, job_texts, jobs, metadata

Run = Callable[..., Result]
ROLE = "analyst of the tests"
CANARY = "canary-7f3a"


@pytest.fixture
def analyst(run: Run, engine: sa.Engine) -> Iterator[sa.Engine]:
    """Connections as the role, which the test's end removes."""
    result = run("analyst", "--role", ROLE)
    assert result.exit_code == 0, result.output
    connected = sa.create_engine(sa.make_url(result.stdout.strip()).set(drivername="postgresql+psycopg"))
    yield connected
    connected.dispose()
    with engine.begin() as db:
        db.exec_driver_sql(f'DROP OWNED BY "{ROLE}"')
        db.exec_driver_sql(f'DROP ROLE "{ROLE}"')


def refused(analyst: sa.Engine, statement: str) -> str:
    """The SQLSTATE of the refusal."""
    with analyst.connect() as db, pytest.raises(DBAPIError) as error:
        db.execute(sa.text(statement))
    return str(error.value.orig.sqlstate)  # type: ignore[union-attr]


def test_no_prompt_answer_metadata_or_secret_is_in_anything_that_it_reads(
    analyst: sa.Engine, store: Store, queued: Callable[..., Ticket]
) -> None:
    ticket = queued(messages=(Message("user", CANARY),), webhook_url=f"https://receiver.example/{CANARY}")
    with store.begin() as db:
        db.execute(sa.update(jobs).values(metadata={"k": CANARY}, error_message=CANARY))
        db.execute(sa.update(job_texts).values(answer=CANARY, reasoning=CANARY))
        db.execute(sa.update(apps).values(webhook_secret=CANARY, webhook_secret_old=CANARY))
    columns = {**readable(), **dict.fromkeys(VIEWS, ("*",))}
    with analyst.connect() as db:
        seen = {name: db.execute(sa.text(f"SELECT {', '.join(columns[name])} FROM {name}")).all() for name in columns}

    assert CANARY not in str(seen)
    assert [row.job_id for row in seen["cost_per_request"]] == [ticket.job_id]


@pytest.mark.parametrize("table", sorted(CLOSED))
def test_closed_tables_are_refused(analyst: sa.Engine, table: str) -> None:
    assert refused(analyst, f"SELECT count(*) FROM {table}") == "42501"


@pytest.mark.parametrize(
    ("table", "column"), [(table, each) for table in sorted(HIDDEN) for each in sorted(HIDDEN[table])]
)
def test_hidden_columns_are_refused(analyst: sa.Engine, table: str, column: str) -> None:
    assert refused(analyst, f"SELECT {column} FROM {table}") == "42501"


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO ledger (kind, usd) VALUES ('adjustment', 1)",
        "UPDATE jobs SET usd = 0",
        "DELETE FROM ledger",
        "CREATE TABLE mine (x int)",
    ],
)
def test_it_changes_nothing(analyst: sa.Engine, statement: str) -> None:
    with analyst.connect() as db:
        db.execute(sa.text("SET default_transaction_read_only = off"))
        db.commit()
        with pytest.raises(DBAPIError) as error:
            db.execute(sa.text(statement))
    assert error.value.orig.sqlstate == "42501"  # type: ignore[union-attr]


def test_a_second_call_gives_the_role_another_password(analyst: sa.Engine, run: Run) -> None:
    again = json.loads(run("analyst", "--role", ROLE, "--json").stdout)

    assert again["role"] == ROLE
    assert again["url"] != analyst.url.set(drivername="postgresql").render_as_string(hide_password=False)
    analyst.dispose()
    with pytest.raises(DBAPIError):
        analyst.connect()


def test_the_own_role_is_refused(run: Run, settings: Settings) -> None:
    result = run("analyst", "--role", sa.make_url(settings.database_url).username or "")

    assert result.exit_code == 1
    assert "is the role that Headrace itself uses" in result.stderr


def test_a_role_that_somebody_else_made_is_refused_and_keeps_what_it_has(run: Run, engine: sa.Engine) -> None:
    about = "SELECT rolsuper, rolcreatedb, rolpassword FROM pg_authid WHERE rolname = 'bi team'"
    with engine.begin() as db:
        db.exec_driver_sql("CREATE ROLE \"bi team\" LOGIN SUPERUSER CREATEDB PASSWORD 'theirs'")
        before = db.execute(sa.text(about)).one()
    result = run("analyst", "--role", "bi team")
    with engine.begin() as db:
        after = db.execute(sa.text(about)).one()
        db.exec_driver_sql('DROP ROLE "bi team"')

    assert result.exit_code == 1
    assert "The role 'bi team' exists, and 'headrace analyst' did not make it" in result.stderr
    assert after == before


def test_a_user_that_is_no_superuser_makes_the_role_and_renews_it(
    run: Run, engine: sa.Engine, settings: Settings
) -> None:
    own = sa.make_url(settings.database_url)
    with engine.begin() as db:
        db.exec_driver_sql("CREATE ROLE deployer LOGIN CREATEROLE PASSWORD 'd'")
        db.exec_driver_sql(f'GRANT "{own.username}" TO deployer')
    url = own.set(username="deployer", password="d").render_as_string(hide_password=False)
    results = [run("analyst", "--role", ROLE, DATABASE_URL=url) for _ in range(2)]
    reads = sa.create_engine(sa.make_url(results[1].stdout.strip()).set(drivername="postgresql+psycopg"))
    with reads.connect() as db:
        rows = db.execute(sa.text("SELECT count(*) FROM cost_per_request")).scalar()
    reads.dispose()
    with engine.begin() as db:
        for role in (ROLE, "deployer"):
            db.exec_driver_sql(f'DROP OWNED BY "{role}"')
            db.exec_driver_sql(f'DROP ROLE "{role}"')

    assert [result.exit_code for result in results] == [0, 0], results[0].output
    assert rows == 0


def test_an_idle_transaction_ends_and_a_query_has_a_limit_in_this_database(analyst: sa.Engine) -> None:
    with analyst.connect() as db:
        found = [db.scalar(sa.text(f"SHOW {name}")) for name in SESSION]

    assert found == list(SESSION.values())


def test_the_dictionary_is_current(store: Store) -> None:
    with store.begin() as db:
        made = page(dictionary(db))

    assert (PROJECT_ROOT / PAGE).read_text(encoding="utf-8") == made, (
        "run 'bin/headrace analyst --page' beside 'bin/headrace up', and commit docs/dictionary.md"
    )


def test_each_column_of_each_view_is_described(store: Store) -> None:
    with store.begin() as db:
        relations = dictionary(db)

    views = {each.name: each for each in relations if each.name in VIEWS}
    assert views.keys() == set(VIEWS)
    assert [name for name, each in views.items() if not each.about] == []
    assert [(name, column) for name, each in views.items() for column, _, about in each.columns if not about] == []


def test_the_dictionary_has_no_hidden_column_and_no_closed_table(store: Store) -> None:
    with store.begin() as db:
        columns = {each.name: {name for name, _, _ in each.columns} for each in dictionary(db)}

    assert not columns.keys() & CLOSED
    assert [table for table in HIDDEN if columns[table] & HIDDEN[table]] == []


def test_the_page_is_written_into_the_checkout(
    run: Run, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "docs").mkdir()
    monkeypatch.setattr("headrace.cli.access.analyst.PROJECT_ROOT", tmp_path)

    result = run("analyst", "--page")

    assert result.stdout == f"{PAGE} is made.\n"
    with store.begin() as db:
        assert (tmp_path / PAGE).read_text(encoding="utf-8") == page(dictionary(db))


def test_each_table_is_open_or_closed_and_each_hidden_column_exists() -> None:
    tables = {table.name: {column.name for column in table.columns} for table in metadata.sorted_tables}

    assert tables.keys() >= CLOSED
    assert all(HIDDEN[table] <= tables[table] for table in HIDDEN)
    of_core = [name for name in sorted(readable()) if not metadata.tables[name].info.get("plugin")]
    assert of_core == OPEN, "decide for a new table whether analysts may read it"


#: A new table fails the test until its columns are classified.
OPEN = [
    *(
        "apps",
        "attempts",
        "budget_limits",
        "budgets",
        "cache_matches",
        "charge_days",
        "closed_days",
        "confinements",
        "cost_days",
    ),
    *("cost_hours", "decisions", "deliveries", "host_actors", "host_hours", "hosts"),
    *("job_retries", "jobs", "label_days", "label_keys", "ledger"),
    *(
        "list_prices",
        "own_prices",
        "plugin_versions",
        "poison_strikes",
        "processes",
        "queue_rollups",
    ),
    *("queue_samples", "refusals", "scaling_alerts"),
    *("unsettled_calls", "user_days", "worker_samples", "workers"),
]
