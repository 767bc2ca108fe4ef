"""A worker that starts: while Postgres is away, and with what Postgres knows."""

import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from decimal import Decimal

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from headrace import connections
from headrace.broker.admission import Admission
from headrace.config import HostTypeSettings, ScalingSettings, Settings
from headrace.domain.ids import new_id
from headrace.domain.queues import Lane, Route, Ticket
from headrace.domain.states import JobState
from headrace.errors import StoreUnavailable
from headrace.store import Store
from headrace.store.money import tariffs
from headrace.store.money.tariffs import ListPrice
from headrace.tables import hosts, jobs, own_prices, workers
from tests.chaos.proxy import Mode, Proxy
from tests.waiting import until
from workers.worker import Hooks, Worker

DEADLINE_S = 20


@pytest.fixture
def proxy(store: Store, settings: Settings) -> Iterator[Proxy]:
    port = sa.make_url(settings.database_url).port
    assert port is not None
    with Proxy(port) as proxy:
        proxy.turn(Mode.REFUSE)
        yield proxy


@pytest.fixture
def worker(proxy: Proxy, settings: Settings, admission: Admission) -> Iterator[Worker]:
    port = sa.make_url(settings.database_url).port
    away = settings.model_copy(update={"database_url": settings.database_url.replace(f":{port}/", f":{proxy.port}/")})
    away = away.model_copy(update={"drain_s": 0.0, "host_id": "i-0abc"})
    opened = Store(connections.postgres(away))
    yield Worker(away, Route.POOL, opened, admission, Hooks(lambda: None, lambda: None))
    opened.close()


def test_an_engine_that_is_up_waits_for_postgres_to_come_back(
    worker: Worker, proxy: Proxy, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("workers.worker.AGAIN_AFTER_S", 0.01)
    starting = threading.Thread(target=worker.start, args=("gpu@test",))
    starting.start()
    pause = threading.Event()
    while not any(record.message == "worker_not_registered" for record in caplog.records):
        assert starting.is_alive()
        pause.wait(0.01)
    proxy.turn(Mode.OK)
    starting.join(DEADLINE_S)

    with store.begin() as db:
        assert db.scalars(sa.select(workers.c.ready)).all() == [True]
    worker.stop()


def test_it_knows_from_the_start_how_long_the_answers_of_its_pool_are(
    worker: Worker, proxy: Proxy, store: Store, queued: Callable[..., Ticket], settings: Settings
) -> None:
    proxy.turn(Mode.OK)
    for _ in range(100):
        queued(model=settings.served_pool.model)
    with store.begin() as db:
        db.execute(sa.update(jobs).values(state=JobState.SUCCEEDED, ended_at=sa.func.now(), output_tokens=8))
    worker.start("gpu@test")
    # As many as fit when each has few tokens, and twice as many as when each may have all that it asks for.
    tokens = settings.simulator.kv_tokens
    let_in = [worker.kv_budget.hold(new_id(), Lane.NORMAL, 1, tokens // 8) for _ in range(16)]

    assert all(let_in)
    worker.stop()


def test_its_row_names_its_host_and_its_node_and_so_does_the_bill(worker: Worker, proxy: Proxy, store: Store) -> None:
    proxy.turn(Mode.OK)
    worker.start("gpu-0@machine")

    with store.begin() as db:
        [row] = db.execute(sa.select(workers.c.host_id, workers.c.name, workers.c.pool))
    assert row == ("i-0abc", "gpu-0@machine", "chat")
    assert worker.execute.bill.host_id == "i-0abc"
    worker.stop()


def test_its_bills_follow_the_measured_price_of_own_tokens(
    store: Store, settings: Settings, admission: Admission
) -> None:
    def price(usd: str) -> None:
        amounts = {f"{name}_usd_per_mtok": Decimal(usd) for name in ("input", "cached_input", "output")}
        host = {"pool": "chat", "instance_type": "a100", "usd_per_hour": 4, "tokens_per_s": 900, "work_per_token": 2}
        with store.begin() as db:
            db.execute(sa.insert(own_prices).values(**host, **amounts))

    def billed() -> Decimal:
        return worker.execute.bill.tariff.price(Route.POOL, "chat", settings.served_pool.model).input_usd_per_mtok

    types = {"a100": HostTypeSettings(usd_per_hour=Decimal(4))}
    priced = settings.model_copy(update={"hosts": types, "scaling": ScalingSettings(host_type="a100")})
    # Only the samples that the test asks for.
    priced = priced.model_copy(update={"sample_every_s": 3600.0, "drain_s": 0.0})
    worker = Worker(priced, Route.POOL, store, admission, Hooks(lambda: None, lambda: None))
    before = billed()
    price("0.7")
    worker.start("gpu@test")
    at_start = billed()
    price("0.9")
    worker.sampler.sample()
    after = billed()
    worker.stop()

    assert before == settings.served_pool.price.input_usd_per_mtok
    assert (at_start, after) == (Decimal("0.7"), Decimal("0.9"))


def test_its_calls_are_priced_by_the_list_price_in_force(
    store: Store, settings: Settings, admission: Admission
) -> None:
    def price(usd: str) -> None:
        with store.begin() as db:
            tariffs.take_list(db, [ListPrice("gpt-4o-mini", Decimal(usd), Decimal(usd), Decimal(usd), {}, "a list")])

    unpriced = settings.model_copy(
        update={"prices": {}, "openai_api_key": SecretStr("sk"), "sample_every_s": 3600.0, "drain_s": 0.0}
    )
    worker = Worker(unpriced, Route.OVERFLOW, store, admission, Hooks(lambda: None, lambda: None))
    prices = []
    worker.start("overflow@test")
    for usd in ("0.7", "0.9"):
        price(usd)
        worker.sampler.sample()
        prices.append(worker.execute.bill.tariff.api_price("any").input_usd_per_mtok)
    worker.stop()

    assert prices == [Decimal("0.7"), Decimal("0.9")]


def test_a_worker_that_starts_on_a_draining_host_takes_nothing(worker: Worker, proxy: Proxy, store: Store) -> None:
    proxy.turn(Mode.OK)
    lease = {"id": "ours", "provider_id": "i-0abc", "pool": "chat"}
    with store.begin() as db:
        db.execute(sa.insert(hosts).values(**lease, requested_at=sa.func.now(), drain_at=sa.func.now()))
    worker.start("gpu@test")
    takes = worker.execute.takes()
    about = worker.about()
    worker.stop()

    assert not takes
    assert about == {"host_id": "i-0abc", "draining": True}


@pytest.mark.parametrize("route", list(Route))
def test_the_workers_of_embeddings_alone_stay_ready_though_no_paid_model_is_in_use(
    route: Route, settings: Settings, admission: Admission, store: Store
) -> None:
    pool = settings.served_pool.model_copy(update={"serves": "embeddings"})
    changes = {"pools": {settings.pool: pool}, "lease_renew_every_s": 0.01, "openai_api_key": SecretStr("sk-test")}
    alone = Worker(settings.model_copy(update=changes), route, store, admission, Hooks(lambda: None, lambda: None))
    alone.start("worker@test")

    def rows() -> sa.Row[tuple[datetime, bool]]:
        with store.begin() as db:
            return db.execute(sa.select(workers.c.lease_until, workers.c.ready)).one()

    first = rows().lease_until
    until(lambda: rows().lease_until > first, "a renewal")
    assert rows().ready
    alone.stop()


def test_but_not_for_ever(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.worker.REGISTER_FOR_S", 0.0)
    with pytest.raises(StoreUnavailable):
        worker.start("gpu@test")


def test_a_pool_shares_its_prefix_cache_among_apps_only_if_it_says_so(
    worker: Worker, store: Store, settings: Settings, admission: Admission
) -> None:
    assert not worker.execute.shares_prefixes
    pool = settings.served_pool.model_copy(update={"shared_prefix_cache": True})
    shared = settings.model_copy(update={"pools": {settings.pool: pool}})
    made = Worker(shared, Route.POOL, store, admission, Hooks(lambda: None, lambda: None))
    assert made.execute.shares_prefixes
