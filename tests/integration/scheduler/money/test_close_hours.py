"""The sweep that closes the hours of own hosts, on a real Postgres."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa

from headrace.domain.ids import new_id
from headrace.tables import cost_hours, hosts, ledger
from scheduler.deps import ControlDeps
from scheduler.money import close_hours

HOUR = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=3)


@pytest.fixture
def served(deps: ControlDeps) -> Callable[..., None]:
    """A pool with a host for an hour, and two requests that ended in it."""

    def insert(pool: str, usd: int = 1) -> None:
        times = {"requested_at": HOUR, "ordered_at": HOUR, "ended_at": HOUR + timedelta(hours=1)}
        row = {"kind": "compute", "pool": pool, "usd": usd, "prompt_tokens": 10, "at": HOUR}
        with deps.store.begin() as db:
            db.execute(sa.insert(hosts).values(id=new_id().hex, pool=pool, usd_per_hour=4, end_reason="gone", **times))
            db.execute(sa.insert(ledger), [row, row])

    return insert


def closed(deps: ControlDeps) -> list[Any]:
    with deps.store.begin() as db:
        return list(db.execute(sa.select(cost_hours.c.pool, cost_hours.c.bill_usd).order_by(cost_hours.c.pool)))


def test_hours_that_are_over_are_closed_once(deps: ControlDeps, served: Callable[..., None]) -> None:
    served("chat")
    served("fast")

    assert (close_hours(deps), close_hours(deps)) == (2, 0)
    assert closed(deps) == [("chat", Decimal(4)), ("fast", Decimal(4))]


def test_an_hour_that_cannot_be_closed_keeps_no_other_open(
    deps: ControlDeps, served: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    # Their sum has more digits than an amount can have.
    served("chat", usd=900_000_000)
    served("fast")

    assert close_hours(deps) == 1

    assert closed(deps) == [("fast", Decimal(4))]
    assert [record.pool for record in caplog.records if record.message == "hour_not_closed"] == ["chat"]  # type: ignore[attr-defined]
