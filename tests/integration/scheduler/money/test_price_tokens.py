"""The price of own tokens, from what a saturated host serves, on a real Postgres."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa

from headrace.config import HostTypeSettings, Price, ScalingSettings
from headrace.domain.ids import new_id
from headrace.store.money import tariffs
from headrace.store.money.tariffs import ENOUGH
from headrace.tables import ledger
from scheduler.deps import ControlDeps
from scheduler.money import price_tokens

Charge = Callable[..., None]


def with_host(deps: ControlDeps, **host: Any) -> ControlDeps:
    """The hosts of the pool `chat` are of a type that costs 3.60 USD an hour and serves 1,000 tokens a second."""
    types = {"a100": HostTypeSettings.model_validate({"usd_per_hour": "3.60", "tokens_per_s": 1000, **host})}
    changes = {"scaling": ScalingSettings(host_type="a100"), "hosts": types}
    return replace(deps, settings=deps.settings.model_copy(update=changes))


@pytest.fixture
def priced(deps: ControlDeps) -> ControlDeps:
    return with_host(deps)


@pytest.fixture
def charge(deps: ControlDeps) -> Iterator[Charge]:
    """Writes this number of charges of 300 tokens of a prompt and 100 of an answer: 1.75 work for each token."""

    def insert(count: int = ENOUGH, **changes: Any) -> None:
        usual = {"kind": "compute", "pool": "chat", "usd": 1, "prompt_tokens": 300, "output_tokens": 100}
        with deps.store.begin() as db:
            db.execute(sa.insert(ledger), [{**usual, "job_id": new_id(), **changes} for _ in range(count)])

    return insert


def current(deps: ControlDeps) -> dict[str, Price]:
    with deps.store.begin() as db:
        return tariffs.current_own(db, deps.settings)


def test_tokens_cost_what_a_saturated_host_costs_over_what_it_serves(priced: ControlDeps, charge: Charge) -> None:
    charge()

    assert (price_tokens(priced), price_tokens(priced)) == (1, 0)

    price = current(priced)["chat"]
    # 0.001 USD a second, over 1,750 of work a second.
    assert price.input_usd_per_mtok == Decimal("0.571428571")
    assert price.cached_input_usd_per_mtok == Decimal("0.057142857")
    assert price.output_usd_per_mtok == Decimal("2.285714286")
    assert price.source == "3.6 USD/h of a100 over 1,000 tokens/s"
    assert price.version.startswith("hosts-")


def test_a_new_price_counts_from_then_on_and_the_old_one_stays_on_record(priced: ControlDeps, charge: Charge) -> None:
    charge()
    price_tokens(priced)
    before = current(priced)["chat"]

    dearer = with_host(priced, usd_per_hour="7.20")
    assert price_tokens(dearer) == 1

    after = current(dearer)["chat"]
    assert after.version != before.version
    assert after.input_usd_per_mtok == Decimal("1.142857143")
    with priced.store.begin() as db:
        assert db.scalar(sa.text("SELECT count(*) FROM own_prices")) == 2


def test_a_price_that_hardly_changes_adds_no_row(priced: ControlDeps, charge: Charge) -> None:
    charge()
    price_tokens(priced)

    assert price_tokens(with_host(priced, usd_per_hour="3.70")) == 0


@pytest.mark.parametrize(
    "charges",
    [
        {"count": ENOUGH - 1},
        {"pool": "other"},
        {"kind": "waste"},
        {"at": datetime.now(UTC) - timedelta(days=8)},
        {"prompt_tokens": 0, "output_tokens": 0},
    ],
    ids=["too few", "of another pool", "waste", "old", "without tokens"],
)
def test_without_recent_requests_the_settings_price_stays(
    priced: ControlDeps, charge: Charge, charges: dict[str, Any]
) -> None:
    charge(**charges)

    assert price_tokens(priced) == 0
    assert current(priced) == {}


def test_without_a_rate_or_a_host_type_the_settings_price_stays(deps: ControlDeps, charge: Charge) -> None:
    charge()

    assert price_tokens(deps) == 0
    assert price_tokens(with_host(deps, tokens_per_s=None)) == 0


def test_a_pool_whose_host_type_is_gone_has_the_settings_price_again(
    deps: ControlDeps, priced: ControlDeps, charge: Charge
) -> None:
    charge()
    price_tokens(priced)

    assert current(deps) == {}
