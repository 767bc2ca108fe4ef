"""`headrace prices` on a real Postgres."""

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal

import pytest
import sqlalchemy as sa
from click.testing import Result

from headrace.cli.money import price_library
from headrace.cli.money.price_library import FoundPrice
from headrace.store import Store
from headrace.store.money import tariffs
from headrace.store.money.tariffs import ListPrice
from headrace.tables import own_prices

Run = Callable[..., Result]
#: Less than a statement waits for a lock (4 s), and than a command needs to reach it.
HELD_WITHIN_S = 3.0
HOSTS = {"HEADRACE_HOSTS": '{"a100": {"usd_per_hour": "4.10"}}', "HEADRACE_SCALING__HOST_TYPE": "a100"}


@pytest.fixture
def measured(store: Store) -> None:
    """A price of the tokens of the pool `chat`."""
    amounts = {"input_usd_per_mtok": "0.5", "cached_input_usd_per_mtok": "0.05", "output_usd_per_mtok": "2"}
    host = {"pool": "chat", "instance_type": "a100", "usd_per_hour": "4.10", "tokens_per_s": 900, "work_per_token": 2}
    with store.begin() as db:
        db.execute(sa.insert(own_prices).values({**host, **{name: Decimal(usd) for name, usd in amounts.items()}}))


@pytest.mark.usefixtures("measured")
def test_own_tokens_have_the_measured_price_and_the_paid_api_its_list(run: Run) -> None:
    result = run("prices", **HOSTS)

    assert result.exit_code == 0, result.output
    own, paid = (line.split() for line in result.stdout.splitlines()[1:])
    assert own[:8] == ["own", "tokens", "chat", "measured", "0.5000", "0.0500", "2.0000", "since"]
    assert result.stdout.splitlines()[1].endswith("4.1 USD/h of a100 over 900 tokens/s")
    assert paid[:8] == ["paid", "API", "gpt-4o-mini", "override", "0.1500", "0.0750", "0.6000", "yes"]


@pytest.mark.usefixtures("measured")
def test_without_a_host_type_the_settings_price_counts(run: Run) -> None:
    [own, paid] = json.loads(run("prices", "--json").stdout)["prices"]

    assert (own["kind"], own["name"], own["input_usd_per_mtok"]) == ("own", "chat", "0.05")
    assert (own["origin"], own["in_force"], own["since"]) == ("placeholder", True, None)
    assert (paid["kind"], paid["origin"], paid["version"]) == ("api", "override", "openai-2026-11")


def test_a_paid_model_without_a_price_is_named(run: Run) -> None:
    result = run("prices", HEADRACE_OVERFLOW__MODEL="gpt-9")

    assert "'gpt-9' is never called. No price is listed for 'gpt-9': add" in result.stdout
    assert "'headrace prices take gpt-9'" in result.stdout


def listed(run: Run, **changes: str) -> list[tuple[str, str, bool, bool]]:
    """The prices of the paid API: model, origin, whether it is in force, and whether a time says since when."""
    found = json.loads(run("prices", "--json", **changes).stdout)["prices"]
    api = (each for each in found if each["kind"] == "api")
    return [(each["name"], each["origin"], each["in_force"], each["since"] is not None) for each in api]


def changes(result: Result) -> list[tuple[str, str]]:
    assert result.exit_code == 0, result.output
    return [(each["model"], each["action"]) for each in json.loads(result.stdout)["models"]]


def test_a_list_price_is_shown_before_it_is_taken_and_taken_only_on_demand(run: Run) -> None:
    mini = {"HEADRACE_OVERFLOW__MODEL": "gpt-5-mini"}

    assert changes(run("prices", "diff", "--json", **mini)) == [("gpt-5-mini", "new")]
    assert listed(run, **mini) == [("gpt-4o-mini", "override", True, False)], "diff takes nothing"
    assert changes(run("prices", "take", "--json", **mini)) == [("gpt-5-mini", "new")]
    assert ("gpt-5-mini", "list", True, True) in listed(run, **mini)
    assert changes(run("prices", "diff", "--json", **mini)) == [("gpt-5-mini", "unchanged")]
    assert json.loads(run("prices", "--json", **mini).stdout)["missing"] == []


def test_of_two_operators_at_once_one_takes_a_new_price(run: Run, store: Store) -> None:
    found = price_library.look_up("gpt-5-mini", None, None, datetime.now(UTC))
    assert isinstance(found, FoundPrice)
    with ThreadPoolExecutor(1) as other:
        with store.begin() as db:
            tariffs.take_list(db, [found.price])
            second = other.submit(run, "prices", "take", "gpt-5-mini", "--json")
            wait_until_held(store)
        assert changes(second.result()) == [("gpt-5-mini", "unchanged")]


def wait_until_held(store: Store) -> None:
    """Return once another transaction waits for the prices. Fails after `HELD_WITHIN_S`."""
    waiting = sa.text("SELECT EXISTS (SELECT FROM pg_locks WHERE relation = 'list_prices'::regclass AND NOT granted)")
    deadline = time.monotonic() + HELD_WITHIN_S
    with store.autocommit() as db:
        while not db.scalar(waiting):
            assert time.monotonic() < deadline, "nothing waits"
            threading.Event().wait(0.005)


def test_an_override_wins_and_the_list_price_beside_it_says_so(run: Run) -> None:
    taken = run("prices", "take", "gpt-4o-mini")

    assert '[prices."gpt-4o-mini"] in headrace.toml overrides the list price' in taken.stdout
    assert listed(run) == [("gpt-4o-mini", "override", True, False), ("gpt-4o-mini", "list", False, True)]
    assert "no: overridden" in run("prices").stdout


def test_what_changed_is_shown_beside_what_was_there(run: Run, store: Store) -> None:
    old = ListPrice("gpt-5-mini", Decimal("0.3"), Decimal("0.03"), Decimal(3), {}, "an old list")
    with store.begin() as db:
        tariffs.take_list(db, [old])

    result = run("prices", "diff", "gpt-5-mini")

    before, after = (line.split() for line in result.stdout.splitlines()[1:3])
    assert before[:5] == ["gpt-5-mini", "before", "0.3000", "0.0300", "3.0000"]
    assert after[:5] == ["gpt-5-mini", "changed", "0.2500", "0.0250", "2.0000"]
    assert "flex x 0.5" in result.stdout


def test_a_model_that_the_ledger_cannot_price_is_refused_and_not_taken(run: Run) -> None:
    result = run("prices", "take", "gpt-5.5")

    assert result.exit_code == 1
    assert "gpt-5.5: refused: its price changes above 272,000 tokens of the prompt" in result.stdout
    assert listed(run) == [("gpt-4o-mini", "override", True, False)]


def test_a_provider_that_the_library_does_not_know_has_no_list_price(run: Run) -> None:
    result = run("prices", "take", "gpt-4o-mini", OPENAI_BASE_URL="http://127.0.0.1:9/v1")

    assert result.exit_code == 1
    assert "Name the provider with --provider" in result.stdout
