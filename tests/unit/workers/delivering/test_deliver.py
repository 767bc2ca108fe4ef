from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

from headrace.config import WebhookSettings
from headrace.domain.deliveries import Delivery
from headrace.domain.ids import new_id
from workers.delivering.deliver import BEGIN_WITHIN_S, DeliverySlots

SETTINGS = WebhookSettings(max_running=4, max_running_per_app=2, max_running_per_receiver=1)
APP = new_id()


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def delivery(receiver: str = "a.example", app_id: UUID | None = APP) -> Delivery:
    at = datetime(2026, 11, 27, tzinfo=UTC)
    return Delivery(new_id(), app_id, "test", f"https://{receiver}", receiver, (), 1, 0, {}, at)


def test_slots_count_what_is_in_hand_of_each_app_and_receiver() -> None:
    slots = DeliverySlots(SETTINGS)
    assert not slots.held().is_full
    first, second = delivery(), delivery("b.example", app_id=None)
    slots.hold(first)
    slots.hold(second)
    held = slots.held()
    assert (held.free, held.is_full) == (2, True)
    assert held.of_app == {APP: 1, None: 1}
    assert held.of_receiver == {"a.example": 1, "b.example": 1}
    slots.release(first)
    slots.release(second)
    assert slots.held().free == 4


def test_a_delivery_whose_try_never_begins_gives_its_slot_back_and_begins_no_more() -> None:
    clock = Clock()
    slots = DeliverySlots(SETTINGS, clock)
    begun, lost = delivery(), delivery("b.example")
    slots.hold(begun)
    slots.hold(lost)
    assert slots.begin(begun.id, begun.tries) is begun
    clock.now = BEGIN_WITHIN_S + 0.1
    assert slots.begin(lost.id, lost.tries) is None
    assert slots.held().of_receiver == {"a.example": 1}, "one that has begun is held until it has ended"


def test_two_tries_of_one_delivery_are_told_apart() -> None:
    slots = DeliverySlots(SETTINGS)
    first = delivery()
    second = replace(first, tries=2)
    slots.hold(first)
    slots.hold(second)
    slots.release(first)
    assert slots.begin(first.id, 1) is None
    assert slots.begin(first.id, 2) is second


def test_the_lease_outlasts_a_try_that_begins_and_ends_as_late_as_it_may() -> None:
    assert DeliverySlots(SETTINGS).lease_s > BEGIN_WITHIN_S + SETTINGS.timeout_s
