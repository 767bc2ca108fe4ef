"""What a host does: measured in minutes in which it was saturated, and otherwise as set.

How long hosts take to come: measured by instance type, or the settings' time until enough were measured.
"""

import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa

from headrace.config import HostTypeSettings, PoolSettings, ScalingSettings, Settings
from headrace.store import Store
from headrace.store.scaling.capacity import (
    LOCAL_START_S,
    NEWEST_HOSTS,
    Capacity,
    Provisioning,
    capacity_of,
    provisioning,
    write_off,
)
from headrace.tables import hosts
from tests.integration.headrace.store.scaling.conftest import NOW, every

MINUTE = timedelta(minutes=1)
#: Two hosts of 8 slots each, which start 4 jobs of 250 tokens every 5 s: 100 tokens per second each.
FULL: dict[str, Any] = {
    "depth": 12,
    "running": 16,
    "slots": 16,
    "hosts": 2,
    "started": 4,
    "started_tokens": 1000,
}


@pytest.fixture
def set_up(settings: Settings) -> Settings:
    """A pool whose engines have 8 slots and keep none for `high`."""
    pools = {"chat": PoolSettings(max_running=8, kv_high_share=0)}
    return settings.model_copy(update={"pools": pools})


@pytest.fixture
def measured(store: Store, set_up: Settings) -> Callable[..., Capacity]:
    def measure(settings: Settings = set_up) -> Capacity:
        with store.begin() as db:
            return capacity_of(db, settings, "chat", NOW)

    return measure


def minutes(count: float, end: datetime = NOW - MINUTE) -> list[datetime]:
    """The times of samples in this number of minutes, the first one second into the first minute."""
    return [at + timedelta(seconds=1) for at in every(5, end - count * MINUTE, end)]


def test_a_fresh_pool_has_the_slots_of_its_settings_and_no_rate(measured: Callable[..., Capacity]) -> None:
    assert measured() == Capacity(None, 8.0, 0)


def test_until_enough_minutes_were_saturated_the_rate_of_the_host_type_counts(
    set_up: Settings, sample: Callable[..., None], measured: Callable[..., Capacity]
) -> None:
    a100 = HostTypeSettings(usd_per_hour=Decimal(4), tokens_per_s=70)
    of_type = set_up.model_copy(update={"hosts": {"a100": a100}, "scaling": ScalingSettings(host_type="a100")})
    # The first and the last minute lack a neighbour, so a change beside them would go unseen.
    sample(minutes(21), **FULL)
    assert measured(of_type) == Capacity(70, 8.0, 19)
    assert measured() == Capacity(None, 8.0, 19)
    sample(minutes(1, NOW - 22 * MINUTE), **FULL)
    assert measured(of_type) == Capacity(100, 8.0, 20)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"running": 14, "kv_use": 0.84}, id="slots are free"),
        pytest.param({"depth": 0}, id="no job waits"),
        pytest.param({"hosts_draining": 1}, id="jobs run on hosts that drain"),
        pytest.param({"slots": 0, "hosts": 0}, id="there is no host"),
    ],
)
def test_minutes_that_were_not_saturated_do_not_count(
    sample: Callable[..., None], measured: Callable[..., Capacity], change: dict[str, Any]
) -> None:
    sample(minutes(60), **{**FULL, **change})
    assert measured().minutes == 0


def test_a_full_kv_cache_saturates_a_pool_with_free_slots(
    sample: Callable[..., None], measured: Callable[..., Capacity]
) -> None:
    sample(minutes(60), **{**FULL, "running": 3, "kv_use": 0.875})
    assert measured() == Capacity(100, 8.0, 58)


def test_slots_that_are_kept_for_high_need_not_be_full(
    set_up: Settings, sample: Callable[..., None], measured: Callable[..., Capacity]
) -> None:
    sample(minutes(60), **{**FULL, "running": 11})
    assert measured().minutes == 0
    kept = set_up.model_copy(update={"pools": {"chat": PoolSettings(max_running=8, kv_high_share=0.25)}})
    assert measured(kept).minutes == 58


def test_minutes_in_which_hosts_come_or_go_do_not_count(
    sample: Callable[..., None], measured: Callable[..., Capacity]
) -> None:
    for number, count in enumerate((2, 3, 3, 3, 2)):
        scaled = {name: FULL[name] * count // 2 for name in ("running", "slots", "hosts", "started_tokens")}
        sample(minutes(9, NOW - (1 + 9 * number) * MINUTE), **{**FULL, **scaled})
    # Of 45 minutes: not the outer two, nor those beside the two changes.
    assert measured() == Capacity(100, 8.0, 39)


def test_a_minute_beside_a_gap_does_not_count(sample: Callable[..., None], measured: Callable[..., Capacity]) -> None:
    # What happened in the minute that was not observed is unknown: of three minutes, the middle one counts.
    for number in range(20):
        sample(minutes(3, NOW - (1 + 4 * number) * MINUTE), **FULL)
    assert measured() == Capacity(100, 8.0, 20)


def test_jobs_that_fill_empty_slots_are_not_throughput(
    sample: Callable[..., None], measured: Callable[..., Capacity]
) -> None:
    # In each minute 50 jobs of 1,000 tokens start, and two jobs more run afterwards.
    for second, at in enumerate(minutes(40)):
        started = 5 if second % 12 < 2 else 4
        rising = {"running": 20 + 2 * (second // 12), "slots": 200, "hosts": 10, "kv_use": 0.9}
        sample([at], depth=12, started=started, started_tokens=1000 * started, **rising)
    assert measured() == Capacity(pytest.approx(48 * 1000 / 60 / 10), 20.0, 38)


def test_one_bad_hour_does_not_decide_and_the_newest_minutes_do(
    sample: Callable[..., None], measured: Callable[..., Capacity]
) -> None:
    sample(minutes(200, NOW - 300 * MINUTE), **{**FULL, "started_tokens": 9000})
    sample(minutes(160, NOW - 100 * MINUTE), **FULL)
    sample(minutes(60), **{**FULL, "started_tokens": 10})
    assert measured() == Capacity(100, 8.0, 200)


def test_long_jobs_that_start_rarely_have_their_mean_rate(
    sample: Callable[..., None], measured: Callable[..., Capacity]
) -> None:
    # One job of 30,000 tokens every five minutes: the median of single minutes would be 0.
    times = minutes(202)
    full = {**FULL, "running": 8, "slots": 8, "hosts": 1}
    sample(times, **{**full, "started": 0, "started_tokens": 0})
    starts = [at + timedelta(seconds=1) for at in times[::60]]
    sample(starts, **{**full, "started": 1, "started_tokens": 30_000})
    assert measured() == Capacity(pytest.approx(100.0), 8.0, 200)


def test_older_minutes_come_from_the_roll_up_and_weigh_as_much(
    sample: Callable[..., None], roll_up: Callable[..., None], measured: Callable[..., Capacity]
) -> None:
    rolled = {**FULL, "started": 48, "started_tokens": 12_000}
    # A part of one minute is still in samples.
    edge = NOW - timedelta(days=1)
    roll_up(every(60, edge - 30 * MINUTE, edge), 60, **rolled)
    roll_up([edge], 60, **{**rolled, "samples": 6, "started": 24, "started_tokens": 6000})
    sample([edge + timedelta(seconds=31 + 5 * number) for number in range(6)], **FULL)
    sample(minutes(9, edge + 10 * MINUTE), **FULL)
    roll_up(every(3600, NOW - timedelta(days=6), NOW - timedelta(days=5)), 3600, **rolled)
    roll_up(every(60, NOW - timedelta(days=9), NOW - timedelta(days=8)), 60, **rolled)
    assert measured() == Capacity(100, 8.0, 38)


def test_slots_are_those_of_a_whole_host(
    sample: Callable[..., None], roll_up: Callable[..., None], measured: Callable[..., Capacity]
) -> None:
    roll_up(every(60, NOW - timedelta(days=2), NOW - timedelta(days=1)), 60, slots=48, hosts=2)
    assert measured().slots_per_host == 24
    sample(minutes(5, NOW - timedelta(hours=9)), slots=64, hosts=2)
    # The worker on one host loads its engine again.
    sample(minutes(1, NOW - timedelta(hours=8)), slots=32, hosts=2)
    sample(minutes(60), slots=0, hosts=0)
    assert measured().slots_per_host == 32


def test_another_pool_does_not_count(sample: Callable[..., None], measured: Callable[..., Capacity]) -> None:
    sample(minutes(60), pool="chat2", **FULL)
    assert measured() == Capacity(None, 8.0, 0)


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


def times(store: Store, settings: Settings, instance_type: str | None = "a100") -> Provisioning:
    with store.begin() as db:
        return provisioning(db, settings, instance_type)


def patience_s(store: Store, settings: Settings) -> float:
    with store.begin() as db:
        return write_off(db, settings, "a100").total_seconds()


def test_the_settings_count_until_ten_hosts_were_measured(
    store: Store, typed: Settings, came: Callable[..., None]
) -> None:
    assert times(store, typed) == Provisioning(0, 100, 100)
    came([200.0] * 9)
    # A host that took longer than the set time shows that others may.
    assert times(store, typed) == Provisioning(9, 100, 200)
    came([200.0], is_adopted=False)
    assert times(store, typed) == Provisioning(10, 200, 200)
    assert patience_s(store, typed) == 300


def test_the_quantiles_are_those_of_the_types_newest_ordered_hosts(
    store: Store, typed: Settings, came: Callable[..., None]
) -> None:
    came([float(second) for second in range(NEWEST_HOSTS)] + [10_000.0] * 50)
    came([5000.0] * 300, "h100")
    came([7000.0] * 300, is_adopted=True)
    came([None] * 50, end_reason="written_off", ended_at=NOW)
    found = times(store, typed)
    assert (found.count, found.p90_s) == (NEWEST_HOSTS, pytest.approx(179.1))
    assert found.p99_s == pytest.approx(197.01)


def test_without_a_type_the_default_counts_and_a_local_process_starts_soon(
    store: Store, settings: Settings, came: Callable[..., None]
) -> None:
    assert times(store, settings, None) == times(store, settings, "unknown") == Provisioning(0, 300, 300)
    local = ScalingSettings.model_validate({"mode": "active", "actuator": "local", "local": {"provision_s": 20}})
    here = settings.model_copy(update={"scaling": local})
    assert times(store, here, None) == Provisioning(0, 20 + LOCAL_START_S, 300)
    came([12.0] * 10, None)
    assert times(store, here, None) == Provisioning(10, 12, 12)


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
