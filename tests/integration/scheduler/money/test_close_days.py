"""The sweep that closes days, on a real Postgres: what the views show, and when a day is closed again."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from headrace.config import CostSettings
from headrace.domain.apps import App
from headrace.domain.ids import new_id
from headrace.domain.queues import Ticket
from headrace.store.money import cost_hours
from headrace.tables import closed_days, hosts, ledger
from scheduler.deps import ControlDeps
from scheduler.money import close_days

DAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=3)
#: Every column of the two views that read closed days.
VIEWS = "SELECT * FROM cost_per_day ORDER BY 1, 2, 6", "SELECT * FROM cost_per_user_day ORDER BY 1, 2"

Read = Callable[[], list[Any]]


@pytest.fixture
def charged(deps: ControlDeps, app: App, queued: Callable[..., Ticket]) -> None:
    """Charges of two users on each of four days, the last of them today, on hosts and at the paid API; and waste."""
    job_id = queued().job_id
    usage = {"app_id": app.id, "pool": "chat", "model": "m", "prompt_tokens": 100, "output_tokens": 25, "api_usd": 2}
    rows = [
        {**usage, "at": DAY + timedelta(days=day, hours=hour), "kind": kind, "usd": 1, "job_id": job, "end_user": user}
        for day, hour in ((0, 0), (1, 5), (2, 23), (3, 0))
        for kind, job, user in (
            ("compute", new_id(), "u0"),
            ("compute", new_id(), "u1"),
            ("api", new_id(), "u1"),
            ("waste", job_id, None),
        )
    ]
    with deps.store.begin() as db:
        db.execute(sa.insert(ledger), rows)


@pytest.fixture
def views(deps: ControlDeps) -> Read:
    """What both views show."""

    def read() -> list[Any]:
        with deps.store.begin() as db:
            return [list(db.execute(sa.text(query))) for query in VIEWS]

    return read


@pytest.fixture
def bill_hour(deps: ControlDeps) -> Callable[[datetime], None]:
    """Has a host of 4 USD for an hour, and closes the hour."""

    def bill(hour: datetime) -> None:
        lease = {"id": new_id().hex, "pool": "chat", "usd_per_hour": 4, "end_reason": "gone"}
        times = {"requested_at": hour, "ordered_at": hour, "ended_at": hour + timedelta(hours=1)}
        with deps.store.begin() as db:
            db.execute(sa.insert(hosts).values(**lease, **times))
            for each in cost_hours.open_bills(db):
                cost_hours.close_hour(db, each, CostSettings())

    return bill


@pytest.mark.usefixtures("charged")
def test_closing_days_changes_nothing_that_the_views_show(deps: ControlDeps, views: Read) -> None:
    before = views()

    assert (close_days(deps), close_days(deps)) == (3, 0)
    assert views() == before
    assert [len(rows) for rows in before] == [8, 4]


@pytest.mark.usefixtures("charged")
def test_the_views_read_closed_days_from_their_sums(deps: ControlDeps, views: Read) -> None:
    close_days(deps)
    with deps.store.begin() as db:
        db.execute(sa.text("UPDATE cost_days SET requests = 99 WHERE day = :day"), {"day": DAY})

    assert {row.requests for row in views()[0] if row.day == DAY} == {99}


@pytest.mark.usefixtures("charged")
def test_a_day_is_closed_again_when_an_hour_of_it_is(
    deps: ControlDeps, views: Read, bill_hour: Callable[[datetime], None]
) -> None:
    close_days(deps)
    bill_hour(DAY + timedelta(days=1, hours=5))

    assert (close_days(deps), close_days(deps)) == (1, 0)
    full = [sum(row.full_usd for row in views()[0] if row.day == DAY + timedelta(days=day)) for day in range(4)]
    # The host's bill of 4 USD, and 1 USD of the paid API.
    assert [round(each, 6) for each in full] == [3, 5, 3, 3]


@pytest.mark.usefixtures("charged")
def test_a_day_is_closed_again_when_an_hour_of_it_has_no_bill_any_more(
    deps: ControlDeps, views: Read, bill_hour: Callable[[datetime], None]
) -> None:
    before = views()
    bill_hour(DAY)
    close_days(deps)
    with deps.store.begin() as db:
        db.execute(sa.text("DELETE FROM cost_hours"))

    assert close_days(deps) == 1
    assert views() == before


@pytest.mark.usefixtures("charged")
def test_no_day_is_closed_before_one_that_fails(
    deps: ControlDeps, views: Read, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    before, close_day = views(), cost_hours.close_day

    def fail(db: sa.Connection, day: datetime) -> None:
        if day == DAY + timedelta(days=1):
            raise RuntimeError
        close_day(db, day)

    monkeypatch.setattr(cost_hours, "close_day", fail)

    assert close_days(deps) == 1
    with deps.store.begin() as db:
        assert list(db.scalars(sa.select(closed_days.c.day))) == [DAY]
    assert views() == before
    assert [record.day for record in caplog.records if record.message == "day_not_closed"] == [  # type: ignore[attr-defined]
        f"{DAY + timedelta(days=1):%Y-%m-%d}"
    ]


def test_without_charges_no_day_is_closed(deps: ControlDeps) -> None:
    assert close_days(deps) == 0
