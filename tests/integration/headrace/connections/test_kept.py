"""The connection that single statements keep between them."""

from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from sqlalchemy.pool import QueuePool

from headrace import connections
from headrace.config import Settings
from headrace.connections import kept
from headrace.connections.sessions import Sessions
from headrace.errors import StoreUnavailable
from headrace.store import Store

PID = "SELECT pg_backend_pid()"


@pytest.fixture
def engine(settings: Settings) -> Iterator[sa.Engine]:
    """An engine of two connections, none of them open."""
    engine = connections.postgres(settings, pool_size=2)
    yield engine
    engine.dispose()


@pytest.fixture
def store(engine: sa.Engine) -> Store:
    return Store(engine)


def lent(engine: sa.Engine) -> int:
    """Connections that are not in the pool."""
    assert isinstance(engine.pool, QueuePool)
    return engine.pool.checkedout()


def end(settings: Settings, pid: int) -> None:
    """End a session."""
    other = connections.postgres(settings)
    with other.begin() as db:
        assert db.scalar(sa.func.pg_terminate_backend(pid, 5_000))
    other.dispose()


def test_statements_keep_one_connection_and_each_is_a_transaction(store: Store, engine: sa.Engine) -> None:
    rows = [store.run("SELECT pg_backend_pid(), pg_current_xact_id()::text", {})[0] for _ in range(3)]

    assert len({pid for pid, _ in rows}) == 1
    assert len({transaction for _, transaction in rows}) == 3
    assert lent(engine) == 1
    with store.begin() as first:
        assert first.scalar(sa.text(PID)) != rows[0][0]


def test_a_pool_of_one_keeps_none(settings: Settings) -> None:
    engine = connections.postgres(settings, pool_size=1)
    store = Store(engine)
    [(pid,)] = store.run(PID, {})

    assert lent(engine) == 0
    with store.begin() as db:
        assert db.scalar(sa.text(PID)) == pid
        assert not db.connection.driver_connection.autocommit  # type: ignore[union-attr]
    store.close()


def test_none_is_kept_of_a_pooler(store: Store, engine: sa.Engine) -> None:
    sessions = Sessions.of(engine)
    assert sessions is not None
    with sessions.kept.use():
        # As the first connection finds out.
        sessions.is_pooled = True

    assert lent(engine) == 0
    assert store.run("SELECT current_setting('lock_timeout')", {}) == [("4s",)]


def test_one_that_postgres_closed_while_it_was_idle_is_replaced_unseen(
    store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    [(pid,)] = store.run(PID, {})
    end(settings, pid)
    for module in (kept, connections):
        monkeypatch.setattr(module, "IDLE_S", 0.001)

    assert store.run(PID, {}) != [(pid,)]


def test_one_that_postgres_closed_right_after_its_use_fails_once(
    store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (kept, connections):
        monkeypatch.setattr(module, "IDLE_S", 60)
    [(pid,)] = store.run(PID, {})
    end(settings, pid)

    with pytest.raises(StoreUnavailable):
        store.run(PID, {})
    assert store.run(PID, {}) != [(pid,)]


@pytest.mark.parametrize("in_use", [False, True])
def test_the_kept_one_is_closed_with_the_store(store: Store, engine: sa.Engine, in_use: bool) -> None:
    sessions = Sessions.of(engine)
    assert sessions is not None
    with sessions.kept.use() as db:
        driver = db.connection.driver_connection
        if in_use:
            store.close()
    if not in_use:
        store.close()
    assert driver is not None
    assert driver.closed
