"""Roles of analysts cannot stop the sweeps, and what they hold for too long is ended."""

import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from headrace import connections
from headrace.config import PROJECT_ROOT, Settings
from headrace.domain.apps import App
from headrace.domain.jobs import Idempotency
from headrace.domain.queues import Ticket
from headrace.store import Store, analyst
from scheduler import sweep
from scheduler.deps import ControlDeps
from scheduler.rescue import Patience, rescue
from scheduler.sweep import AnalystsEnder
from tests.waiting import until

ROLE, PASSWORD = "analyst of the sweeps", "of-the-tests"
#: What releases before the table of locks took, and what those after it might take again.
SWEEPS = ("expire", "rescue", "publish_due")
NAMESPACE = 1_214_603_620


@pytest.fixture
def as_analyst(engine: sa.Engine, store: Store, settings: Settings) -> Iterator[sa.Engine]:
    """Connections as an analyst, without any pool: what a test leaves open ends with its connection."""
    with store.begin() as db:
        analyst.allow(db, ROLE, PASSWORD)
    url = sa.make_url(settings.database_url).set(username=ROLE, password=PASSWORD)
    connected = sa.create_engine(url, poolclass=sa.NullPool)
    yield connected
    connected.dispose()
    with engine.begin() as db:
        db.exec_driver_sql(f'DROP OWNED BY "{ROLE}"')
        db.exec_driver_sql(f'DROP ROLE "{ROLE}"')


@pytest.fixture
def locking_analyst(as_analyst: sa.Engine, engine: sa.Engine) -> sa.Engine:
    """One that may call the functions of advisory locks, as where no superuser has revoked that."""
    with engine.begin() as db:
        for arguments in ("int, int", "bigint"):
            db.exec_driver_sql(f'GRANT EXECUTE ON FUNCTION pg_advisory_lock({arguments}) TO "{ROLE}"')
    return as_analyst


def test_an_analyst_that_holds_every_advisory_lock_stops_no_sweep(
    deps: ControlDeps,
    locking_analyst: sa.Engine,
    queued: Callable[..., Ticket],
    running_under: Any,
    end_lease: Any,
    age: Any,
    query: Any,
) -> None:
    late, lost, due = queued(), queued(), queued()
    age(late.job_id, timedelta(seconds=31))
    end_lease(running_under(lost))
    query("UPDATE jobs SET state = 'waiting', not_before = now() WHERE id = :id", id=due.job_id)
    with locking_analyst.connect() as db:
        for name in SWEEPS:
            db.execute(sa.text("SELECT pg_advisory_lock(:space, hashtext(:name))"), {"space": NAMESPACE, "name": name})

        assert (sweep.expire(deps), rescue(deps, Patience(0)), sweep.publish_due(deps)) == (1, 1, 2)


def test_no_sweep_takes_a_lock_that_any_role_could_take(deps: ControlDeps, store: Store) -> None:
    held: set[str] = set()

    def look(db: sa.Connection, *_: object) -> Any:
        held.update(db.scalars(sa.text("SELECT locktype FROM pg_locks WHERE pid = pg_backend_pid()")))
        return []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("headrace.store.jobs.late", look)
        sweep.expire(deps)

    assert "relation" in held
    assert "advisory" not in held


def test_an_analyst_that_holds_the_lock_of_an_idempotency_key_stops_no_request(
    locking_analyst: sa.Engine, queued: Callable[..., Ticket], app: App
) -> None:
    """As it was computed before: from the app's id, which analysts read, and a key that they guess."""
    name = sa.text("SELECT pg_advisory_lock(hashtextextended(:key, :space))")
    with locking_analyst.connect() as db:
        db.execute(name, {"key": f"{app.id}order-1", "space": NAMESPACE})
        assert queued(idempotency=Idempotency("order-1", b"hash"))


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TEMPORARY TABLE mine (x int)",
        "CREATE TABLE mine (x int)",
        "SELECT lo_create(0)",
        "SELECT lo_from_bytea(0, 'x')",
        "SELECT pg_advisory_lock(1)",
        "SELECT pg_try_advisory_xact_lock(1, 2)",
        "SELECT pg_logical_emit_message(false, '', '')",
        "SET temp_file_limit = -1",
        "SELECT name FROM locks FOR UPDATE",
        "LOCK TABLE locks IN ACCESS SHARE MODE",
    ],
)
def test_an_analyst_that_lifts_its_limits_still_makes_and_locks_nothing(as_analyst: sa.Engine, statement: str) -> None:
    with as_analyst.connect() as db:
        db.exec_driver_sql("SET default_transaction_read_only = off")
        db.commit()
        with pytest.raises(sa.exc.ProgrammingError, match="permission denied"):
            db.exec_driver_sql(statement)


def test_a_superuser_s_statements_on_the_page_run(as_analyst: sa.Engine, engine: sa.Engine) -> None:
    page = (PROJECT_ROOT / "docs" / "analytics.md").read_text()
    [statements] = [block for block in re.findall(r"```sql\n(.*?)```", page, re.S) if "DO $$" in block]
    with engine.begin() as db:
        db.exec_driver_sql(statements.replace("ROLE analyst", f'ROLE "{ROLE}"'))
        granted = "SELECT has_function_privilege(:role, 'pg_advisory_lock(bigint)', 'EXECUTE')"
        assert not db.scalar(sa.text(granted), {"role": ROLE})
        assert db.scalar(sa.text(granted), {"role": "headrace"})
        db.rollback()


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(analyst, "LONGEST", timedelta(milliseconds=200))


@pytest.mark.parametrize("statement", ["SELECT pg_sleep(60)", "SELECT 1"])
@pytest.mark.usefixtures("short")
def test_a_transaction_of_an_analyst_that_lasts_too_long_is_ended(
    deps: ControlDeps, as_analyst: sa.Engine, statement: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A query that runs, and a transaction that is idle; both have lifted the limits of their session."""
    with as_analyst.connect() as db:
        db.exec_driver_sql("SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0")
        db.commit()
        driver: Any = db.connection.driver_connection
        driver.execute(b"BEGIN")
        driver.pgconn.send_query(statement.encode())
        until(lambda: AnalystsEnder(deps)() == 1)
        with pytest.raises(sa.exc.DBAPIError):
            db.exec_driver_sql("SELECT 1")
        db.invalidate()
    [record] = [each for each in caplog.records if each.message == "analyst_ended"]
    assert record.__dict__["role"] == ROLE


@pytest.mark.usefixtures("short")
def test_sessions_of_other_roles_and_young_ones_of_analysts_go_on(
    deps: ControlDeps, as_analyst: sa.Engine, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with engine.connect() as own, as_analyst.connect() as db:
        own.exec_driver_sql("SELECT pg_sleep(0.3)")
        monkeypatch.setattr(analyst, "LONGEST", timedelta(minutes=5))
        db.exec_driver_sql("SELECT 1")
        assert AnalystsEnder(deps)() == 0
        assert (own.exec_driver_sql("SELECT 1").scalar(), db.exec_driver_sql("SELECT 1").scalar()) == (1, 1)


def test_a_session_of_an_analyst_that_holds_an_advisory_lock_is_ended(
    deps: ControlDeps, locking_analyst: sa.Engine
) -> None:
    with locking_analyst.connect() as db:
        db.exec_driver_sql("SELECT pg_advisory_lock(1)")
        db.commit()
        assert AnalystsEnder(deps)() == 1
        db.invalidate()


def test_a_user_that_is_no_superuser_ends_sessions_of_the_roles_that_it_made_and_names_the_others(
    as_analyst: sa.Engine, engine: sa.Engine, settings: Settings, short: None
) -> None:
    own = sa.make_url(settings.database_url)
    with engine.begin() as db:
        db.exec_driver_sql(f'REVOKE "{ROLE}" FROM "{own.username}"')  # As an older release made it.
        db.exec_driver_sql("CREATE ROLE operator LOGIN CREATEROLE PASSWORD 'd'")
        db.exec_driver_sql(f'GRANT "{own.username}" TO operator WITH INHERIT TRUE')
    url = own.set(username="operator", password="d").render_as_string(hide_password=False)
    as_operator = connections.postgres(settings.model_copy(update={"database_url": url}))
    other = sa.create_engine(own.set(username="of the operator", password="p"), poolclass=sa.NullPool)
    try:
        with Store(as_operator).begin() as db:
            assert not analyst.allow(db, "of the operator", "p")
        with other.connect() as seen:
            seen.exec_driver_sql("SELECT pg_sleep(0.3)")
            with Store(as_operator).begin() as db:
                assert set(analyst.out_of_reach(db)) == {ROLE}
                assert [row.role for row in analyst.end_sessions(db)] == ["of the operator"]
            seen.invalidate()
    finally:
        as_operator.dispose()
        with engine.begin() as db:
            for role in ("of the operator", "operator"):
                db.exec_driver_sql(f'DROP OWNED BY "{role}"')
                db.exec_driver_sql(f'DROP ROLE "{role}"')
