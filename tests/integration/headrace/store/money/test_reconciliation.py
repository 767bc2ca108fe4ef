"""The ledger beside the bills, up to now, in an hour that is not over."""

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa

from headrace.config import CostSettings
from headrace.domain.ids import new_id
from headrace.domain.queues import Ticket
from headrace.store import Store, clock
from headrace.store.money.reconciliation import Reconciliation, reconcile
from headrace.tables import attempts, cost_hours, hosts, ledger

COSTS = CostSettings()


@pytest.fixture
def served(store: Store, queued: Callable[..., Ticket]) -> None:
    """Two hosts since 90 minutes ago, one of them without a price, and what they and the paid API served."""
    job_id = queued().job_id
    with store.begin() as db:
        now = clock.now(db)
        began = {"requested_at": now, "ordered_at": now - timedelta(minutes=90)}
        for number, usd in enumerate((Decimal("4.10"), None)):
            db.execute(sa.insert(hosts).values(id=f"h{number}", pool=f"p{number}", usd_per_hour=usd, **began))
        tries = {"job_id": job_id, "worker_id": new_id(), "started_at": now}
        rows = [{**tries, "number": 1, "engine": "openai"}, {**tries, "number": 2, "engine": "vllm"}]
        db.execute(sa.insert(attempts), rows)
        usage = {"prompt_tokens": 90, "output_tokens": 30, "usd": 1, "attempt": None, "job_id": None, "at": now}
        entries: list[dict[str, Any]] = [
            {**usage, "kind": "compute", "pool": "p0", "at": now - timedelta(minutes=5)},
            {**usage, "kind": "compute", "pool": "p0", "at": now - timedelta(minutes=80)},
            {**usage, "kind": "compute", "pool": "p1"},
            {**usage, "kind": "waste", "pool": "p0", "job_id": job_id, "attempt": 1, "usd": Decimal("0.25")},
            {**usage, "kind": "waste", "pool": "p0", "job_id": job_id, "attempt": 2, "usd": Decimal("0.5")},
            {**usage, "kind": "api", "pool": "p0", "usd": Decimal("0.125")},
        ]
        db.execute(sa.insert(ledger), [{**entry, "at": entry["at"] - timedelta(microseconds=1)} for entry in entries])


@pytest.mark.usefixtures("served")
def test_the_ledger_is_the_hosts_time_and_the_providers_bill(store: Store) -> None:
    with store.begin() as db:
        found = reconcile(db, COSTS, Decimal("0.375"))

    assert abs(found.host_hours - Decimal("1.5")) < Decimal("0.01")
    assert abs(found.hosts_usd - Decimal("6.15")) < Decimal("0.05")
    assert found.platform_usd > 0
    assert abs(found.difference_usd) < Decimal("1e-8")


@pytest.mark.usefixtures("served")
def test_a_call_that_the_ledger_does_not_have_is_a_difference(store: Store) -> None:
    with store.begin() as db:
        found = reconcile(db, COSTS, Decimal("0.500"))

    assert abs(found.difference_usd + Decimal("0.125")) < Decimal("1e-8")
    assert found.share > Decimal("0.01")


@pytest.mark.usefixtures("served")
def test_the_hour_that_is_not_over_stays_open(store: Store) -> None:
    with store.begin() as db:
        assert reconcile(db, COSTS).platform_usd > 0
    with store.begin() as db:
        assert db.scalar(sa.select(sa.func.count()).select_from(cost_hours)) == 0


def test_nothing_is_no_difference(store: Store) -> None:
    with store.begin() as db:
        assert reconcile(db, COSTS) == Reconciliation(*(Decimal(0) for _ in range(5)))
