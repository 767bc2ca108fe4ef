"""Which rule matches a job of the model `auto`, and which pool of it costs least."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from headrace.config.rules import RuleSettings
from headrace.policies.routing.rules import Offer, Traits, cheapest_first, matching, offer_reason

JOB = Traits("shop", "classify", 100, wants_json=False, output_tokens={"fast": 20, "chat": 30}.__getitem__)


@pytest.mark.parametrize(
    ("rule", "matches"),
    [
        ({}, True),
        ({"apps": {"shop", "mail"}}, True),
        ({"apps": {"mail"}}, False),
        ({"tasks": {"classify"}}, True),
        ({"tasks": {"summarise"}}, False),
        ({"max_prompt_chars": 100}, True),
        ({"max_prompt_chars": 99}, False),
        ({"max_output_tokens": 20}, True),
        ({"max_output_tokens": 19}, False),
        ({"wants_json": False}, True),
        ({"wants_json": True}, False),
        ({"apps": {"shop"}, "tasks": {"classify"}, "max_prompt_chars": 99}, False),
    ],
)
def test_a_rule_matches_if_all_that_it_names_do(rule: dict[str, Any], matches: bool) -> None:
    rules = {"one": RuleSettings(pools=("fast", "chat"), **rule)}

    assert (matching(rules, JOB) is not None) is matches


def test_a_job_without_a_task_matches_no_rule_of_tasks() -> None:
    rules = {"one": RuleSettings(pools=("fast",), tasks=frozenset({"classify"}))}
    assert matching(rules, replace(JOB, task=None)) is None


def test_the_first_rule_that_matches_decides() -> None:
    rules = {
        name: RuleSettings(pools=("fast",), max_prompt_chars=chars)
        for name, chars in (("a", 9), ("b", 100), ("c", 200))
    }

    found = matching(rules, JOB)

    assert found == ("b", rules["b"])


def test_free_slots_cost_nothing_and_then_the_price_decides() -> None:
    idle, dear_idle = Offer("fast", Decimal(2), is_idle=True), Offer("chat", Decimal(3), is_idle=True)
    paid, busy, unknown = Offer("paid", Decimal(1)), Offer("busy", Decimal(5)), Offer("unpriced", None)

    ranked = cheapest_first([unknown, dear_idle, busy, paid, idle])

    assert [each.pool for each in ranked] == ["fast", "chat", "paid", "busy", "unpriced"]


def test_of_equal_offers_the_first_comes_first() -> None:
    same = [Offer(pool, Decimal(1)) for pool in ("b", "a", "c")]
    assert [each.pool for each in cheapest_first(same)] == ["b", "a", "c"]


def test_a_reason_says_the_rule_and_why_this_pool() -> None:
    assert offer_reason("short", Offer("fast", Decimal(1), is_idle=True), []) == "rule 'short': fast has free slots"
    assert offer_reason("short", Offer("fast", Decimal(1)), []) == "rule 'short': fast costs least"
    assert offer_reason("short", Offer("chat", None), ["fast"]) == "rule 'short': chat, after fast had no place"
