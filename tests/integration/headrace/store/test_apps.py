"""An app's limits as they are stored, and what it did of late."""

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from headrace.domain.apps import UNLIMITED, App, AppLimits
from headrace.domain.queues import Lane, Ticket
from headrace.domain.states import JobState
from headrace.errors import InvalidRequest, NotFound
from headrace.store import Store, apps
from headrace.tables import jobs

DAY = timedelta(hours=24)


def test_an_app_without_limits_has_none(store: Store, app: App) -> None:
    assert (app.limits, app.lanes) == (UNLIMITED, None)


def test_limits_are_kept_and_an_app_is_made_once(store: Store) -> None:
    with store.begin() as db:
        made = apps.create(db, "shop", {"queued_jobs": 5, "lanes": [Lane.BATCH, Lane.HIGH]})
        assert apps.find_app(db, "shop") == apps.ensure(db, "shop") == made
        with pytest.raises(InvalidRequest):
            apps.create(db, "shop", {})
    assert made.limits == AppLimits(queued_jobs=5)
    assert made.lanes == {Lane.HIGH, Lane.BATCH}


def test_a_change_meets_one_app_and_what_it_names(store: Store, app: App) -> None:
    with store.begin() as db:
        apps.create(db, "shop", {"queued_jobs": 5, "requests_per_minute": 6, "lanes": [Lane.LOW]})
        changed = apps.set_limits(db, "shop", {"requests_per_minute": None, "tokens_per_minute": 7})
        assert apps.find_app(db, "shop") == changed
        assert apps.find_app(db, app.name) == app
        with pytest.raises(NotFound):
            apps.set_limits(db, "nobody", {"queued_jobs": 1})
    assert changed.limits == AppLimits(5, None, 7)
    assert changed.lanes == {Lane.LOW}


def test_activity_is_the_apps_own_and_of_the_period(
    store: Store, app: App, queued: Callable[..., Ticket], charge: Callable[..., None]
) -> None:
    with store.begin() as db:
        other = apps.ensure(db, "other")
    queued()
    queued(app_id=other.id)
    for _ in range(2):
        set_column(store, queued().job_id, state="cancelled")
    # An id is made before its row, by a host whose clock may be behind.
    set_column(store, queued().job_id, created_at=sa.func.now() - DAY - timedelta(minutes=1))
    charge("0.5")
    charge("0.25", kind="api", hours_ago=23)
    charge("4", hours_ago=25)
    charge("8", kind="waste")

    with store.begin() as db:
        activity = apps.activity(db, app.id, DAY)

    assert activity.jobs == {JobState.QUEUED: 1, JobState.CANCELLED: 2}
    assert activity.usd == Decimal("0.75")


def set_column(store: Store, job_id: UUID, **values: Any) -> None:
    with store.begin() as db:
        db.execute(sa.update(jobs).where(jobs.c.id == job_id).values(**values))
