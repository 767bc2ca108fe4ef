"""What is only forgotten: each table has a sweep that keeps up with 1,000 jobs a second, or is said to be for ever."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from headrace.config import PROJECT_ROOT
from headrace.domain.ids import oldest_id
from headrace.domain.queues import Ticket
from headrace.store import deliveries
from headrace.sweeper import Sweep, Sweeper
from headrace.tables import metadata
from scheduler import sweep
from scheduler.app import make_sweeper
from scheduler.deps import ControlDeps
from tests.waiting import until

JOBS_PER_S = 1000


@pytest.fixture
def sweeps(deps: ControlDeps, monkeypatch: pytest.MonkeyPatch) -> dict[str, Sweep]:
    """As the control process has them."""
    made: list[Sweep] = []
    monkeypatch.setattr("scheduler.app.Sweeper", lambda sweeps, _: made.extend(sweeps))
    make_sweeper(deps)
    return {each.name: each for each in made}


def run_once(one: Sweep, is_done: Callable[[], bool]) -> None:
    """Lets its timer come round once."""
    sweeper = Sweeper([Sweep(one.name, 3600, one.run, one.batch)])
    sweeper.start()
    try:
        until(is_done)
    finally:
        sweeper.stop()


def test_every_table_has_a_sweep_or_is_said_to_be_for_ever() -> None:
    page = (PROJECT_ROOT / "docs" / "lifecycle.md").read_text()
    table = page.partition("## How long rows stay")[2].partition("\n## ")[0]
    named = [set(re.findall("`([a-z_]+)`", line.split("|")[1])) for line in table.splitlines() if line.startswith("|")]
    assert set[str]().union(*named) == set(metadata.tables)


def test_expired_keys_of_many_batches_go_in_one_round(
    sweeps: dict[str, Sweep], queued: Callable[..., Ticket], query: Any
) -> None:
    ticket = queued()
    forget = sweeps["forget_keys"]
    assert forget.batch >= forget.every_s * JOBS_PER_S

    def insert() -> None:
        query(
            "INSERT INTO idempotency_keys (app_id, key, request_hash, job_id, expires_at)"
            " SELECT :app, i::text, '', :job, now() - make_interval(secs => i) FROM generate_series(1, :number) i",
            app=ticket.app_id,
            job=ticket.job_id,
            number=3 * forget.batch + 1,
        )

    # Postgres takes the table for empty: a plan that is good for one row would take longer than a statement may.
    insert()
    query("DELETE FROM idempotency_keys")
    query("ANALYZE idempotency_keys")
    insert()
    run_once(forget, lambda: query("SELECT 1 FROM idempotency_keys LIMIT 1") == [])


@pytest.mark.parametrize(
    "name", ["forget_keys", "forget_samples", "roll_up_samples", "forget_texts", "expire", "rescue"]
)
def test_a_sweep_that_works_in_batches_goes_on_at_once(sweeps: dict[str, Sweep], name: str) -> None:
    assert sweeps[name].batch < 100_000


def test_refusals_of_many_apps_go_as_fast_as_they_are_written(sweeps: dict[str, Sweep], query: Any, app: Any) -> None:
    """A thousand apps, refused in four lanes for two reasons, are 8,000 rows a minute."""
    query(
        "INSERT INTO refusals (minute, app_id, queue, reason, jobs, tokens)"
        " SELECT now() - interval '40 days', gen_random_uuid(), 'chat.normal', 'depth', 1, 1"
        " FROM generate_series(1, 12000)"
    )
    run_once(sweeps["forget_samples"], lambda: query("SELECT count(*) FROM refusals") == [(0,)])


def test_rows_of_workers_that_died_long_ago_go_unless_a_job_runs_under_them(
    deps: ControlDeps, queued: Callable[..., Ticket], running_under: Callable[..., UUID], query: Any
) -> None:
    dead, held, late, live = (running_under(*tickets) for tickets in ((), (queued(),), (), ()))
    days = deps.settings.keep_samples_days
    for worker, ago in ((dead, days + 1), (held, days + 1), (late, days - 1)):
        query(
            "UPDATE workers SET lease_until = now() - make_interval(days => :days) WHERE id = :id", days=ago, id=worker
        )
    assert sweep.forget_samples(deps) == 1
    assert {row[0] for row in query("SELECT id FROM workers")} == {held, late, live}


def test_delivered_and_failed_webhooks_are_pruned_as_fast_as_they_come_and_waiting_ones_stay(
    sweeps: dict[str, Sweep], deps: ControlDeps, query: Any
) -> None:
    forget, days = sweeps["forget_deliveries"], deps.settings.keep_deliveries_days
    assert forget.batch >= forget.every_s * JOBS_PER_S
    old, young = (oldest_id(datetime.now(UTC) - timedelta(days=each)) for each in (days + 1, days - 1))
    for since, state, number in (
        (old, "delivered", 2 * forget.batch),
        (old, "failed", 10),
        (old, "pending", 3),
        (young, "delivered", 4),
        (young, "failed", 5),
    ):
        at = datetime.fromtimestamp((since.int >> 80) / 1000, UTC)
        query(
            "INSERT INTO deliveries (id, event, url, data, state, delivered_at, next_at)"
            " SELECT overlay(CAST(:since AS text) PLACING lpad(to_hex(i), 8, '0') || :kind FROM 25)::uuid, 'test',"
            " 'https://receiver.example', '{}', :state,"
            " CASE WHEN :state = 'delivered' THEN CAST(:at AS timestamptz) END, :at FROM generate_series(1, :number) i",
            since=str(since),
            kind={"delivered": "000d", "failed": "000f", "pending": "000a"}[state],
            state=state,
            at=at,
            number=number,
        )
    left = [("delivered", 4), ("failed", 5), ("pending", 3)]
    run_once(forget, lambda: query("SELECT state, count(*) FROM deliveries GROUP BY 1 ORDER BY 1") == left)


def test_receivers_that_answered_410_are_forgotten_as_fast_as_deliveries_and_younger_ones_stay(
    sweeps: dict[str, Sweep], deps: ControlDeps, query: Any
) -> None:
    forget, days = sweeps["forget_deliveries"], deps.settings.keep_deliveries_days
    for number, days_ago in ((int(2 * forget.batch), days + 1), (3, days - 1)):
        query(
            "INSERT INTO gone_receivers (digest, url, created_at) SELECT decode(md5(:ago || ' ' || i), 'hex'),"
            " 'https://receiver.example', now() - make_interval(days => :days) FROM generate_series(1, :number) i",
            ago=str(days_ago),
            days=days_ago,
            number=number,
        )
    assert sweep.forget_deliveries(deps) == forget.batch
    run_once(forget, lambda: query("SELECT count(*) FROM gone_receivers") == [(3,)])
    assert sweep.forget_deliveries(deps) == 0


def test_old_receivers_are_found_in_an_index(deps: ControlDeps, query: Any) -> None:
    query(
        "INSERT INTO gone_receivers (digest, url) SELECT decode(md5(i::text), 'hex'), 'https://receiver.example'"
        " FROM generate_series(1, 20000) i"
    )
    query("ANALYZE gone_receivers")
    with deps.store.begin() as db:
        scans = "SELECT seq_scan FROM pg_stat_xact_user_tables WHERE relname = 'gone_receivers'"
        before = db.exec_driver_sql(scans).scalar()
        assert deliveries.forget_gone(db, 30) == 0
        assert db.exec_driver_sql(scans).scalar() == before, "no scan of the whole table"
