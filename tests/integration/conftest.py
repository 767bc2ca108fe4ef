"""A migrated, empty Postgres and an empty Valkey for each test, and what the core makes of them."""

import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from celery import Celery
from redis import Redis

from headrace import connections
from headrace.broker.admission import Admission
from headrace.broker.messages import ExecuteMessage, make_celery
from headrace.config import PROJECT_ROOT, Settings
from headrace.connections.redis import redis_client
from headrace.domain.apps import App
from headrace.domain.ids import new_id
from headrace.domain.jobs import Inserted, JobSpec
from headrace.domain.prompts import Message, Sampling
from headrace.domain.queues import Candidate, Lane, Ticket
from headrace.policies.health import BLOCKING_S
from headrace.store import Store, apps, jobs
from headrace.store.jobs.insertion import insert_batch, until_settled
from headrace.tables import metadata, plugin_versions
from tests.integration.months_of_jobs import make_past_months
from tests.waiting import until


@pytest.fixture(scope="session")
def migrated_url(database_url: str) -> str:
    """The database, with every migration applied."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE_URL", database_url)
        command.upgrade(Config(toml_file=PROJECT_ROOT / "pyproject.toml"), "head")
    return database_url


@pytest.fixture
def settings(migrated_url: str, redis_url: str) -> Settings:
    return Settings.load(database_url=migrated_url, redis_url=redis_url, engine="simulator", pepper="of-the-tests")


@pytest.fixture
def celery(settings: Settings, redis: Redis) -> Iterator[Celery]:
    """An app that registers no task, over an empty Redis."""
    with make_celery("test", settings) as made:
        yield made


@pytest.fixture(scope="session", autouse=True)
def patience() -> Iterator[None]:
    """On a busy machine Postgres may need more than 2 s to start a session."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connections, "CONNECT_TIMEOUT_S", 30)
        yield


@pytest.fixture(scope="module")
def open_pools(migrated_url: str) -> Iterator[list[sa.Engine]]:
    """The connection pool that the tests of a file share, once there is one: a new session spends 20 ms on the tables.

    Args: migrated_url: a file may have a database of its own, which outlives the pool.
    """
    pools: list[sa.Engine] = []
    yield pools
    for each in pools:
        connections.close(each)


@pytest.fixture
def engine(settings: Settings, open_pools: list[sa.Engine]) -> Iterator[sa.Engine]:
    """A connection pool to empty tables. Tests hold its transactions open for as long as they like."""
    if not open_pools:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(connections, "IDLE_TIMEOUT_MS", 0)
            open_pools.append(connections.postgres(settings))
    [engine] = open_pools
    with engine.begin() as db:
        # What a release noted of plugins is no row of a test.
        empty(db, (table for table in metadata.sorted_tables if table is not plugin_versions))
    yield engine
    if engine.pool.checkedout():
        # A thread of the code under test still uses one.
        connections.close(open_pools.pop())


ReadOnly = Callable[[], AbstractContextManager[None]]


@pytest.fixture
def read_only(migrated_url: str) -> ReadOnly:
    """Makes the node read-only for the length of a block, as a managed Postgres with a full disk makes itself."""
    return lambda: _server_setting(migrated_url, "default_transaction_read_only", "on")


@pytest.fixture
def disk_is_away(migrated_url: str) -> Callable[[], AbstractContextManager[None]]:
    """Makes every commit that waits for the disk hang in a block: a standby that is away must have it, too."""

    @contextmanager
    def away() -> Iterator[None]:
        with _server_setting(migrated_url, "synchronous_standby_names", "absent"):
            # New sessions show the setting at once, but commits heed it once the checkpointer has read it, too.
            until(lambda: _commit_hangs(migrated_url), "commits hang")
            yield

    return away


def _commit_hangs(url: str) -> bool:
    """Whether a commit waits for the standby. It is let go then."""
    server = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with server.connect() as db, server.connect() as admin, ThreadPoolExecutor(1) as threads:
        pid = db.exec_driver_sql("SELECT pg_backend_pid()").scalar()
        commit = threads.submit(db.exec_driver_sql, "SELECT pg_logical_emit_message(true, 'test', 'a commit')")

        def hangs() -> bool:
            state = f"SELECT wait_event FROM pg_stat_activity WHERE pid = {pid}"
            return admin.exec_driver_sql(state).scalar() == "SyncRep"

        until(lambda: hangs() or commit.done(), "it is committed, or hangs")
        if commit.done():
            return False
        admin.exec_driver_sql(f"SELECT pg_cancel_backend({pid})")
        commit.result()
        return True


def waiting_for_disk(store: Store) -> int:
    """How many statements wait for the disk while it is away."""
    with store.autocommit() as db:
        query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
        return int(db.exec_driver_sql(query).scalar() or 0)


@contextmanager
def _server_setting(url: str, name: str, value: str) -> Iterator[None]:
    """Change a setting of the whole server for the length of a block."""
    admin = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)

    def turn(to: str) -> None:
        with admin.connect() as db:
            db.exec_driver_sql(f"ALTER SYSTEM SET {name} = '{to}'")
            db.exec_driver_sql("SELECT pg_reload_conf()")

        def is_turned() -> bool:
            with admin.connect() as db:
                return db.exec_driver_sql(f"SHOW {name}").scalar() == to

        until(is_turned, f"{name} = '{to}'")

    with admin.connect() as db:
        before = str(db.exec_driver_sql(f"SHOW {name}").scalar())
    turn(value)
    try:
        yield
    finally:
        turn(before)


def empty(db: sa.Connection, tables: Iterable[sa.Table]) -> None:
    """Delete all rows of these tables, without what hangs on them in others.

    A TRUNCATE makes new files for every table and index: 85 ms instead of 5, before each of a thousand tests. It is
    worth it where many rows have left: until a vacuum every statement reads past them.
    """
    names = [table.name for table in tables]
    # So that no trigger runs: the ledger's refuses every change.
    db.exec_driver_sql("SET LOCAL session_replication_role = replica")
    if db.exec_driver_sql(_HAS_GROWN).scalar():
        db.exec_driver_sql(f"TRUNCATE {', '.join(names)} CASCADE")
    else:
        db.exec_driver_sql("; ".join(f"DELETE FROM {name}" for name in names))


_HAS_GROWN = """
    SELECT EXISTS (SELECT FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
                   AND pg_relation_size(oid) > 1000000)
"""


@pytest.fixture
def store(engine: sa.Engine) -> Store:
    return Store(engine)


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    """An empty Valkey; a test that asks for no more needs no Postgres."""
    client = redis_client(Settings.load(redis_url=redis_url))
    client.flushall()
    yield client
    client.close()


@pytest.fixture
def admission(redis: Redis, settings: Settings) -> Admission:
    return Admission(redis, ExecuteMessage(make_celery("test", settings)), reservation_ttl_s=30)


@pytest.fixture
def app(store: Store) -> App:
    with store.begin() as db:
        return apps.ensure(db, "test")


@pytest.fixture
def make_spec(app: App) -> Callable[..., JobSpec]:
    """Makes a valid JobSpec of the app `test`; keyword arguments replace its fields."""

    def make(**changes: Any) -> JobSpec:
        values: dict[str, Any] = {
            "id": new_id(),
            "app_id": app.id,
            "model": "test-model",
            "pool": "chat",
            "lane": Lane.NORMAL,
            "messages": (Message("user", "What is a headrace?"),),
            "sampling": Sampling(max_tokens=16),
            "prompt_tokens": 8,
            "max_wait_s": 30.0,
        }
        return JobSpec(**{**values, **changes})

    return make


@pytest.fixture
def insert_job(store: Store) -> Callable[[JobSpec], Inserted]:
    """Inserts one job as `queued`, with no message, as patiently as the API does."""

    def insert(spec: JobSpec) -> Inserted:
        (outcome,) = insert_batch(store, [(spec, Candidate(f"{spec.pool}.{spec.lane}", 1, 1, None, "test"))])
        if isinstance(outcome, Inserted):
            return outcome
        raise outcome

    return lambda spec: until_settled(lambda: insert(spec))


@pytest.fixture
def queued(
    store: Store, make_spec: Callable[..., JobSpec], insert_job: Callable[[JobSpec], Inserted]
) -> Callable[..., Ticket]:
    """Inserts a job as `queued`, with no message, and returns its ticket."""

    def insert(**changes: Any) -> Ticket:
        spec = make_spec(**changes)
        with store.begin() as db:
            make_past_months(db, spec.id)
        insert_job(spec)
        with store.begin() as db:
            return jobs.find(db, spec.app_id, spec.id).ticket

    return insert


@pytest.fixture
def query(store: Store) -> Callable[..., Any]:
    """Runs a statement; returns its rows as tuples, none for a change."""

    def run(sql: str, **values: Any) -> list[tuple[Any, ...]]:
        with store.begin() as db:
            result = db.execute(sa.text(sql), values)
            return [tuple(row) for row in result] if result.returns_rows else []

    return run


@pytest.fixture
def holder(migrated_url: str, query: Callable[..., Any]) -> Iterator[Callable[[str], int]]:
    """Runs a statement in a session that then stays idle for longer than is taken for short. Returns: its pid."""
    with psycopg.connect(migrated_url.replace("+psycopg", ""), application_name="a-forgotten-psql") as db:

        def hold(statement: str) -> int:
            db.execute(statement.encode())
            age_s = "SELECT extract(epoch FROM clock_timestamp() - xact_start) FROM pg_stat_activity WHERE pid = :pid"
            pid = db.info.backend_pid
            until(lambda: query(age_s, pid=pid)[0][0] > BLOCKING_S, "the lock has lasted long")
            return pid

        yield hold
        db.rollback()


@pytest.fixture
def age(store: Store) -> Callable[[UUID, timedelta], None]:
    """Moves a job's times into the past, as if it had been accepted that long ago."""

    def move(job_id: UUID, by: timedelta) -> None:
        with store.begin() as db:
            db.execute(
                sa.text(
                    "UPDATE jobs SET created_at = created_at - :by, queued_at = queued_at - :by,"
                    " start_by = start_by - :by, finish_by = finish_by - :by WHERE id = :id"
                ),
                {"by": by, "id": job_id},
            )

    return move


@pytest.fixture
def replica_for_a_while(redis: Redis) -> Callable[[], AbstractContextManager[None]]:
    """Makes Valkey a read-only replica, of a master that does not answer."""

    @contextmanager
    def demote() -> Iterator[None]:
        redis.execute_command("REPLICAOF", "127.0.0.1", "1")
        try:
            yield
        finally:
            redis.execute_command("REPLICAOF", "NO", "ONE")

    return demote


@pytest.fixture
def redis_disk_full(redis_url: str) -> Iterator[Callable[[], AbstractContextManager[None]]]:
    """Has Valkey refuse writes as it does on a full disk: its snapshots fail, since a folder stands in their place."""
    # A plain client: that of the project takes such a server for one that is away, which is what the tests look at.
    redis = Redis.from_url(redis_url, decode_responses=True)

    @contextmanager
    def fill() -> Iterator[None]:
        in_the_way = Path(redis.config_get("dir")["dir"], "dump.rdb")
        in_the_way.joinpath("x").mkdir(parents=True)
        redis.config_set("save", "3600 1")
        try:
            _save(redis, "err")
            yield
        finally:
            shutil.rmtree(in_the_way)
            _save(redis, "ok")
            redis.config_set("save", "")
            in_the_way.unlink()

    yield fill
    redis.close()


def _save(redis: Redis, outcome: str) -> None:
    """Take a snapshot; returns once it has ended like that."""
    redis.execute_command("BGSAVE", "SCHEDULE")

    def has_ended() -> bool:
        found = redis.info("persistence")
        return not found["rdb_bgsave_in_progress"] and found["rdb_last_bgsave_status"] == outcome

    until(has_ended, f"a snapshot that ends with '{outcome}'")
