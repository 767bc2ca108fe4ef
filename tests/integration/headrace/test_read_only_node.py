"""A node of Postgres that answers and takes no writes is an outage, and nothing of it stays in the pool."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import sqlalchemy as sa

from headrace.errors import StoreUnavailable
from headrace.store import Store

ReadOnly = Callable[[], AbstractContextManager[None]]
WRITE = sa.text("UPDATE apps SET name = name")


def pids(store: Store, number: int) -> set[int]:
    """The backends of this number of the pool's connections."""
    if not number:
        return set()
    with store.begin() as db:
        return {db.scalar(sa.text("SELECT pg_backend_pid()")), *pids(store, number - 1)}


@pytest.mark.parametrize("way", ["begin", "autocommit"])
def test_read_only_node_is_an_outage_and_every_connection_to_it_is_dropped(
    store: Store, engine: sa.Engine, read_only: ReadOnly, way: str
) -> None:
    before = pids(store, 3)
    write = getattr(store, way)

    with read_only():
        with pytest.raises(StoreUnavailable, match="takes no writes"), write() as db:
            db.execute(WRITE)
        with pytest.raises(StoreUnavailable, match="read-only"), store.begin():
            pass

    with write() as db:
        db.execute(WRITE)
    assert pids(store, 3).isdisjoint(before)


def test_a_connection_that_has_only_read_writes_to_no_read_only_node_either(store: Store, read_only: ReadOnly) -> None:
    with store.read() as db:
        pid = db.scalar(sa.text("SELECT pg_backend_pid()"))
    assert pids(store, 1) == {pid}

    with read_only(), pytest.raises(StoreUnavailable, match="takes no writes"), store.begin() as db:
        db.execute(WRITE)


def test_server_that_shuts_a_session_down_is_an_outage_and_the_others_of_the_pool_are_dropped_too(
    store: Store, engine: sa.Engine
) -> None:
    before = pids(store, 3)

    with pytest.raises(StoreUnavailable), store.begin() as db:
        db.execute(sa.text("SELECT pg_terminate_backend(pg_backend_pid())"))

    assert pids(store, 3).isdisjoint(before)


def test_transaction_that_a_session_limit_ended_is_an_outage(store: Store) -> None:
    with pytest.raises(StoreUnavailable), store.begin() as db:
        db.execute(sa.text("SET LOCAL transaction_timeout = '50ms'; SELECT pg_sleep(10)"))

    assert pids(store, 1)
