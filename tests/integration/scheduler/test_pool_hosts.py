"""What a decision is told of a pool's hosts, and of the paid API beside them."""

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from headrace.config import HostTypeSettings, Price, ScalingSettings, Settings
from headrace.domain.fleet import WorkerInfo
from headrace.domain.ids import new_id
from headrace.domain.scaling import PoolHosts
from headrace.store import Store, clock
from headrace.store.fleet import workers
from headrace.store.money import budgets
from headrace.store.scaling import capacity
from headrace.tables import decisions, hosts, ledger
from scheduler.autoscale import pool_hosts

MINI = Price(input_usd_per_mtok=Decimal(1), output_usd_per_mtok=Decimal(4), source="test", version="1")


@pytest.fixture
def typed(settings: Settings) -> Settings:
    """An active pool with hosts of the type `a100`, and a paid API with a key and a price."""
    scaling = ScalingSettings(mode="active", actuator="command", host_type="a100", min_hosts=1)
    types = {"a100": HostTypeSettings(usd_per_hour=Decimal("4.10"), provision_s=100, tokens_per_s=2000)}
    values = {"scaling": scaling, "hosts": types, "openai_api_key": SecretStr("sk"), "prices": {"gpt-4o-mini": MINI}}
    return settings.model_copy(update=values)


@pytest.fixture
def found(store: Store, typed: Settings) -> Callable[..., PoolHosts]:
    def load(settings: Settings = typed, spill_tokens_per_s: float | None = 500.0) -> PoolHosts:
        with store.begin() as db:
            return pool_hosts(db, settings, "chat", clock.now(db), spill_tokens_per_s)

    return load


@pytest.fixture
def start(store: Store) -> Callable[..., None]:
    """Starts a worker of the pool on a host."""

    def register(host_id: str, pool: str = "chat") -> None:
        with store.begin() as db:
            workers.register(db, WorkerInfo(new_id(), "w", host_id, pool, "simulator", "m", 8), 10.0)

    return register


@pytest.fixture
def book(store: Store) -> Callable[..., None]:
    """Books this number of jobs of the pool, each with 1,000 prompt tokens and 500 tokens of an answer."""

    def write(count: int, kind: str = "compute", usd: str = "0.0001", **columns: Any) -> None:
        row = {
            "pool": "chat",
            "prompt_tokens": 1000,
            "output_tokens": 500,
            "kind": kind,
            "usd": Decimal(usd),
            **columns,
        }
        with store.begin() as db:
            db.execute(sa.insert(ledger), [{**row, "job_id": new_id()} for _ in range(count)])

    return write


@pytest.fixture
def open_to_all(store: Store, typed: Settings, start: Callable[..., None]) -> None:
    """The paid API has a worker, and a budget for all apps."""
    start("paid", "overflow")
    with store.begin() as db:
        budgets.set_limits(db, {"day_usd": Decimal(5)}, typed.budgets)


def test_a_fresh_pool_has_what_the_settings_say(found: Callable[..., PoolHosts]) -> None:
    expected = PoolHosts(0, tokens_per_s=2000, slots_per_host=32, provision_s=100, usd_per_hour=4.10)
    assert found() == expected


def test_without_a_host_type_the_price_is_unknown(found: Callable[..., PoolHosts], settings: Settings) -> None:
    assert found(settings) == PoolHosts(0, slots_per_host=32)


def test_advice_counts_workers_and_action_counts_leases(
    found: Callable[..., PoolHosts], start: Callable[..., None], store: Store, settings: Settings
) -> None:
    start("host-0")
    with store.begin() as db:
        now = clock.now(db)
        lease = {"pool": "chat", "requested_at": now, "ready_at": None, "drain_at": None, "end_reason": None}
        rows: list[dict[str, Any]] = [
            {"id": "host-0", "ready_at": now},
            {"id": "host-1", "ready_at": now},
            {"id": "host-2"},
            {"id": "host-3", "drain_at": now, "end_reason": "scaled_down"},
        ]
        db.execute(sa.insert(hosts), [{**lease, **row} for row in rows])
    # No worker of host-1 lives any more.
    counted = found()
    assert (counted.ready, counted.requested, counted.draining) == (1, 1, 1)
    counted = found(settings)
    assert (counted.ready, counted.requested, counted.draining) == (1, 0, 0)


def test_the_90_percent_time_and_the_last_applied_changes_count(found: Callable[..., PoolHosts], store: Store) -> None:
    with store.begin() as db:
        now = clock.now(db)
        row = {"pool": "chat", "mode": "active", "hosts": 1, "target": 2, "reason": "", "inputs": {}}
        changes = {"up": now - timedelta(minutes=9), "down": now - timedelta(minutes=5)}
        db.execute(
            sa.insert(decisions), [{**row, "action": action, "applied_at": at} for action, at in changes.items()]
        )
        lease = {"pool": "chat", "instance_type": "a100", "ended_at": now, "end_reason": "gone"}
        times = [now - timedelta(hours=number) for number in range(11)]
        db.execute(
            sa.insert(hosts),
            [
                {**lease, "id": f"h{n}", "requested_at": at, "ready_at": at + timedelta(seconds=200 + n)}
                for n, at in enumerate(times)
            ],
        )
    counted = found()
    assert counted.provision_s == 209
    assert (counted.up_at, counted.down_at) == (changes["up"], changes["down"])


@pytest.mark.usefixtures("open_to_all")
def test_the_price_list_counts_until_enough_jobs_were_paid_for(
    found: Callable[..., PoolHosts], book: Callable[..., None]
) -> None:
    assert found().spill_usd is None
    book(30)
    book(30, "waste", prompt_tokens=9000)
    book(30, pool="other", prompt_tokens=9000)
    book(19, "api", "0.5")
    assert found().spill_usd == pytest.approx(0.001 + 0.002)
    assert found().spill_tokens_per_s == 500
    book(1, "api", "0.5")
    assert found().spill_usd == 0.5


@pytest.mark.usefixtures("open_to_all")
def test_old_jobs_do_not_count(
    found: Callable[..., PoolHosts], book: Callable[..., None], monkeypatch: pytest.MonkeyPatch, store: Store
) -> None:
    with store.begin() as db:
        old = clock.now(db) - capacity.ENTRIES_SINCE
    book(30, "api", "0.5", at=old)
    assert found().spill_usd is None
    book(1)
    assert found().spill_usd == pytest.approx(0.003)
    monkeypatch.setattr(capacity, "ENTRIES", 10)
    book(10, pool="other")
    assert found().spill_usd is None, "no more entries than that are read"


@pytest.mark.usefixtures("open_to_all")
@pytest.mark.parametrize("lacks", ["key", "price", "worker", "budget", "money"])
def test_without_key_price_worker_or_money_no_job_goes_to_the_paid_api(
    found: Callable[..., PoolHosts], book: Callable[..., None], store: Store, typed: Settings, lacks: str
) -> None:
    book(30)
    assert found().spill_usd is not None
    missing: dict[str, dict[str, Any]] = {"key": {"openai_api_key": None}, "price": {"prices": {}}}
    with store.begin() as db:
        if lacks == "worker":
            long_ago = sa.func.now() - capacity.AWAY
            db.execute(sa.update(workers.workers).values(lease_until=long_ago))
        elif lacks == "budget":
            assert budgets.clear_limits(db)
        elif lacks == "money":
            budgets.set_limits(db, {"day_usd": Decimal("0.002")}, typed.budgets)
    closed = found(typed.model_copy(update=missing.get(lacks, {})))
    assert (closed.spill_usd, closed.spill_tokens_per_s) == (None, None)
