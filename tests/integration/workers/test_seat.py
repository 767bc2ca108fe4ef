"""A seat that is taken while Postgres is away."""

import threading
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from headrace import connections
from headrace.admission import Admission
from headrace.config import Settings
from headrace.errors import StoreUnavailable
from headrace.jobs import Route
from headrace.store import Store
from headrace.tables import workers
from tests.chaos.proxy import Mode, Proxy
from workers.notices import Notices
from workers.seat import Seat

DEADLINE_S = 20


@pytest.fixture
def proxy(store: Store, settings: Settings) -> Iterator[Proxy]:
    port = sa.make_url(settings.database_url).port
    assert port is not None
    with Proxy(port) as proxy:
        proxy.turn(Mode.REFUSE)
        yield proxy


@pytest.fixture
def seat(proxy: Proxy, settings: Settings, admission: Admission) -> Iterator[Seat]:
    port = sa.make_url(settings.database_url).port
    away = settings.model_copy(update={"database_url": settings.database_url.replace(f":{port}/", f":{proxy.port}/")})
    away = away.model_copy(update={"drain_s": 0.0})
    notices = Notices(admission, lambda _: None)
    opened = Store(connections.postgres(away))
    yield Seat(away, Route.POOL, opened, notices, lambda: None, lambda: None)
    opened.close()


def test_an_engine_that_is_up_waits_for_postgres_to_come_back(
    seat: Seat, proxy: Proxy, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("workers.seat.AGAIN_AFTER_S", 0.01)
    taking = threading.Thread(target=seat.take)
    taking.start()
    until = threading.Event()
    while not any(record.message == "worker_not_registered" for record in caplog.records):
        assert taking.is_alive()
        until.wait(0.01)
    proxy.turn(Mode.OK)
    taking.join(DEADLINE_S)

    with store.begin() as db:
        assert db.scalars(sa.select(workers.c.ready)).all() == [True]
    seat.leave()


def test_but_not_for_ever(seat: Seat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.seat.REGISTER_FOR_S", 0.0)
    with pytest.raises(StoreUnavailable):
        seat.take()
