"""Months are made ahead of their jobs, once, and without gaps."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from threading import Barrier
from typing import Any

import pytest

from headrace import connections
from headrace.domain.ids import month_start, time_of
from headrace.domain.queues import Ticket
from headrace.errors import HeadraceError, LockHeld
from headrace.store import Store, clock, months
from headrace.tables import BY_MONTH
from scheduler.deps import ControlDeps
from scheduler.sweep import make_months

Make = Callable[[datetime], list[str]]


@pytest.fixture
def migrated_url(fresh_url: str) -> str:
    return fresh_url


def parts(query: Any) -> dict[str, set[str]]:
    """The partitions of each table, by the ends of their names."""
    found = query(
        "SELECT inhparent::regclass::text, inhrelid::regclass::text FROM pg_inherits JOIN pg_class c"
        " ON c.oid = inhparent WHERE relkind = 'p'"
    )
    return {table: {part.removeprefix(f"{table}_") for of, part in found if of == table} for table in BY_MONTH}


@pytest.fixture
def next_month(deps: ControlDeps, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes it the next month for the sweep."""
    with deps.store.begin() as db:
        at = month_start(clock.now(db), 1)
    monkeypatch.setattr("headrace.store.clock.now", lambda _db: at)


def test_a_release_makes_the_present_month_the_one_before_it_and_two_ahead(query: Any) -> None:
    names = {f"{month_start(datetime.now(UTC), number):%Y_%m}" for number in (-1, 0, 1, 2)}
    rows_without_job = {"ledger": {"without_job"}, "deliveries": {"without_job"}}
    assert parts(query) == {table: names | rows_without_job.get(table, set()) for table in BY_MONTH}


def test_a_row_about_no_job_is_in_no_month(query: Any) -> None:
    query("INSERT INTO ledger (kind, usd) VALUES ('adjustment', 1)")
    query("INSERT INTO deliveries (id, event, url, data) VALUES (gen_random_uuid(), 'e', 'https://r.example', '{}')")

    assert query("SELECT tableoid::regclass::text FROM ledger") == [("ledger_without_job",)]
    assert query("SELECT tableoid::regclass::text FROM deliveries") == [("deliveries_without_job",)]


def test_a_sweep_makes_each_table_its_months_ahead(
    deps: ControlDeps, query: Any, last_until: datetime, next_month: None
) -> None:
    before = parts(query)

    assert make_months(deps) == 1

    assert parts(query) == {table: before[table] | {f"{last_until:%Y_%m}"} for table in BY_MONTH}
    with deps.store.begin() as db:
        ahead = time_of(months.found(db)[-1].until) - clock.now(db)
    assert ahead > timedelta(days=59)
    assert make_months(deps) == 0


def test_months_follow_each_other_over_the_turn_of_a_year(
    store: Store, make_until: Make, first_until: datetime, queued_in: Callable[..., Ticket], query: Any
) -> None:
    made = make_until(first_until + timedelta(days=400))

    assert len(made) == 13
    assert made == sorted(set(made))
    with store.begin() as db:
        ends = [time_of(month.until) for month in months.found(db)]
    assert all((end.day, end.hour) == (1, 0) for end in ends)
    numbers = [end.year * 12 + end.month for end in ends]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    edge = ends[6]
    before, after = queued_in(edge - timedelta(milliseconds=1)), queued_in(edge)
    homes = dict(query("SELECT id, tableoid::regclass::text FROM jobs"))
    assert homes == {before.job_id: f"jobs_{made[2]}", after.job_id: f"jobs_{made[3]}"}


def test_two_control_processes_make_each_month_once(deps: ControlDeps, query: Any, next_month: None) -> None:
    before = parts(query)
    engines = [connections.postgres(deps.settings) for _ in range(2)]
    barrier = Barrier(len(engines))

    def work(twin: ControlDeps) -> int:
        barrier.wait(10)
        made = 0
        for _ in range(5):
            with suppress(LockHeld):
                made += make_months(twin)
        return made

    twins = [replace(deps, store=Store(engine)) for engine in engines]
    with ThreadPoolExecutor(len(twins)) as threads:
        assert sum(threads.map(work, twins)) == 1
    for engine in engines:
        engine.dispose()
    assert {len(found - before[table]) for table, found in parts(query).items()} == {1}


def test_another_process_that_holds_the_lock_is_left_alone(deps: ControlDeps, holding: Any) -> None:
    with holding("months"), pytest.raises(LockHeld):
        make_months(deps)


def test_a_job_without_its_month_is_refused_alone_and_welcome_once_it_is_made(
    make_until: Make, last_until: datetime, queued_in: Callable[..., Ticket]
) -> None:
    later = last_until + timedelta(days=40)
    with pytest.raises(HeadraceError, match="no partition of relation"):
        queued_in(later)

    make_until(later)

    assert queued_in(later)


def test_old_entries_and_webhooks_are_not_read_when_a_month_is_attached(
    make_until: Make, last_until: datetime, query: Any
) -> None:
    """They are in the default partitions, which Postgres would read without their checks."""
    query("INSERT INTO ledger (kind, usd) SELECT 'adjustment', 1 FROM generate_series(1, 1000)")
    query("SELECT pg_stat_force_next_flush()")
    before = query("SELECT seq_tup_read, idx_tup_fetch FROM pg_stat_user_tables WHERE relname = 'ledger_without_job'")

    assert make_until(last_until)

    query("SELECT pg_stat_force_next_flush()")
    assert (
        query("SELECT seq_tup_read, idx_tup_fetch FROM pg_stat_user_tables WHERE relname = 'ledger_without_job'")
        == before
    )
