"""How many more jobs a fleet takes at once."""

import pytest

from headrace.domain.fleet import Fleet


@pytest.mark.parametrize(
    ("slots", "running", "kv_reserved", "more"),
    [
        (64, 0, None, 64),
        (64, 60, None, 4),
        (64, 70, None, 0),  # workers that drain have given their slots back, and still run jobs
        (64, 0, 0.0, 64),
        (64, 0, 0.9, 64),  # the sample is older than the last job's end
        (256, 40, 1.0, 0),  # the KV caches are the limit, not the slots
        (256, 40, 0.8, 10),
        (64, 40, 0.1, 24),
        (64, 40, 1.2, 0),
    ],
)
def test_it_takes_what_fits_into_slots_and_kv_caches(
    slots: int, running: int, kv_reserved: float | None, more: int
) -> None:
    fleet = Fleet("chat", 1, 1, slots, running, None, None, kv_reserved=kv_reserved)

    assert fleet.takes_at_once == more
