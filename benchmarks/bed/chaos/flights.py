"""Identical orders: flights of jobs that one attempt may answer, the first of which may be cancelled or erased.

Knows the orders, and nothing of how the system answers them.
"""

import random
from collections.abc import Sequence

from bed.chaos.orders import Order, Wish

#: The share of all orders that are identical to others, and how many a flight has.
IDENTICAL_SHARE, FLIGHT = 0.25, (3, 12)
#: Seconds within which most orders of a flight come, and after which the late ones do: the answer may be there.
TOGETHER_S, LATE_SHARE, LATE_S = 1.5, 0.25, 20.0
#: What is wished of the first of a flight, and its chances; and of each other one.
FIRST: dict[Wish, float] = {"answer": 0.4, "cancel": 0.35, "erase": 0.25}
OTHERS: dict[Wish, float] = {"answer": 0.85, "cancel": 0.1, "erase": 0.05}
#: Orders of a flight that are in a lane of their own, so that some can follow no other.
OTHER_LANE_SHARE, WEBHOOK_SHARE, PAID_SHARE = 0.15, 0.3, 0.25


def make_identical(orders: Sequence[Order], seconds: float, seed: int, webhook_url: str) -> None:
    """Turn a share of the orders into flights. Their numbers stay; what they ask, and when they come, changes."""
    chance = random.Random(seed + 1)
    left = chance.sample(list(orders), round(IDENTICAL_SHARE * len(orders)))
    while len(left) >= FLIGHT[0]:
        number = chance.randint(*FLIGHT)
        flight, left = left[:number], left[number:]
        if len(flight) >= FLIGHT[0]:
            _make_flight(flight, chance, seconds, webhook_url)


def _make_flight(flight: Sequence[Order], chance: random.Random, seconds: float, webhook_url: str) -> None:
    began_s = chance.uniform(0, seconds)
    asked = {
        "prompt": f"Flight {flight[0].number} of {chance.getrandbits(64):x}?",
        "max_tokens": chance.choice((8, 16, 24)),
        "temperature": 0,
        "overflow": "only" if chance.random() < PAID_SHARE else "never",
    }
    lane = chance.choice(("high", "normal", "low", "batch"))
    for place, order in enumerate(flight):
        is_late = place > 1 and chance.random() < LATE_SHARE
        order.due_s = began_s + (chance.uniform(0, LATE_S if is_late else TOGETHER_S) if place else 0.0)
        order.body |= asked
        if place == 0 or chance.random() >= OTHER_LANE_SHARE:
            order.body["lane"] = lane
        if chance.random() < WEBHOOK_SHARE:
            order.body["webhook"] = webhook_url
        wishes = OTHERS if place else FIRST
        [order.wish] = chance.choices(list(wishes), list(wishes.values()))
