"""Lists of deliveries, on a real Postgres."""

import pytest
import sqlalchemy as sa

from headrace.domain.ids import new_id
from headrace.store import Store
from headrace.store.clients import apps
from headrace.store.webhooks import deliveries
from headrace.tables import deliveries as table


def test_those_of_one_app_are_looked_for_among_the_newest_of_all(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """An app with few of them must not make Postgres read all the others'."""
    monkeypatch.setattr(deliveries, "LOOK_ROWS", 2)
    with store.begin() as db:
        rare, busy = apps.ensure(db, "rare").id, apps.ensure(db, "busy").id
        for app_id in (rare, rare, busy):
            row = {"id": new_id(), "app_id": app_id, "event": "job.succeeded", "url": "https://a.example/", "data": {}}
            db.execute(sa.insert(table).values(row))

    with store.begin() as db:
        found = {app_id: deliveries.newest(db, is_failed=False, app_id=app_id, limit=10) for app_id in (rare, busy)}
        db.execute(sa.update(table).where(table.c.app_id == rare).values(state="failed"))
        failed = deliveries.newest(db, is_failed=True, app_id=rare, limit=10)

    assert [len(found[app_id]) for app_id in (rare, busy)] == [1, 1], "the third newest is not read"
    assert len(failed) == 2, "the failed ones have an index of their own"
