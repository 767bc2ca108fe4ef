"""Connections to servers that do not answer, and to one that was restarted meanwhile."""

import signal
import socket
import subprocess
import sys
import threading
import time
from urllib.parse import urlsplit

import pytest
import sqlalchemy as sa
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeout
from redis.retry import Retry
from redis.sentinel import SentinelConnectionPool
from sqlalchemy.exc import DBAPIError

from headrace import connections
from headrace.config import PROJECT_ROOT, Settings
from headrace.connections import Sessions
from headrace.connections.redis import REDIS_TIMEOUT_S, DroppedSentinelConnection, redis_client
from headrace.errors import StoreUnavailable
from headrace.store import Store, sqlstate
from tests.chaos.proxy import Mode, Proxy


def test_redis_that_hangs_costs_a_caller_one_time_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = redis_client(Settings.load(redis_url=f"redis://127.0.0.1:{server.getsockname()[1]}/0"))
        began = time.monotonic()

        with pytest.raises(RedisTimeout):
            client.ping()

        assert time.monotonic() - began < 5 * REDIS_TIMEOUT_S
        client.close()
        server.setblocking(False)
        server.accept()[0].close()
        with pytest.raises(BlockingIOError):  # A second try would have come by a second connection.
            server.accept()


class OneMaster:
    """Knows where the master is, as Sentinels do."""

    def __init__(self, port: int) -> None:
        self.port = port

    def discover_master(self, _: str) -> tuple[str, int]:
        """Its address."""
        return "127.0.0.1", self.port


def test_what_a_master_says_late_is_nobodys_answer(settings: Settings) -> None:
    where = urlsplit(settings.redis_url)
    assert where.port is not None
    with Proxy(where.port) as proxy:
        pool = SentinelConnectionPool(
            "master",
            OneMaster(proxy.port),
            connection_class=DroppedSentinelConnection,
            password=where.password,
            socket_timeout=1.0,
            # As in `redis_client`.
            retry=Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
            decode_responses=True,
        )
        client = Redis(connection_pool=pool)
        assert client.echo("first") == "first"
        proxy.turn(Mode.BLACKHOLE)

        with pytest.raises(RedisTimeout):
            client.echo("late")

        # The late answer comes while the next one is awaited.
        passing = threading.Timer(0.2, proxy.turn, [Mode.OK])
        passing.start()
        assert [client.echo(f"{number}") for number in range(3)] == ["0", "1", "2"]
        passing.join()
        pool.disconnect()


def test_connection_with_an_unread_answer_is_replaced(settings: Settings) -> None:
    client = redis_client(settings)
    left = client.connection_pool.get_connection()
    left.send_command("ECHO", "unread")
    assert left.can_read(5)
    client.connection_pool.release(left)

    assert client.echo("own") == "own"
    client.close()


def test_every_thread_of_a_crowd_gets_a_connection(settings: Settings) -> None:
    client = redis_client(settings)
    held = [client.connection_pool.get_connection() for _ in range(150)]
    try:
        assert client.echo("one more") == "one more"
    finally:
        for connection in held:
            client.connection_pool.release(connection)
        client.close()


@pytest.fixture
def closed_by_postgres(store: Store, settings: Settings) -> Store:
    """A store whose one pooled connection has just been closed by the other side."""
    with store.begin() as db:
        pid = db.scalar(sa.func.pg_backend_pid())
    other = connections.postgres(settings)
    with other.begin() as db:
        assert db.scalar(sa.func.pg_terminate_backend(pid, 5_000))
    other.dispose()
    return store


def test_connection_that_postgres_closed_while_it_was_idle_is_replaced_unseen(
    closed_by_postgres: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "IDLE_S", 0)

    assert closed_by_postgres.run("SELECT 1", {}) == [(1,)]
    with closed_by_postgres.begin() as db:
        assert db.scalar(sa.select(1)) == 1


def test_connection_that_postgres_closed_right_after_its_use_fails_once(
    closed_by_postgres: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "IDLE_S", 60)

    with pytest.raises(StoreUnavailable), closed_by_postgres.begin() as db:
        db.scalar(sa.select(1))
    with closed_by_postgres.begin() as db:
        assert db.scalar(sa.select(1)) == 1


def test_single_statements_are_transactions_on_one_connection(settings: Settings) -> None:
    engine = connections.postgres(settings, pool_size=2)
    store = Store(engine)
    rows = [store.run("SELECT pg_backend_pid(), pg_current_xact_id()::text", {})[0] for _ in range(3)]

    assert len({pid for pid, _ in rows}) == 1
    assert len({transaction for _, transaction in rows}) == 3
    with store.begin() as db:
        assert db.scalar(sa.text("SELECT pg_backend_pid()")) == rows[0][0]
        assert not db.connection.driver_connection.autocommit  # type: ignore[union-attr]
    store.close()


def test_when_one_session_is_lost_all_that_were_idle_then_are_replaced_unseen(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "IDLE_S", 60)
    engine, other = (connections.postgres(settings, pool_size=3) for _ in range(2))
    store = Store(engine)
    with store.begin() as first, store.begin() as second, store.begin() as third:
        pids = [db.scalar(sa.func.pg_backend_pid()) for db in (first, second, third)]
    with other.begin() as db:
        assert all(db.scalar(sa.func.pg_terminate_backend(pid, 5_000)) for pid in pids)
    other.dispose()

    with pytest.raises(StoreUnavailable):
        store.run("SELECT 1", {})
    with store.begin() as first, store.begin() as second, store.begin() as third:
        assert [db.scalar(sa.text("SELECT 1")) for db in (first, second, third)] == [1, 1, 1]
    store.close()


def test_through_a_pooler_a_single_statement_sets_its_time_outs(store: Store, engine: sa.Engine) -> None:
    pooled = Sessions.of(engine)
    assert pooled is not None
    # As the first connection finds out.
    pooled.is_pooled = True
    said = list[str]()
    sa.event.listen(engine, "before_cursor_execute", lambda _db, _cursor, sql, *_: said.append(sql))

    assert store.run("SELECT current_setting('lock_timeout')", {}) == [("4s",)]
    assert "SET LOCAL lock_timeout = 4000" in said[0]


def test_a_single_statement_fails_as_any_other(closed_by_postgres: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "IDLE_S", 60)

    with pytest.raises(StoreUnavailable):
        closed_by_postgres.run("SELECT 1", {})
    assert closed_by_postgres.run("SELECT %(number)s::int", {"number": 1}) == [(1,)]
    with pytest.raises(DBAPIError) as error:
        closed_by_postgres.run("SELECT 1 / %(number)s::int", {"number": 0})
    assert sqlstate(error.value) == "22012"
    assert closed_by_postgres.run("SELECT 1", {}) == [(1,)]


def test_postgres_that_hangs_is_given_up_and_what_it_says_late_is_nobodys_answer(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "ANSWER_TIMEOUT_S", 0.5)
    port = sa.make_url(settings.database_url).port
    assert port is not None
    with Proxy(port) as proxy:
        url = settings.database_url.replace(f":{port}/", f":{proxy.port}/")
        engine = connections.postgres(settings.model_copy(update={"database_url": url}), pool_size=1)
        store = Store(engine)
        with store.begin() as db:
            assert db.scalar(sa.text("SELECT 1")) == 1
        proxy.turn(Mode.BLACKHOLE)
        began = time.monotonic()

        with pytest.raises(StoreUnavailable), store.begin() as db:
            db.scalar(sa.text("SELECT 2"))
        assert time.monotonic() - began < 10

        proxy.turn(Mode.OK)
        with store.begin() as db:
            assert db.scalar(sa.text("SELECT 3")) == 3
        engine.dispose()


def test_session_has_its_bounds_and_what_the_address_asks_for(settings: Settings) -> None:
    url = f"{settings.database_url}?options=-c%20search_path%3Delsewhere%20-c%20lock_timeout%3D1"
    engine = connections.postgres(settings.model_copy(update={"database_url": url}), pool_size=1)

    names = (
        *("search_path", "statement_timeout", "lock_timeout", "TimeZone", "idle_in_transaction_session_timeout"),
        *("tcp_keepalives_idle", "tcp_keepalives_interval", "tcp_keepalives_count", "tcp_user_timeout"),
    )
    with Store(engine).autocommit() as db:
        found = [db.scalar(sa.text(f"SHOW {name}")) for name in names]

    assert found == ["elsewhere", "10s", "4s", "UTC", "3s", "15", "5", "3", "30000"]
    engine.dispose()


#: A process that stops itself in a transaction which holds a lock, and goes on once it is let.
FROZEN = """
import os, signal, sys
import sqlalchemy as sa
from headrace import connections
from headrace.config import Settings
from headrace.errors import StoreUnavailable
from headrace.store import Store

try:
    with Store(connections.postgres(Settings.load(database_url=sys.argv[1]))).begin() as db:
        db.execute(sa.text("UPDATE budget_limits SET day_usd = 2"))
        print("locked", flush=True)
        os.kill(os.getpid(), signal.SIGSTOP)
        db.execute(sa.text("UPDATE budget_limits SET day_usd = 3"))
except StoreUnavailable as error:
    print("ended", error, flush=True)
"""


def test_a_process_that_is_stopped_in_a_transaction_keeps_no_lock_from_others(store: Store, settings: Settings) -> None:
    with store.begin() as db:
        db.execute(sa.text("INSERT INTO budget_limits (day_usd) VALUES (1)"))
    argv = [sys.executable, "-c", FROZEN, settings.database_url]
    frozen = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=PROJECT_ROOT)
    assert frozen.stdout is not None
    try:
        assert frozen.stdout.readline() == "locked\n"
        # One wait for the lock is enough: its time-out is longer.
        with store.begin() as db:
            assert db.scalar(sa.text("UPDATE budget_limits SET day_usd = day_usd + 4 RETURNING day_usd")) == 5
    finally:
        frozen.send_signal(signal.SIGCONT)
        said, _ = frozen.communicate(timeout=60)
    assert "idle-in-transaction timeout" in said
    with store.begin() as db:
        assert db.scalar(sa.text("SELECT day_usd FROM budget_limits")) == 5


def test_a_lone_caller_uses_one_connection_again_and_again(settings: Settings) -> None:
    engine = connections.postgres(settings, pool_size=3)
    store = Store(engine)
    with store.begin() as first, store.begin() as second, store.begin() as third:
        assert len({db.scalar(sa.text("SELECT pg_backend_pid()")) for db in (first, second, third)}) == 3

    used = set()
    for _ in range(6):
        with store.autocommit() as db:
            used.add(db.scalar(sa.text("SELECT pg_backend_pid()")))

    assert len(used) == 1, "the others have no statement prepared, and are tested before they are used again"
    engine.dispose()


@pytest.mark.parametrize("is_new", [False, True], ids=["taken before", "taken after"])
def test_a_connection_that_is_in_use_at_the_close_is_closed_once_it_is_given_back(
    settings: Settings, is_new: bool
) -> None:
    """Otherwise it would stay open until the garbage collector finds it, with a warning in whatever runs then."""
    engine = connections.postgres(settings)
    store = Store(engine)
    if is_new:
        store.close()
    with store.begin() as db:
        driver = db.connection.driver_connection
        store.close()
        assert db.scalar(sa.text("SELECT 1")) == 1
    assert driver is not None
    assert driver.closed
