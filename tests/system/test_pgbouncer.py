"""PgBouncer in transaction mode, the real one: each transaction may get another session, and none may need its own."""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import psycopg
import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from headrace import connections, tables
from headrace.config import PROJECT_ROOT, Settings
from headrace.errors import ConfigError, LockHeld, StoreUnavailable
from headrace.stack.child import Child, Command
from headrace.stack.ports import LOOPBACK, free_port
from headrace.stack.postgres import Postgres, can_map, dropped, is_root, mapped
from headrace.stack.stack import Stack
from headrace.store import Store, locks

#: Sessions of Postgres that all clients share.
POOL_SIZE = 2
DEADLINE_S = 60.0
JOBS = 300
#: As it comes; and as those set it up whose drivers send what it refuses.
STRICT, LENIENT = "", "ignore_startup_parameters = options"
CONFIGURATION = """
[databases]
{name} = host={host} port={port} dbname={name} pool_size={pool_size}
[pgbouncer]
listen_addr = {host}
listen_port = {listen_port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {folder}/users
pool_mode = transaction
max_client_conn = 200
{more}
"""

NAME = "headrace"


@dataclass
class Pooled:
    """One Postgres and the pooler before it."""

    direct_url: str
    url: str

    def sql(self, query: str) -> Any:
        """The first value, straight from Postgres."""
        with psycopg.connect(self.direct_url, autocommit=True) as db:
            row = db.execute(query.encode()).fetchone()
        return row[0] if row else None


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """In a time zone that is not ours: no session is to rely on the server's."""
    postgres = Postgres(tmp_path_factory.mktemp("postgres"), free_port())
    with postgres.running():
        with psycopg.connect(plain(postgres.url), autocommit=True) as db:
            db.execute(f"ALTER DATABASE {NAME} SET timezone = 'Asia/Kolkata'".encode())
        yield postgres


def plain(url: str) -> str:
    return url.replace("+psycopg", "")


@pytest.fixture
def pool(postgres: Postgres, pgbouncer_path: str, tmp_path: Path) -> Callable[[str], Any]:
    """Runs a pooler with more in its configuration, for the length of a block."""

    @contextmanager
    def run(more: str = STRICT) -> Iterator[Pooled]:
        listen_port, url = free_port(), sa.make_url(postgres.url)
        folder = tmp_path / f"pgbouncer-{listen_port}"
        folder.mkdir()
        (folder / "users").write_text(f'"{url.username}" "{url.password}"\n')
        values = {"name": NAME, "host": LOOPBACK, "port": url.port, "pool_size": POOL_SIZE, "folder": folder}
        text = CONFIGURATION.format(listen_port=listen_port, more=more, **values)
        (folder / "pgbouncer.ini").write_text(text)
        # It refuses to be root.
        identity = "" if not is_root() else mapped() if can_map() else dropped()
        argv = (pgbouncer_path, str(folder / "pgbouncer.ini"))
        child = Child(Command("pgbouncer", argv, {"PATH": "/usr/bin"}, Path("/"), identity=identity), folder / "log")
        pooled = Pooled(plain(postgres.url), plain(postgres.url).replace(f":{url.port}/", f":{listen_port}/"))
        try:
            child.wait_until(lambda: answers(pooled.url), DEADLINE_S)
            yield pooled
        finally:
            child.stop()

    return run


def answers(url: str) -> bool:
    with suppress(psycopg.OperationalError), psycopg.connect(url):
        return True
    return False


@contextmanager
def store_of(pooled: Pooled) -> Iterator[Store]:
    store = Store(connections.postgres(Settings.load(database_url=pooled.url)))
    with store.begin():
        pass
    yield store
    store.close()


BOUNDS = sa.text(
    "SELECT current_setting('statement_timeout'), current_setting('lock_timeout'), current_setting('TimeZone'),"
    " current_setting('idle_in_transaction_session_timeout')"
)


@pytest.mark.parametrize("more", [STRICT, LENIENT])
@pytest.mark.parametrize("way", ["begin", "autocommit"])
def test_every_transaction_has_its_bounds_and_leaves_none_behind(
    pool: Callable[[str], Any], more: str, way: str
) -> None:
    with pool(more) as pooled, store_of(pooled) as store:
        for _ in range(4):
            with getattr(store, way)() as db:
                assert tuple(db.execute(BOUNDS).one()) == ("10s", "4s", "UTC", "3s")
            # Another client, which is given the same sessions.
            with psycopg.connect(pooled.url) as other:
                left = other.execute(BOUNDS.text.encode()).fetchone()
            assert left == ("0", "0", "Asia/Kolkata", "1min")


@pytest.mark.parametrize("way", ["begin", "autocommit"])
def test_a_statement_that_takes_too_long_is_stopped(
    pool: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setattr(connections, "STATEMENT_TIMEOUT_MS", 200)
    with (
        pool(STRICT) as pooled,
        store_of(pooled) as store,
        pytest.raises(StoreUnavailable, match="statement timeout"),
        getattr(store, way)() as db,
    ):
        db.execute(sa.text("SELECT pg_sleep(5)"))


def test_prepared_statements_survive_sessions_that_are_shared_and_transactions_that_are_rolled_back(
    pool: Callable[[str], Any],
) -> None:
    with pool(STRICT) as pooled, store_of(pooled) as one, store_of(pooled) as another:
        for number in range(48):
            for store in (one, another):
                with store.begin() as db:
                    assert db.scalar(sa.text("SELECT CAST(:number AS int) + 1"), {"number": number}) == number + 1
                    if number % 10 == 9:
                        db.rollback()
        with one.begin() as db:
            assert db.scalar(sa.text("SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%+ 1%'")) > 0


def test_a_pooler_that_keeps_no_prepared_statements_costs_one_error_and_then_their_speed(
    pool: Callable[[str], Any],
) -> None:
    outages = 0
    with pool("max_prepared_statements = 0") as pooled, store_of(pooled) as one, store_of(pooled) as another:
        for number in range(40):
            for store in (one, another):
                try:
                    with store.begin() as db:
                        assert db.scalar(sa.text("SELECT CAST(:number AS int)"), {"number": number}) == number
                except StoreUnavailable:
                    outages += 1
    assert 1 <= outages <= 4


def test_a_transaction_that_is_idle_keeps_its_locks_from_no_other_client(pool: Callable[[str], Any]) -> None:
    with pool(STRICT) as pooled, store_of(pooled) as one, store_of(pooled) as another:
        with psycopg.connect(pooled.direct_url, autocommit=True) as db:
            db.execute("CREATE TABLE money AS SELECT 1 AS usd")
        with ExitStack() as left:
            left.enter_context(pytest.raises(StoreUnavailable))
            idle = left.enter_context(one.begin())
            idle.exec_driver_sql("UPDATE money SET usd = 2")
            with another.begin() as db:
                assert db.exec_driver_sql("UPDATE money SET usd = usd + 2 RETURNING usd").scalar() == 3
            idle.exec_driver_sql("SELECT 1")


def test_locks_of_sweeps_hold_between_two_clients(pool: Callable[[str], Any]) -> None:
    with pool(STRICT) as pooled, store_of(pooled) as one, store_of(pooled) as another:
        with one.begin() as db:
            tables.locks.create(db)
            locks.take(db, "expire")
        with one.begin() as db, another.begin() as other:
            locks.take(db, "expire")
            with pytest.raises(LockHeld):
                locks.take(other, "expire")
        with another.begin() as other:
            locks.take(other, "expire")
        with one.begin() as db:
            tables.locks.drop(db)


@pytest.mark.parametrize("more", [STRICT, LENIENT])
def test_migrations_through_it_are_refused_with_the_remedy(
    pool: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch, more: str
) -> None:
    alembic = Config(toml_file=PROJECT_ROOT / "pyproject.toml")
    with pool(more) as pooled:
        monkeypatch.setenv("DATABASE_URL", pooled.url)
        with pytest.raises(ConfigError, match="HEADRACE_RELEASE_DATABASE_URL"):
            command.upgrade(alembic, "head")

        monkeypatch.setenv("HEADRACE_RELEASE_DATABASE_URL", pooled.direct_url)
        command.upgrade(alembic, "head")
        assert pooled.sql("SELECT count(*) FROM alembic_version") == 1


def sockets_to(pid: int, port: int) -> int:
    """How many connections a process has to this port."""
    inodes = set()
    for file in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            inodes.add(os.readlink(file).removeprefix("socket:[").removesuffix("]"))
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(line[2].endswith(f":{port:04X}") and line[9] in inodes for line in lines)


@pytest.mark.parametrize("more", [STRICT, LENIENT])
def test_a_whole_system_works_through_it_on_two_sessions_with_few_connections_for_each_worker(
    pool: Callable[[str], Any], tmp_path: Path, more: str
) -> None:
    without = ("--without", "flower", "--without", "overflow")
    with pool(more) as pooled:
        env = {
            "DATABASE_URL": pooled.url,
            "HEADRACE_RELEASE_DATABASE_URL": pooled.direct_url,
            "HEADRACE_POOLS__CHAT__MAX_RUNNING": "64",
            "HEADRACE_SIMULATOR__OUTPUT_TOKENS": "4",
            "HEADRACE_WEBHOOKS__ALLOW_PRIVATE": "true",
        }
        with Stack(tmp_path / "state", ("--engine", "simulator", *without), env) as stack:
            headers = {"Authorization": f"Bearer {stack.report.api_key}"}
            http = httpx2.Client(base_url=stack.report.url, headers=headers, timeout=DEADLINE_S)
            most: dict[str, int] = {}
            over = threading.Event()
            port = int(pooled.url.rpartition(":")[2].partition("/")[0])

            def watch() -> None:
                while not over.wait(0.02):
                    for name in ("gpu", "webhooks", "control"):
                        pid = stack.report.pids[name]
                        most[name] = max(most.get(name, 0), sockets_to(pid, port))

            watcher = threading.Thread(target=watch)
            watcher.start()

            def ask(number: int) -> str:
                job = http.post("/v1/jobs", json={"prompt": f"Number {number}?", "max_wait": 300}).json()
                return str(http.get(f"/v1/jobs/{job['id']}", params={"wait": 50}).json()["status"])

            with ThreadPoolExecutor(32) as threads:
                states = list(threads.map(ask, range(JOBS)))
            over.set()
            watcher.join()
            assert http.get("/readyz").status_code == 200
            http.close()

        assert states == ["succeeded"] * JOBS
        # Five in the pool, and one for the signs of life; control has one more, for its metrics.
        assert 1 < most["gpu"] <= 6
        assert most["webhooks"] <= 6
        assert most["control"] <= 7
        assert pooled.sql(f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{NAME}'") <= POOL_SIZE + 1
