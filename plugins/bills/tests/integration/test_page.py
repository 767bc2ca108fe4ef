"""`/ops/bills`, and what else is told of a bill that differs: a problem, a metric and the audit log."""

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from click.testing import Result

from headrace.store import Store, audit
from ops.shown import usd
from plugins.bills import control, health
from plugins.bills.tables import bill_checks, bills
from tests.integration.ops.browser import Browser, plain, rows_of

DAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


@pytest.fixture
def checked(store: Store) -> None:
    """A bill of today with 9.25 USD, of which the ledger has 8."""
    about = {"source": "hosts", "file": "b.csv", "lines": 2, "first_day": DAY.date(), "last_day": DAY.date()}
    bill = sa.insert(bills).values(**about, ledger_usd=8, billed_usd=Decimal("9.25")).returning(bills.c.id)
    with store.begin() as db:
        row = {"source": "hosts", "day": DAY, "name": "box", "pool": "chat", "bill_id": db.scalar(bill)}
        for cause, own, theirs in (("none", 8, 8), ("hours", 0, Decimal("1.25"))):
            sides = {"ledger_usd": own, "billed_usd": theirs}
            hours = {"ledger_quantity": own / 4, "billed_quantity": theirs / 4}
            db.execute(sa.insert(bill_checks).values(**row, cause=cause, **sides, **hours))


@pytest.mark.usefixtures("checked")
def test_the_page_has_the_figures_of_the_rows(viewer: Browser, query: Callable[..., list[tuple[Any, ...]]]) -> None:
    text = viewer.get(f"/bills?month={DAY:%Y-%m}").text
    [sums] = query("SELECT sum(billed_usd), sum(ledger_usd), sum(billed_usd - ledger_usd) FROM bill_checks")
    assert rows_of(text, "Bills")[0][3:] == [usd(each) for each in sums]
    [differs] = query("SELECT ledger_usd, billed_usd, billed_usd - ledger_usd FROM bill_checks WHERE cause <> 'none'")
    assert rows_of(text, "Differences")[0][7:] == [usd(each) for each in differs]


def test_without_a_bill_the_page_says_so_and_a_month_that_is_none_is_refused(viewer: Browser) -> None:
    assert "No bill of this month was checked" in plain(viewer.get("/bills").text)
    assert viewer.get("/bills?month=never").status_code == 400


@pytest.mark.usefixtures("checked")
def test_a_difference_is_a_problem_with_a_link_and_a_gauge(viewer: Browser, store: Store) -> None:
    with store.begin() as db:
        [problem] = health.problems(db)
        [gauge] = control.PART.values(db)
    assert (problem.rule, problem.text) == (
        "HeadraceBillDiffers",
        "13.5% of the bill of hosts is not what the ledger says.",
    )
    assert gauge == ("headrace_bill_difference_ratio", ["hosts"], pytest.approx(1.25 / 9.25))
    text = viewer.get("/").text
    assert problem.text in plain(text)
    assert 'href="/ops/bills"' in text


def test_a_comparison_is_recorded(run: Callable[..., Result], store: Store, tmp_path: Path) -> None:
    bill = tmp_path / "bill.csv"
    bill.write_text("day,host,type,hours,usd\n2026-11-01,gpu-1,a100,1,0\n", encoding="utf-8")
    result = run("costs", "reconcile", "--bill", str(bill))
    assert result.exit_code == 0, result.output
    with store.begin() as db:
        [entry] = audit.newest(db, audit.WantedEntries(action="costs.reconcile"), 2)
    facts = SimpleNamespace(subject=entry.subject, **entry.details)
    assert (facts.subject, facts.file, facts.days) == ("hosts", "bill.csv", ["2026-11-01", "2026-11-01"])
    assert run("audit", "--action", "costs.reconcile", "--json").exit_code == 0
