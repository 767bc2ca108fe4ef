"""Corrections and waste in the analysts' views of days, before and after a day is closed."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest
import sqlalchemy as sa

from headrace.domain.apps import App
from headrace.store import Store
from headrace.store.money import cost_days
from headrace.tables import ledger

DAY = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.mark.parametrize("is_closed", [False, True])
def test_a_correction_is_no_request_and_a_user_of_waste_alone_has_no_charge(
    store: Store, app: App, is_closed: bool
) -> None:
    with store.begin() as db:
        for kind, user, usd in (("api", "ann", "0.20"), ("adjustment", "ann", "-0.05"), ("waste", "bob", "0.30")):
            row = {"app_id": app.id, "pool": "chat", "at": DAY, "kind": kind, "end_user": user, "usd": Decimal(usd)}
            db.execute(sa.insert(ledger).values(row))
        if is_closed:
            cost_days.close_day(db, DAY)

    with store.begin() as db:
        days = db.execute(sa.text("SELECT requests, users, usd, waste_usd FROM cost_per_day")).all()
        users = db.execute(sa.text("SELECT requests, users, full_usd FROM cost_per_user_day")).all()
    assert [tuple(row) for row in days] == [(1, 1, Decimal("0.15"), Decimal("0.30"))]
    assert [tuple(row) for row in users] == [(1, 1, Decimal("0.15"))]
