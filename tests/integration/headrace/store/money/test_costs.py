"""What the charts of money show."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import sqlalchemy as sa

from headrace.domain.queues import Ticket
from headrace.store import Store
from headrace.store.money import costs
from headrace.tables import jobs, ledger

DAY = datetime(2026, 3, 1, tzinfo=UTC)


def test_each_day_s_usd_is_added_up_by_route_with_what_was_wasted(store: Store, queued: Callable[..., Ticket]) -> None:
    entries = [
        ("pool", "compute", DAY + timedelta(hours=23), "0.5"),
        ("pool", "waste", DAY + timedelta(hours=1), "0.25"),
        ("pool", "compute", DAY + timedelta(hours=25), "2"),
        ("overflow", "api", DAY, "3"),
        ("overflow", "api", DAY - timedelta(seconds=1), "9"),
        ("overflow", "api", DAY + timedelta(days=2), "9"),
    ]
    for route, kind, at, usd in entries:
        ticket = queued()
        charge = {"kind": kind, "at": at, "usd": Decimal(usd), "job_id": ticket.job_id, "app_id": ticket.app_id}
        tokens = {"pool": "chat", "model": "m", "prompt_tokens": 1, "cached_tokens": 0, "output_tokens": 1}
        with store.begin() as db:
            db.execute(sa.update(jobs).where(jobs.c.id == ticket.job_id).values(route=route))
            db.execute(sa.insert(ledger).values(**charge, **tokens, engine_s=1.0))
    with store.begin() as db:
        found = costs.routes_per_day(db, DAY, DAY + timedelta(days=2))
    assert [(each.day, each.route, each.requests, each.full_usd) for each in found] == [
        (DAY, "overflow", 1, Decimal(3)),
        (DAY, "pool", 1, Decimal("0.75")),
        (DAY + timedelta(days=1), "pool", 1, Decimal(2)),
    ]
