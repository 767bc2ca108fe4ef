"""Hours of own hosts on a real Postgres: their bills, and how requests share them.

The ledger beside the bills, up to now, in an hour that is not over.

Corrections and waste in the analysts' views of days, before and after a day is closed.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.config import CostSettings
from headrace.domain.apps import App
from headrace.domain.ids import new_id
from headrace.domain.queues import Ticket
from headrace.policies.pricing import HourRates
from headrace.store import Store, clock
from headrace.store.money import cost_hours as hours
from headrace.store.money.cost_hours import Reconciliation, reconcile
from headrace.store.money.host_hours import HostTerms
from headrace.tables import attempts, cost_hours, hosts, jobs, ledger

#: The start of an hour that is over.
HOUR = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=6)
COSTS = CostSettings()

AddHost = Callable[..., None]
AddEntry = Callable[..., None]


def at(minutes: float) -> datetime:
    return HOUR + timedelta(minutes=minutes)


@pytest.fixture
def add_host(store: Store) -> AddHost:
    """Writes a lease of 4.10 USD an hour for exactly this hour; keyword arguments replace its columns."""

    def insert(**changes: Any) -> None:
        usual = {"pool": "chat", "usd_per_hour": Decimal("4.10"), "requested_at": at(0), "ordered_at": at(0)}
        row = {"id": new_id().hex, "ready_at": at(0), "ended_at": at(60), "end_reason": "scaled_down"}
        with store.begin() as db:
            db.execute(sa.insert(hosts).values(row | usual | changes))

    return insert


@pytest.fixture
def add_entry(store: Store) -> AddEntry:
    """Writes a charge in the middle of the hour; keyword arguments replace its columns."""

    def insert(usd: Decimal | str = "0.001", output_tokens: int = 100, **changes: Any) -> None:
        usual = {"kind": "compute", "pool": "chat", "at": at(30), "prompt_tokens": 1000, "kv_token_s": 12.5}
        with store.begin() as db:
            db.execute(sa.insert(ledger).values({**usual, "usd": usd, "output_tokens": output_tokens, **changes}))

    return insert


def close(store: Store, costs: CostSettings = COSTS) -> list[hours.HostBill]:
    with store.begin() as db:
        found = hours.open_bills(db)
        for bill in found:
            hours.close_hour(db, bill, costs)
    return found


def rows(store: Store) -> list[Any]:
    with store.begin() as db:
        return list(db.execute(sa.select(cost_hours).order_by(cost_hours.c.hour, cost_hours.c.pool)))


def differences(store: Store) -> list[Decimal]:
    with store.begin() as db:
        return list(db.scalars(sa.text("SELECT difference_usd FROM cost_reconciliation")))


def test_an_hour_is_shared_by_price_and_then_by_work(store: Store, add_host: AddHost, add_entry: AddEntry) -> None:
    add_host(ordered_at=at(0), ready_at=at(15))
    add_entry("1.10", output_tokens=250)
    add_entry("0.50", output_tokens=0, cached_tokens=1000)

    close(store)

    [hour] = rows(store)
    assert (hour.bill_usd, hour.boot_usd, hour.host_s, hour.boot_s) == (Decimal("4.10"), Decimal("1.025"), 3600, 900)
    assert (hour.requests, hour.work, hour.compute_usd) == (2, 2000 + 100, Decimal("1.60"))
    assert (hour.factor, hour.idle_usd_per_work) == (1, Decimal("0.001190476190476190"))
    assert hour.platform_usd == Decimal("4.10") - Decimal("1.60") - Decimal("2.380952380") - Decimal("0.119047619")
    assert differences(store) == [0]


@pytest.mark.parametrize("prices", [["3", "5"], ["4", "4"]])
def test_requests_whose_prices_exceed_the_bill_cost_less_than_their_prices(
    store: Store, add_host: AddHost, add_entry: AddEntry, prices: list[str]
) -> None:
    add_host()
    for price in prices:
        add_entry(price)

    close(store)

    [hour] = rows(store)
    assert (hour.factor, hour.idle_usd_per_work) == (Decimal("0.5125"), 0)
    assert (hour.platform_usd, differences(store)) == (0, [0])


def test_an_hour_without_requests_is_the_platforms(store: Store, add_host: AddHost) -> None:
    add_host()

    close(store)

    assert [(hour.requests, hour.platform_usd) for hour in rows(store)] == [(0, Decimal("4.10"))]
    assert differences(store) == [0]


def test_waste_of_own_hosts_is_the_platforms_and_that_of_the_paid_api_is_not(
    store: Store, add_host: AddHost, add_entry: AddEntry, queued: Callable[..., Any]
) -> None:
    add_host()
    for engine, usd in (("simulator", "0.5"), ("openai", "0.25")):
        job_id = queued().job_id
        with store.begin() as db:
            row = {"job_id": job_id, "number": 1, "worker_id": new_id(), "engine": engine, "started_at": at(20)}
            db.execute(sa.insert(attempts).values(row))
        add_entry(usd, kind="waste", job_id=job_id, attempt=1)
    add_entry("1")

    close(store)

    [hour] = rows(store)
    assert (hour.compute_usd, hour.waste_usd, hour.requests) == (Decimal(1), Decimal("0.5"), 1)
    assert hour.platform_usd >= Decimal("0.5")
    assert differences(store) == [0]


def test_entries_count_in_the_hour_of_their_time_and_in_their_pool(
    store: Store, add_host: AddHost, add_entry: AddEntry
) -> None:
    add_host(ended_at=at(120))
    add_entry("0.1", at=at(60) - timedelta(microseconds=1))
    add_entry("0.2", at=at(60))
    add_entry("0.4", at=at(60), pool="other")
    add_entry("0.8", at=at(60), kind="api")

    close(store)

    assert [hour.compute_usd for hour in rows(store)] == [Decimal("0.1"), Decimal("0.2")]


def test_the_hours_of_a_lease_add_up_to_its_bill(store: Store, add_host: AddHost) -> None:
    add_host(ordered_at=at(17.123), ready_at=at(61), ended_at=at(199.777), usd_per_hour=Decimal("1.234567891"))

    close(store)

    found = rows(store)
    lease_s = Decimal(str((at(199.777) - at(17.123)).total_seconds()))
    assert len(found) == 4
    assert sum(hour.bill_usd for hour in found) == round(Decimal("1.234567891") * lease_s / 3600, 9)
    assert [hour.boot_usd > 0 for hour in found] == [True, True, False, False]
    assert sum(hour.host_s for hour in found) == lease_s


def test_a_host_that_never_was_ready_only_boots(store: Store, add_host: AddHost) -> None:
    add_host(ready_at=None, ended_at=at(30))

    close(store)

    [hour] = rows(store)
    assert hour.boot_usd == hour.bill_usd == Decimal("2.05")


def test_an_hour_is_closed_once_and_again_only_if_its_bill_changes(
    store: Store, add_host: AddHost, add_entry: AddEntry
) -> None:
    add_host()
    add_entry()
    assert len(close(store)) == 1
    assert close(store) == []

    add_host(ordered_at=at(30))

    assert len(close(store)) == 1
    [hour] = rows(store)
    assert hour.bill_usd == Decimal("6.15")
    assert differences(store) == [0]


def test_hours_after_an_end_that_became_known_late_are_not_billed(
    store: Store, add_host: AddHost, add_entry: AddEntry
) -> None:
    add_host(ended_at=None, end_reason=None)
    add_entry(at=at(90))
    assert len(close(store)) > 1
    with store.begin() as db:
        db.execute(sa.update(hosts).values(ended_at=at(30), end_reason="gone"))

    close(store)

    assert [(hour.hour, hour.bill_usd) for hour in rows(store)] == [(HOUR, Decimal("2.05"))]


def test_a_pool_whose_hosts_are_found_late_has_its_hours_billed(store: Store, add_host: AddHost) -> None:
    add_host(pool="chat")
    close(store)
    began = HOUR - 2 * hours.REVISE
    add_host(pool="fast", ordered_at=began, ready_at=began, ended_at=began + timedelta(hours=2))

    close(store)

    assert [hour.bill_usd for hour in rows(store) if hour.pool == "fast"] == [Decimal("4.10")] * 2


def test_an_hour_stays_open_until_it_has_settled(store: Store, add_host: AddHost) -> None:
    add_host(ended_at=None, end_reason=None)

    close(store)

    with store.begin() as db:
        now = db.scalar(sa.select(sa.func.now()))
    assert now is not None
    last = (now - hours.SETTLE).replace(minute=0, second=0, microsecond=0) - timedelta(hours=1)
    assert [hour.hour for hour in rows(store)][-1] == last
    assert rows(store)[0].hour == HOUR


def test_hosts_without_a_price_are_counted_and_make_no_bill_alone(store: Store, add_host: AddHost) -> None:
    add_host(pool="fast", usd_per_hour=None)
    add_host(pool="chat", usd_per_hour=None)
    add_host(pool="chat")
    add_host(pool="chat", ordered_at=None)

    close(store)

    assert [(hour.pool, hour.unpriced_hosts, hour.bill_usd) for hour in rows(store)] == [("chat", 1, Decimal("4.10"))]


def test_work_by_the_kv_cache_counts_tokens_held(store: Store, add_host: AddHost, add_entry: AddEntry) -> None:
    add_host()
    add_entry("0.1", kv_token_s=300.0)
    add_entry("0.1", kv_token_s=None)

    close(store, CostSettings(weigh_by="kv"))

    [hour] = rows(store)
    assert (hour.work, hour.weigh_by) == (300, "kv")
    assert differences(store) == [0]


def test_a_request_shows_its_full_cost_once_its_hour_is_closed(
    store: Store, add_host: AddHost, add_entry: AddEntry, queued: Callable[..., Any]
) -> None:
    def cost() -> Any:
        with store.begin() as db:
            found = sa.text("SELECT usd, full_usd, cost_basis FROM cost_per_request WHERE job_id = :job_id")
            return tuple(db.execute(found, {"job_id": job_id}).one())

    job_id = queued().job_id
    assert cost() == (0, 0, None)
    add_entry("0.25", output_tokens=0, job_id=job_id, attempt=1)
    assert cost() == (Decimal("0.25"), Decimal("0.25"), "price")
    add_host()
    close(store)
    assert cost() == (Decimal("0.25"), Decimal("4.10"), "hosts")


COUNT = st.integers(0, 5000)
ENTRY = st.tuples(st.decimals(0, 3, places=9), COUNT, COUNT, st.floats(0, 1e6))
LEASE = st.tuples(st.floats(0, 170), st.floats(0, 170), st.decimals(0, 40, places=9))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(LEASE, min_size=1, max_size=6), st.lists(ENTRY, max_size=12), st.sampled_from(["tokens", "kv"]))
def test_for_any_leases_and_requests_every_hour_adds_up_to_the_last_digit(
    store: Store, leases: list[Any], entries: list[Any], weigh_by: str
) -> None:
    with store.begin() as db:
        db.execute(sa.text("TRUNCATE ledger, hosts, cost_hours, host_hours"))
        for begin, length, price in leases:
            times = {"requested_at": at(begin), "ordered_at": at(begin), "ready_at": at(begin + length / 3)}
            row = {"id": new_id().hex, "pool": "chat", "usd_per_hour": price, "ended_at": at(begin + length)}
            db.execute(sa.insert(hosts).values(row | times))
        for number, (usd, prompt, output, kv_token_s) in enumerate(entries):
            row = {"kind": "compute", "pool": "chat", "usd": usd, "prompt_tokens": prompt, "output_tokens": output}
            db.execute(sa.insert(ledger).values({**row, "kv_token_s": kv_token_s, "at": at(15 * number)}))
        for bill in hours.open_bills(db):
            hours.close_hour(db, bill, CostSettings.model_validate({"weigh_by": weigh_by}))
        found = db.execute(sa.text("SELECT * FROM cost_reconciliation JOIN cost_hours USING (pool, hour)")).all()

    assert all(hour.difference_usd == 0 and hour.platform_usd >= 0 for hour in found)


def test_postgres_shares_as_the_policy_does(store: Store) -> None:
    hour = HourRates.of(Decimal("4.1"), Decimal("9.87654321"), Decimal("12345.6"))
    idle = HourRates.of(Decimal("4.1"), Decimal("0.87654321"), Decimal("12345.6"))
    for rates in (hour, idle):
        with store.begin() as db:
            shared = db.scalar(
                sa.text("SELECT full_usd(:usd, :work, :factor, :idle)"),
                {"usd": Decimal("0.123456789"), "work": Decimal("777.7"), "factor": rates.factor}
                | {"idle": rates.idle_usd_per_work},
            )
        assert shared == rates.share(Decimal("0.123456789"), Decimal("777.7"))


def test_jobs_and_their_states_are_not_touched(store: Store, add_host: AddHost, queued: Callable[..., Any]) -> None:
    job_id = queued().job_id
    add_host()

    close(store)

    with store.begin() as db:
        assert db.scalar(sa.select(jobs.c.state).where(jobs.c.id == job_id)) == "queued"


@pytest.fixture
def served(store: Store, queued: Callable[..., Ticket]) -> None:
    """Two hosts since 90 minutes ago, one of them without a price, and what they and the paid API served."""
    job_id = queued().job_id
    with store.begin() as db:
        now = clock.now(db)
        began = {"requested_at": now, "ordered_at": now - timedelta(minutes=90)}
        for number, usd in enumerate((Decimal("4.10"), None)):
            db.execute(sa.insert(hosts).values(id=f"h{number}", pool=f"p{number}", usd_per_hour=usd, **began))
        tries = {"job_id": job_id, "worker_id": new_id(), "started_at": now}
        rows = [{**tries, "number": 1, "engine": "openai"}, {**tries, "number": 2, "engine": "vllm"}]
        db.execute(sa.insert(attempts), rows)
        usage = {"prompt_tokens": 90, "output_tokens": 30, "usd": 1, "attempt": None, "job_id": None, "at": now}
        entries: list[dict[str, Any]] = [
            {**usage, "kind": "compute", "pool": "p0", "at": now - timedelta(minutes=5)},
            {**usage, "kind": "compute", "pool": "p0", "at": now - timedelta(minutes=80)},
            {**usage, "kind": "compute", "pool": "p1"},
            {**usage, "kind": "waste", "pool": "p0", "job_id": job_id, "attempt": 1, "usd": Decimal("0.25")},
            {**usage, "kind": "waste", "pool": "p0", "job_id": job_id, "attempt": 2, "usd": Decimal("0.5")},
            {**usage, "kind": "api", "pool": "p0", "usd": Decimal("0.125")},
        ]
        db.execute(sa.insert(ledger), [{**entry, "at": entry["at"] - timedelta(microseconds=1)} for entry in entries])


@pytest.mark.usefixtures("served")
def test_the_ledger_is_the_hosts_time_and_the_providers_bill(store: Store) -> None:
    with store.begin() as db:
        found = reconcile(db, HostTerms(), Decimal("0.375"))

    assert abs(found.host_hours - Decimal("1.5")) < Decimal("0.01")
    assert abs(found.hosts_usd - Decimal("6.15")) < Decimal("0.05")
    assert found.platform_usd > 0
    assert abs(found.difference_usd) < Decimal("1e-8")


@pytest.mark.usefixtures("served")
def test_a_call_that_the_ledger_does_not_have_is_a_difference(store: Store) -> None:
    with store.begin() as db:
        found = reconcile(db, HostTerms(), Decimal("0.500"))

    assert abs(found.difference_usd + Decimal("0.125")) < Decimal("1e-8")
    assert found.share > Decimal("0.01")


@pytest.mark.usefixtures("served")
def test_the_hour_that_is_not_over_stays_open(store: Store) -> None:
    with store.begin() as db:
        assert reconcile(db, HostTerms()).platform_usd > 0
    with store.begin() as db:
        assert db.scalar(sa.select(sa.func.count()).select_from(cost_hours)) == 0


def test_nothing_is_no_difference(store: Store) -> None:
    with store.begin() as db:
        assert reconcile(db, HostTerms()) == Reconciliation(*(Decimal(0) for _ in range(5)))


DAY = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.mark.parametrize("is_closed", [False, True])
def test_a_correction_is_no_request_and_a_user_of_waste_alone_has_no_charge(
    store: Store, app: App, is_closed: bool
) -> None:
    with store.begin() as db:
        for kind, user, usd in (("api", "ann", "0.20"), ("adjustment", "ann", "-0.05"), ("waste", "bob", "0.30")):
            row = {"app_id": app.id, "pool": "chat", "at": DAY, "kind": kind, "end_user": user, "usd": Decimal(usd)}
            db.execute(sa.insert(ledger).values(row))
        if is_closed:
            hours.close_day(db, DAY)

    with store.begin() as db:
        days = db.execute(sa.text("SELECT requests, users, usd, waste_usd FROM cost_per_day")).all()
        users = db.execute(sa.text("SELECT requests, users, full_usd FROM cost_per_user_day")).all()
    assert [tuple(row) for row in days] == [(1, 1, Decimal("0.15"), Decimal("0.30"))]
    assert [tuple(row) for row in users] == [(1, 1, Decimal("0.15"))]
