"""How long hosts take to come: measured by instance type, or the settings' time until enough were measured."""

import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa

from headrace.config import HostTypeSettings, ScalingSettings, Settings
from headrace.store import Store
from headrace.store.fleet.provisioning import LOCAL_START_S, NEWEST, Provisioning, provisioning, write_off
from headrace.tables import hosts

NOW = datetime(2026, 11, 27, 9, 0, tzinfo=UTC)


@pytest.fixture
def typed(settings: Settings) -> Settings:
    """The type `a100` is ready within 100 s, says the file."""
    return settings.model_copy(update={"hosts": {"a100": HostTypeSettings(usd_per_hour=Decimal(4), provision_s=100)}})


@pytest.fixture
def came(store: Store) -> Callable[..., None]:
    """Writes a lease for each time, the first one ordered last; keyword arguments set its columns."""

    def write(took_s: Sequence[float | None], instance_type: str | None = "a100", **columns: Any) -> None:
        rows = [
            {
                "id": f"{instance_type}-{len(columns)}-{number}",
                "pool": "chat",
                "instance_type": instance_type,
                "requested_at": NOW - timedelta(hours=number),
                "ready_at": None if each is None else NOW - timedelta(hours=number) + timedelta(seconds=each),
                **columns,
            }
            for number, each in enumerate(took_s)
        ]
        random.Random(1).shuffle(rows)
        with store.begin() as db:
            db.execute(sa.insert(hosts), rows)

    return write


def measured(store: Store, settings: Settings, instance_type: str | None = "a100") -> Provisioning:
    with store.begin() as db:
        return provisioning(db, settings, instance_type)


def patience_s(store: Store, settings: Settings) -> float:
    with store.begin() as db:
        return write_off(db, settings, "a100").total_seconds()


def test_the_settings_count_until_ten_hosts_were_measured(
    store: Store, typed: Settings, came: Callable[..., None]
) -> None:
    assert measured(store, typed) == Provisioning(0, 100, 100, 100)
    came([200.0] * 9)
    # A host that took longer than the set time shows that others may.
    assert measured(store, typed) == Provisioning(9, 100, 100, 200)
    came([200.0], is_adopted=False)
    assert measured(store, typed) == Provisioning(10, 200, 200, 200)
    assert patience_s(store, typed) == 300


def test_the_quantiles_are_those_of_the_types_newest_ordered_hosts(
    store: Store, typed: Settings, came: Callable[..., None]
) -> None:
    came([float(second) for second in range(NEWEST)] + [10_000.0] * 50)
    came([5000.0] * 300, "h100")
    came([7000.0] * 300, is_adopted=True)
    came([None] * 50, end_reason="written_off", ended_at=NOW)
    found = measured(store, typed)
    assert (found.count, found.p50_s, found.p90_s) == (NEWEST, 99.5, pytest.approx(179.1))
    assert found.p99_s == pytest.approx(197.01)


def test_without_a_type_the_default_counts_and_a_local_process_starts_soon(
    store: Store, settings: Settings, came: Callable[..., None]
) -> None:
    assert measured(store, settings, None) == measured(store, settings, "unknown") == Provisioning(0, 300, 300, 300)
    local = ScalingSettings.model_validate({"mode": "active", "actuator": "local", "local": {"provision_s": 20}})
    here = settings.model_copy(update={"scaling": local})
    assert measured(store, here, None) == Provisioning(0, 20 + LOCAL_START_S, 20 + LOCAL_START_S, 300)
    came([12.0] * 10, None)
    assert measured(store, here, None) == Provisioning(10, 12, 12, 12)


def test_the_time_to_a_write_off_doubles_until_a_host_comes(
    store: Store, typed: Settings, came: Callable[..., None]
) -> None:
    """A host that is written off is ended and never measured: a `provision_s` that is too low would end every host."""
    found = [patience_s(store, typed)]
    for order in range(5):
        ordered_at = NOW - timedelta(hours=20 - order)
        written_off = {"end_reason": "written_off", "drain_at": ordered_at, "requested_at": ordered_at}
        # Two hosts of one order are one failure; a host that was not wanted any more is none.
        for host in ("a", "b"):
            came([None], id=f"{order}{host}", **written_off)
        came([None], id=f"{order}c", requested_at=ordered_at, drain_at=ordered_at, end_reason="scaled_down")
        found.append(patience_s(store, typed))
    assert found == [150, 300, 600, 1200, 1200, 1200]
    came([120.0])
    assert patience_s(store, typed) == 180
