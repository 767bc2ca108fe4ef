"""`headrace budgets`: what an operator sees of the money."""

import json
from collections.abc import Callable
from decimal import Decimal

import pytest
import sqlalchemy as sa
from click.testing import Result

from headrace.domain.apps import App
from headrace.domain.ids import new_id
from headrace.store import Store, apps
from headrace.tables import budgets

Run = Callable[..., Result]


@pytest.fixture
def spent(store: Store, app: App) -> None:
    """The app has used most of its day, and others have spent as well."""
    with store.begin() as db:
        apps.set_limits(db, app.name, {"day_usd": Decimal(2)})
        for owner, usd in ((app.id, "1.75"), (None, "30")):
            for period in ("day", "month"):
                row = {"id": new_id(), "app_id": owner, "period": period, "spent_usd": Decimal(usd)}
                starts_at = sa.func.date_trunc(period, sa.func.now(), "UTC")
                db.execute(sa.insert(budgets).values(**row, starts_at=starts_at, reserved_usd=Decimal("0.25")))


@pytest.mark.usefixtures("spent")
def test_budgets_are_shown_with_what_is_left_of_them(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_BUDGETS__MONTH_USD", "121")
    shown = run("budgets")
    assert shown.exit_code == 0, shown.output
    title, _, *lines = shown.stdout.splitlines()
    assert title == "All apps together: 121.00 USD a month (from the settings that this command reads)."
    assert [", used up" in line for line in lines] == [False, False, True, False]
    rows = [line.replace(", used up", "").split() for line in lines]
    assert [(*row[:-6], row[-6], *row[-4:]) for row in rows] == [
        ("all", "together", "day", "30.000000", "0.250000", "-", "-"),
        ("all", "together", "month", "30.000000", "0.250000", "121.00", "25%"),
        ("test", "day", "1.750000", "0.250000", "2.00", "100%"),
        ("test", "month", "1.750000", "0.250000", "-", "-"),
    ]


@pytest.mark.usefixtures("spent")
def test_budgets_for_programs_are_exact(run: Run) -> None:
    told = json.loads(run("budgets", "--json").stdout)
    assert told["limits"] == {"day_usd": None, "month_usd": None, "source": "settings"}
    listed = told["accounts"]
    assert [(each["app"], each["period"]) for each in listed] == [
        (None, "day"),
        (None, "month"),
        ("test", "day"),
        ("test", "month"),
    ]
    assert {name: listed[2][name] for name in ("spent_usd", "reserved_usd", "limit_usd")} == {
        "spent_usd": "1.750000000",
        "reserved_usd": "0.250000000",
        "limit_usd": "2.000000000",
    }


def test_without_any_spending_it_says_so(run: Run) -> None:
    assert "Nothing was spent" in run("budgets").stdout


@pytest.mark.usefixtures("spent")
def test_a_small_limit_is_not_rounded_away(run: Run, store: Store, app: App) -> None:
    with store.begin() as db:
        apps.set_limits(db, app.name, {"day_usd": Decimal("0.00001")})

    assert " 0.00001 " in run("budgets").stdout
    assert {each["reserved_usd"] for each in json.loads(run("budgets", "--json").stdout)["accounts"]} == {"0.250000000"}


def test_without_a_budget_it_says_that_the_paid_api_is_shut_and_what_opens_it(run: Run) -> None:
    told = run("budgets").stdout
    assert "The paid API is shut" in told
    assert "'headrace budgets set --day-usd 5' opens it" in told
    assert "headrace.toml and the environment of this command" in told, "another process may have another budget"


def test_a_stored_budget_wins_over_the_settings_and_says_so(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_BUDGETS__DAY_USD", "121")
    assert "5.00 USD a day (stored" in run("budgets", "set", "--day-usd", "5").stdout
    assert "All apps together: 5.00 USD a day (stored" in run("budgets").stdout
    assert "5.00 USD a day, 70.00 USD a month (stored" in run("budgets", "set", "--month-usd", "70").stdout
    assert "70.00 USD a month (stored" in run("budgets", "set", "--day-usd", "none").stdout
    assert json.loads(run("budgets", "--json").stdout)["limits"] == {
        "day_usd": None,
        "month_usd": "70.000000000",
        "source": "stored",
    }
    assert "121.00 USD a day (from the settings" in run("budgets", "unset").stdout
    assert "No limits were stored." in run("budgets", "unset").stdout


def test_to_store_one_limit_does_not_lift_the_other_one_of_the_settings(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_BUDGETS__DAY_USD", "10")
    monkeypatch.setenv("HEADRACE_BUDGETS__MONTH_USD", "121")
    assert "50.00 USD a day, 121.00 USD a month (stored" in run("budgets", "set", "--day-usd", "50").stdout
    assert "50.00 USD a day (stored" in run("budgets", "set", "--month-usd", "none").stdout


@pytest.mark.parametrize(
    ("words", "complaint"),
    [((), "Give --day-usd, --month-usd, or both."), (("--day-usd", "much"), "neither an amount of USD")],
)
def test_a_budget_that_is_none_is_refused(run: Run, words: tuple[str, ...], complaint: str) -> None:
    refused = run("budgets", "set", *words)
    assert refused.exit_code == 2
    assert complaint in refused.stderr
