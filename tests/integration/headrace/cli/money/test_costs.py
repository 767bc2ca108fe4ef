"""`headrace costs` on a real Postgres."""

import csv
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from io import StringIO
from typing import Any

import pytest
import sqlalchemy as sa
from click.testing import Result

from headrace.config import CostSettings
from headrace.domain.ids import new_id
from headrace.store import Store
from headrace.store.money import cost_hours
from headrace.tables import hosts, ledger

Run = Callable[..., Result]
#: Within a month that is over, whatever the day.
HOUR = datetime(2026, 10, 31, 23, tzinfo=UTC)


@pytest.fixture
def october(store: Store, queued: Callable[..., Any]) -> None:
    """A host of 4 USD for the month's last hour, with a request of the app `test`; and a paid call in November."""
    job_id = queued().job_id
    with store.begin() as db:
        app_id = db.scalar(sa.text("SELECT app_id FROM jobs WHERE id = :id"), {"id": job_id})
        times = {"requested_at": HOUR, "ordered_at": HOUR, "ready_at": HOUR + timedelta(minutes=15)}
        ended = {"ended_at": HOUR + timedelta(hours=1), "end_reason": "gone"}
        db.execute(sa.insert(hosts).values(id="box", pool="chat", usd_per_hour=4, **times, **ended))
        charge = {"app_id": app_id, "pool": "chat", "prompt_tokens": 900, "output_tokens": 25}
        db.execute(sa.insert(ledger).values(kind="compute", usd=1, api_usd=6, at=HOUR, job_id=new_id(), **charge))
        paid = {"kind": "api", "usd": 3, "at": HOUR + timedelta(hours=1)}
        db.execute(sa.insert(ledger).values(job_id=new_id(), **charge, **paid))
        for bill in cost_hours.open_bills(db):
            cost_hours.close_hour(db, bill, CostSettings())


@pytest.mark.usefixtures("october")
def test_a_month_begins_with_whether_it_adds_up(run: Run) -> None:
    result = run("costs", "--month", "2026-10")

    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[1] == ["chat", "1.0", "4.0000", "25%", "75%", "0%", "4.0000", "0.000000000"]
    assert lines[-1] == ["test", "own", "hosts", "1", "925", "1.0000", "4.0000", "6.0000", "4,000.0000"]


@pytest.mark.usefixtures("october")
def test_charges_belong_to_the_month_of_their_time(run: Run) -> None:
    result = run("costs", "--month", "2026-11", "--json")

    assert json.loads(result.stdout) == {
        "month": "2026-11",
        "pools": [],
        "apps": [
            {
                **{"app": "test", "kind": "api", "requests": 1, "prompt_tokens": 900, "output_tokens": 25},
                **{"usd": "3.000000000", "full_usd": "3.000000000", "api_usd": None, "open_requests": 0},
            }
        ],
    }


@pytest.mark.usefixtures("october")
def test_the_charges_are_printed_as_csv(run: Run) -> None:
    result = run("costs", "--month", "2026-10", "--csv")

    [row] = csv.DictReader(StringIO(result.stdout))
    assert (row["app"], row["kind"], Decimal(row["full_usd"])) == ("test", "compute", Decimal(4))


def test_what_the_hosts_of_open_hours_cost_so_far_is_said(run: Run, store: Store) -> None:
    began = sa.func.now() - timedelta(hours=1)
    with store.begin() as db:
        lease = {"id": "new", "pool": "chat", "usd_per_hour": Decimal(2), "requested_at": began, "ordered_at": began}
        db.execute(sa.insert(hosts).values(lease))

    result = run("costs")

    assert result.exit_code == 0, result.output
    assert "The hosts of pool chat cost" in result.stderr
    assert "provisionally" in result.stderr


@pytest.mark.parametrize("month", ["2020-02", "0001-01"])
def test_a_month_without_charges_says_so(run: Run, month: str) -> None:
    result = run("costs", "--month", month)

    assert result.exit_code == 0
    assert f"No hour of own hosts with a price was closed in {month}." in result.stdout
    assert f"Nothing was charged in {month}." in result.stdout


def test_requests_without_a_closed_hour_are_told_of(run: Run, store: Store) -> None:
    with store.begin() as db:
        db.execute(sa.insert(ledger).values(kind="compute", pool="chat", usd=1, at=HOUR))

    result = run("costs", "--month", "2026-10")

    assert "1 requests count at their price" in result.stderr


@pytest.mark.parametrize("month", ["2026", "october", "2026-13", "9999-12", ""])
def test_what_is_not_a_month_is_refused(run: Run, month: str) -> None:
    result = run("costs", "--month", month)

    assert result.exit_code == 2
    assert "is not a month such as 2026-11" in result.stderr
