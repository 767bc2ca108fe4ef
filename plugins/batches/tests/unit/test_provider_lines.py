"""Which lines go to the provider's own batches."""

from decimal import Decimal

import pytest

from headrace.config import Price
from headrace.domain.prompts import Message, Sampling
from headrace.policies.pricing import Tariff, ceiling
from plugins.batches.provider_lines import has_batch_tier, lines_for_provider

PRICE = Price(
    input_usd_per_mtok=Decimal("0.15"),
    cached_input_usd_per_mtok=Decimal("0.075"),
    output_usd_per_mtok=Decimal("0.60"),
    source="test",
    version="v1",
)


@pytest.mark.parametrize(
    ("left_h", "reached", "is_paid_alone", "lines"),
    [
        (30, None, True, 100),
        (23, None, True, 100),
        (22.9, None, True, 0),
        (24.1, 0, False, 0),
        (24, 0, False, 100),
        (23, 40, False, 60),
        (23, 100, False, 0),
        (23, 200, False, 0),
        (23.5, None, False, 0),
        (22.9, 0, False, 0),
    ],
)
def test_lines_go_to_the_provider_while_it_has_its_day_and_own_gpus_do_not_reach_them(
    left_h: float, reached: int | None, is_paid_alone: bool, lines: int
) -> None:
    assert lines_for_provider(left_h * 3600, 100, reached, is_paid_alone=is_paid_alone) == lines


def test_the_batch_tier_has_a_maximum_of_its_own() -> None:
    messages = (Message("user", "hello"),)
    plain = PRICE.model_copy(update={"tiers": {"batch": Decimal("0.5")}})
    tariffs = [Tariff({}, {"paid": price}, {}, "paid", frozenset()) for price in (PRICE, plain)]

    assert [has_batch_tier(tariff, "m") for tariff in tariffs] == [False, True]
    assert not has_batch_tier(Tariff({}, {}, {}, "paid", frozenset()), "m"), "no price is guessed"
    whole = ceiling(PRICE, messages, Sampling(50)).usd
    assert tariffs[1].ceiling_usd("m", messages, Sampling(50)) == whole
    assert tariffs[1].ceiling_usd("m", messages, Sampling(50), "batch") == whole / 2
