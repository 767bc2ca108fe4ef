"""List prices on a real Postgres: which one is in force, since when, and what an override does."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from headrace.config import Price, Settings
from headrace.errors import UnknownPrice
from headrace.store import Store
from headrace.store.money import tariffs
from headrace.store.money.tariffs import ListPrice
from headrace.tables import list_prices as table

MODEL = "gpt-9"
FIRST = ListPrice(MODEL, Decimal("0.15"), Decimal("0.075"), Decimal("0.6"), {"flex": Decimal("0.5")}, "a list")
SECOND = replace(FIRST, output_usd_per_mtok=Decimal("0.5"))


def take(store: Store, *prices: ListPrice) -> list[ListPrice]:
    with store.begin() as db:
        return tariffs.take_list(db, prices)


def rows(store: Store) -> list[Any]:
    with store.begin() as db:
        return list(db.execute(sa.select(table).order_by(table.c.id)))


def test_a_price_is_in_force_until_the_next_one_without_a_gap(store: Store) -> None:
    assert take(store, FIRST) == [FIRST]
    assert take(store, SECOND) == [SECOND]

    first, second = rows(store)
    assert (first.output_usd_per_mtok, first.tiers, first.valid_to) == (
        Decimal("0.6"),
        {"flex": "0.5"},
        second.valid_from,
    )
    assert second.valid_to is None
    with store.begin() as db:
        [(model, dated)] = tariffs.list_in_force(db).items()
    assert (model, dated.since, dated.price.version) == (MODEL, second.valid_from, f"list-{second.id}")
    assert (dated.price.output_usd_per_mtok, dated.price.tiers) == (Decimal("0.5"), {"flex": Decimal("0.5")})


def test_a_price_is_taken_after_the_servers_clock_went_back(store: Store) -> None:
    take(store, FIRST)
    with store.begin() as db:
        db.execute(sa.update(table).values(valid_from=sa.func.now() + timedelta(hours=1)))

    assert take(store, SECOND) == [SECOND]

    first, second = rows(store)
    assert first.valid_from < first.valid_to == second.valid_from
    with store.begin() as db:
        assert tariffs.current_list(db)[MODEL].version == f"list-{second.id}"


@pytest.mark.parametrize("source", ["a list", "a newer release of the list"])
def test_a_price_that_is_the_same_is_not_taken_again(store: Store, source: str) -> None:
    take(store, FIRST)

    assert take(store, replace(FIRST, source=source)) == []
    assert len(rows(store)) == 1


def test_two_operators_at_once_leave_one_price_in_force(store: Store) -> None:
    others = [replace(FIRST, output_usd_per_mtok=Decimal(number)) for number in range(1, 9)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda each: take(store, each), others))

    found = rows(store)
    assert len(found) == 8
    assert [row.valid_to for row in found] == [*(row.valid_from for row in found[1:]), None]


def test_postgres_itself_allows_one_price_in_force(store: Store) -> None:
    take(store, FIRST)
    copied = {name: rows(store)[0]._mapping[name] for name in table.columns.keys() if name != "id"}  # noqa: SIM118

    with pytest.raises(IntegrityError, match="uq_list_prices_in_force"), store.begin() as db:
        db.execute(sa.insert(table).values(copied))


def test_an_override_wins_over_the_list_price_and_its_end_brings_that_back(store: Store, settings: Settings) -> None:
    own = Price(input_usd_per_mtok=Decimal(9), output_usd_per_mtok=Decimal(9), source="a contract", version="ours-1")
    pays = settings.model_copy(update={"overflow": settings.overflow.model_copy(update={"model": MODEL}), "prices": {}})

    def version(settings: Settings) -> str:
        with store.begin() as db:
            return tariffs.in_force(db, settings).api_price("any").version

    with pytest.raises(UnknownPrice, match=f"headrace prices take {MODEL}"):
        version(pays)
    take(store, FIRST)
    assert version(pays).startswith("list-")
    assert version(pays.model_copy(update={"prices": {MODEL: own}})) == "ours-1"
