"""The bills of machines on a real Postgres: machines of several pools, and owned ones, billed by the calendar."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa

from headrace.config import CostSettings, OwnedHostSettings
from headrace.domain.fleet import WorkerInfo
from headrace.domain.ids import new_id
from headrace.store import Store, clock
from headrace.store.fleet import hosts as leases
from headrace.store.fleet import workers
from headrace.store.fleet.hosts import HostPrice, StrayHost
from headrace.store.money import cost_hours as hours
from headrace.store.money import costs, host_hours
from headrace.store.money.cost_hours import reconcile
from headrace.store.money.host_hours import HostTerms, OwnedHost, bills_so_far
from headrace.tables import cost_hours, hosts, ledger
from headrace.tables import host_hours as billed

#: The start of an hour that is over.
HOUR = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=6)
PRICE = Decimal("4.10")

AddLease = Callable[..., None]
AddUse = Callable[..., None]


def at(minutes: float) -> datetime:
    return HOUR + timedelta(minutes=minutes)


@pytest.fixture
def lease(store: Store) -> AddLease:
    """Writes a lease of 4.10 USD an hour for exactly this hour; keyword arguments replace its columns."""

    def insert(host_id: str, pool: str = "chat", **changes: Any) -> None:
        times = {"requested_at": at(0), "ordered_at": at(0), "ready_at": at(0), "ended_at": at(60)}
        row = {"id": host_id, "pool": pool, "usd_per_hour": PRICE, "instance_type": "a100", "end_reason": "gone"}
        with store.begin() as db:
            db.execute(sa.insert(hosts).values(row | times | changes))

    return insert


@pytest.fixture
def use(store: Store) -> AddUse:
    """Writes a charge of a pool on a host in the middle of the hour; keyword arguments replace its columns."""

    def insert(pool: str, engine_s: float, host_id: str = "gpu-1", **changes: Any) -> None:
        row = {"kind": "compute", "pool": pool, "at": at(30), "prompt_tokens": 100, "usd": Decimal("0.001")}
        with store.begin() as db:
            db.execute(sa.insert(ledger).values({**row, "engine_s": engine_s, "host_id": host_id} | changes))

    return insert


def close(store: Store, terms: HostTerms | None = None) -> dict[str, Decimal]:
    """Close every hour that is over; returns the sum of the bills by pool."""
    terms = terms or HostTerms()
    with store.begin() as db:
        while found := hours.open_bills(db, terms):
            for bill in found:
                hours.close_hour(db, bill, terms.costs)
        sums = sa.select(cost_hours.c.pool, sa.func.sum(cost_hours.c.bill_usd).label("usd")).group_by(cost_hours.c.pool)
        return {row.pool: row.usd for row in db.execute(sums)}


def shares(store: Store) -> list[tuple[str, str, Decimal]]:
    with store.begin() as db:
        found = sa.select(billed.c.machine, billed.c.pool, billed.c.share).order_by(billed.c.machine, billed.c.pool)
        return [tuple(row) for row in db.execute(found)]


def differences(store: Store) -> set[Decimal]:
    with store.begin() as db:
        return set(db.scalars(sa.text("SELECT difference_usd FROM cost_reconciliation")))


def test_a_second_pool_on_a_machine_changes_no_total(store: Store, lease: AddLease, use: AddUse) -> None:
    lease("gpu-1")
    use("chat", 30)
    assert close(store) == {"chat": PRICE}

    lease("other", "embed", provider_id="gpu-1")
    use("embed", 10)

    # The sum of both leases would be 8.20 USD.
    found = close(store)
    assert sum(found.values()) == PRICE
    assert found == {"chat": Decimal("3.075"), "embed": Decimal("1.025")}
    assert differences(store) == {0}
    with store.begin() as db:
        assert reconcile(db, HostTerms()).hosts_usd == PRICE


def test_adopting_the_workers_of_a_second_pool_changes_no_total(store: Store) -> None:
    """As the sweeps do it: the lease of the second pool gets an id of its own, and the machine's price."""
    with store.begin() as db:
        began = clock.now(db) - timedelta(hours=2)
        for pool, usd in (("chat", PRICE), ("embed", Decimal(9))):
            worker = WorkerInfo(new_id(), "w", "gpu-1", pool, "simulator", "m", max_running=8)
            workers.register(db, worker, 10.0)
            stray = StrayHost("gpu-1", began, is_ready=True)
            assert leases.adopt(db, pool, stray, HostPrice("a100", usd), None)
        prices = db.scalars(sa.select(hosts.c.usd_per_hour)).all()
        found = reconcile(db, HostTerms())

    assert prices == [PRICE, PRICE]
    assert abs(found.hosts_usd - 2 * PRICE) < Decimal("0.01")
    assert abs(found.difference_usd) < Decimal("1e-8")


def test_the_longer_lease_has_the_machine_alone_afterwards(store: Store, lease: AddLease, use: AddUse) -> None:
    lease("gpu-1", ended_at=at(60))
    lease("other", "embed", provider_id="gpu-1", ordered_at=at(30), ended_at=at(90), usd_per_hour=None)
    use("chat", 10)
    use("embed", 10, at=at(70))

    assert close(store) == {"chat": PRICE, "embed": PRICE / 2}
    assert shares(store) == [("gpu-1", "chat", 1), ("gpu-1", "embed", 0), ("gpu-1", "embed", 1)]


def test_the_seconds_of_an_engine_weigh_as_the_tokens_in_them(store: Store, lease: AddLease, use: AddUse) -> None:
    lease("gpu-1")
    lease("other", "embed", provider_id="gpu-1")
    # Half of the tokens are an answer's, which weigh 4: 2.5 for each token.
    use("chat", 10, prompt_tokens=50, output_tokens=50)
    use("embed", 15)
    use("embed", 1000, host_id="gpu-2")
    use("embed", 1000, kind="api")

    close(store)

    assert shares(store) == [("gpu-1", "chat", Decimal("0.625")), ("gpu-1", "embed", Decimal("0.375"))]


def test_by_the_kv_cache_the_tokens_held_count(store: Store, lease: AddLease, use: AddUse) -> None:
    lease("gpu-1")
    lease("other", "embed", provider_id="gpu-1")
    use("chat", 10, kv_token_s=3000.0)
    use("embed", 10)

    close(store, HostTerms(CostSettings(weigh_by="kv")))

    assert shares(store) == [("gpu-1", "chat", Decimal("0.75")), ("gpu-1", "embed", Decimal("0.25"))]


def test_without_use_the_time_of_the_leases_counts(store: Store, lease: AddLease) -> None:
    lease("gpu-1")
    lease("other", "embed", provider_id="gpu-1", ordered_at=at(40))

    close(store)

    assert shares(store) == [("gpu-1", "chat", Decimal("0.75")), ("gpu-1", "embed", Decimal("0.25"))]


def test_work_without_tokens_is_no_use(store: Store, lease: AddLease, use: AddUse) -> None:
    lease("gpu-1")
    lease("other", "embed", provider_id="gpu-1")
    use("chat", 10, prompt_tokens=0)
    use("embed", 1)

    close(store)

    assert shares(store) == [("gpu-1", "chat", 0), ("gpu-1", "embed", 1)]


def test_hours_without_a_price_do_not_hide_those_that_follow(store: Store, lease: AddLease) -> None:
    first = HOUR - timedelta(hours=2 * host_hours.MOST_HOURS)
    lease("free", ordered_at=first, ended_at=first + timedelta(hours=host_hours.MOST_HOURS + 5), usd_per_hour=None)
    lease("gpu-1")

    with store.begin() as db:
        assert [bill.bill_usd for bill in hours.open_bills(db)] == [PRICE]


def test_fixed_shares_win_over_use(store: Store, lease: AddLease, use: AddUse) -> None:
    lease("gpu-1")
    lease("other", "embed", provider_id="gpu-1")
    use("embed", 10)

    close(store, HostTerms(fixed={"a100": {"chat": Decimal("0.9"), "embed": Decimal("0.1"), "gone": Decimal("0.5")}}))

    assert shares(store) == [("gpu-1", "chat", Decimal("0.9")), ("gpu-1", "embed", Decimal("0.1"))]


def test_a_machine_that_starts_again_has_the_price_of_its_new_lease(store: Store, lease: AddLease) -> None:
    lease("gpu-1", ended_at=at(15), usd_per_hour=4)
    lease("again", provider_id="gpu-1", ordered_at=at(30), usd_per_hour=8)

    assert close(store) == {"chat": Decimal(1 + 4)}
    assert shares(store) == [("gpu-1", "chat", 1)]


def own(**changes: Any) -> HostTerms:
    """An owned machine `gpu-1` of 4.10 USD an hour since two hours before the hour; `embed` pays what nobody used."""
    usual = {"name": "gpu-1", "type": "a100", "since": at(-120), "until": at(120)}
    return HostTerms(owned=[OwnedHost(OwnedHostSettings.model_validate(usual | changes), PRICE, ["embed"])])


def test_an_owned_machine_costs_the_same_working_idle_and_dead(store: Store, lease: AddLease, use: AddUse) -> None:
    lease("gpu-1", ordered_at=at(30), ready_at=at(35), ended_at=at(120))
    use("chat", 10, usd=Decimal(1), at=at(40))

    found = close(store, own())

    assert found == {"chat": 2 * PRICE, "embed": 2 * PRICE}
    with store.begin() as db:
        months = [
            costs.month(db, first, first + timedelta(days=32)) for first in {month_of(at(-120)), month_of(at(60))}
        ]
        view = "SELECT pool, sum(used_usd), sum(idle_usd), sum(dead_usd), sum(dead_hours), sum(platform_usd)"
        rows = {row[0]: tuple(row[1:]) for row in db.execute(sa.text(f"{view} FROM gpu_hours GROUP BY pool"))}
        check = reconcile(db, own())
    half = PRICE / 2
    # In its first hour the worker was up for half of it; in the second one it did nothing, which is idle.
    assert rows["chat"] == (1, PRICE + half - 1, half, Decimal("0.5"), rows["chat"][4])
    assert rows["embed"] == (0, 0, 2 * PRICE, 2, 2 * PRICE)
    assert rows["chat"][4] == pytest.approx(PRICE + half)
    assert sum(pool.dead_usd for each in months for pool in each.pools) >= half
    assert differences(store) == {0}
    assert (check.hosts_usd, check.host_hours) == (4 * PRICE, 4)
    assert abs(check.difference_usd) < Decimal("1e-8")


def test_bills_so_far_are_those_of_the_hours_once_they_are_closed(store: Store, lease: AddLease) -> None:
    lease("gpu-1", ordered_at=at(30), ended_at=at(60))
    lease("box")
    lease("other", "embed", provider_id="box", ordered_at=at(30), usd_per_hour=None)
    lease("old", ended_at=at(-10), ordered_at=at(-60))
    lease("free", usd_per_hour=None)
    terms = own()

    with store.begin() as db:
        found = bills_so_far(db, terms, at(0), at(60))
        assert bills_so_far(db, terms, at(60), at(0)) == {}

    # The owned machine's one hour, and the box by how long each pool had it.
    third = PRICE / 3
    assert {pool: round(usd, 8) for pool, usd in found.items()} == {
        "chat": round(PRICE + 2 * third, 8),
        "embed": round(third, 8),
    }
    close(store, terms)
    with store.begin() as db:
        billed_usd = sa.select(sa.func.sum(cost_hours.c.bill_usd)).where(cost_hours.c.hour == at(0))
        assert round(sum(found.values()), 8) == db.scalar(billed_usd)


def test_bills_so_far_have_the_price_with_which_a_machine_s_life_began(store: Store, lease: AddLease) -> None:
    lease("box", ordered_at=at(-90), ended_at=at(-30))
    # Two more leases without a gap, the last of another pool: the machine keeps its price.
    lease("second", provider_id="box", ordered_at=at(-30), ended_at=at(-5), usd_per_hour=9, is_adopted=True)
    lease("third", "embed", provider_id="box", ordered_at=at(-5), usd_per_hour=None, is_adopted=True)
    fixed = HostTerms(fixed={"a100": {"chat": Decimal("0.5"), "embed": Decimal("0.5")}})

    with store.begin() as db:
        found = bills_so_far(db, fixed, at(0), at(60))

    close(store, fixed)
    with store.begin() as db:
        billed_usd = sa.select(cost_hours.c.pool, cost_hours.c.bill_usd).where(cost_hours.c.hour == at(0))
        assert found == {row.pool: row.bill_usd for row in db.execute(billed_usd)} == {"embed": PRICE}


def test_the_open_hours_of_a_month_have_their_hosts_cost_and_are_no_saving_yet(
    store: Store, lease: AddLease, use: AddUse
) -> None:
    lease("gpu-1", ended_at=None, end_reason=None)
    use("chat", 10, usd=Decimal("0.10"), api_usd=Decimal(3))

    def month(terms: HostTerms | None = None) -> costs.Month:
        with store.begin() as db:
            return costs.month(db, month_of(HOUR), month_of(HOUR) + timedelta(days=63), terms)

    [found] = month().open_hours
    assert (found.since, found.requests, found.usd) == (month_of(HOUR), 1, Decimal("0.10"))
    assert found.saved_usd == 3 - found.hosts_usd
    # Since the hour, which began at least six hours ago.
    assert found.hosts_usd > 6 * PRICE
    assert month().savings == []
    close(store)
    [found] = month().open_hours
    assert (found.requests, found.usd) == (0, 0)
    assert found.since > HOUR
    assert found.hosts_usd < 2 * PRICE
    [saving] = month().savings
    assert saving.requests == 1
    assert saving.saved_usd < 3 - 4 * PRICE


def month_of(moment: datetime) -> datetime:
    return moment.replace(day=1, hour=0)


def test_dead_time_is_the_platforms_and_costs_no_request_more(store: Store, lease: AddLease, use: AddUse) -> None:
    lease("gpu-1", ordered_at=at(30))
    use("chat", 10, usd=Decimal("0.05"))

    close(store, own(since=at(0), until=at(60)))

    with store.begin() as db:
        [(full_usd, platform_usd)] = db.execute(
            sa.text("SELECT full_usd, platform_usd FROM charges, cost_hours WHERE kind = 'compute'")
        )
    assert full_usd == pytest.approx(PRICE / 2)
    assert platform_usd == pytest.approx(PRICE / 2)


def test_savings_and_the_split_point_count_dead_machines(store: Store, lease: AddLease, use: AddUse) -> None:
    lease("gpu-1", ordered_at=at(0), ended_at=at(60))
    use("chat", 10, api_usd=Decimal(10))
    terms = HostTerms(owned=[OwnedHost(own().owned[0].host, PRICE, ["chat"])])

    close(store, terms)

    with store.begin() as db:
        since, until = month_of(HOUR), month_of(HOUR) + timedelta(days=32)
        saved = db.scalar(sa.text("SELECT sum(saved_usd) FROM savings_per_day WHERE pool = 'chat'"))
        [point] = costs.split_points(db, since, until)
        billed_h = db.scalar(
            sa.text("SELECT sum(host_s) / 3600 FROM cost_hours WHERE hour >= :since"), {"since": since}
        )
    assert saved == 10 - 4 * PRICE
    assert point.usd_per_host_hour == PRICE
    assert point.requests_per_host_hour == pytest.approx(1 / billed_h)


def test_a_machine_that_is_declared_late_is_billed_since_then(store: Store, lease: AddLease) -> None:
    lease("other", ordered_at=at(0))
    close(store)
    since = HOUR - 3 * host_hours.REVISE

    found = close(store, own(since=since, until=at(60)))

    assert found == {"chat": PRICE, "embed": (3 * 7 * 24 + 1) * PRICE}


def test_a_new_until_takes_hours_back_and_a_deleted_machine_its_last_week(store: Store) -> None:
    assert close(store, own()) == {"embed": 4 * PRICE}
    assert close(store, own(until=at(-60))) == {"embed": PRICE}
    assert close(store, HostTerms()) == {}


def test_a_death_that_became_known_late_moves_the_bill_from_idle_to_dead(store: Store, lease: AddLease) -> None:
    lease("gpu-1")
    close(store, own(since=at(0), until=at(60)))
    with store.begin() as db:
        db.execute(sa.update(hosts).values(ended_at=at(15)))

    close(store, own(since=at(0), until=at(60)))

    with store.begin() as db:
        found = db.execute(sa.text("SELECT bill_usd, idle_usd, dead_usd FROM gpu_hours")).all()
    assert [tuple(row) for row in found] == [(PRICE, PRICE / 4, PRICE * 3 / 4)]


def test_a_bill_whose_closing_a_crash_prevents_is_closed_by_the_next_sweep(store: Store, lease: AddLease) -> None:
    lease("gpu-1")
    with store.begin() as db:
        [bill] = hours.open_bills(db)
    with store.begin() as db:
        assert hours.open_bills(db) == [bill]
    assert close(store) == {"chat": PRICE}
    # A bill that only moved from idle to dead costs the same, and is closed again as well.
    terms = own(since=at(0), until=at(60))
    with store.begin() as db:
        db.execute(sa.update(hosts).values(ended_at=at(15)))
    with store.begin() as db:
        [moved] = hours.open_bills(db, terms)
    with store.begin() as db:
        assert hours.open_bills(db, terms) == [moved]
    assert moved.dead_usd == PRICE * 3 / 4


def test_many_machines_are_billed_in_little_time(store: Store) -> None:
    """As a sweep does it each minute: 200 machines of two pools for a day, all of them billed already."""
    with store.begin() as db:
        rows = [
            {"id": f"{pool}-{number}", "pool": pool, "provider_id": f"gpu-{number}", "usd_per_hour": PRICE}
            | {"requested_at": at(-1440), "ordered_at": at(-1440), "ready_at": at(-1440), "ended_at": at(0)}
            for pool in ("chat", "embed")
            for number in range(200)
        ]
        db.execute(sa.insert(hosts), rows)
    assert sum(close(store).values()) == 200 * 24 * PRICE
    with store.begin() as db:
        db.execute(sa.text("SET LOCAL statement_timeout = '2s'"))
        assert hours.open_bills(db) == []
