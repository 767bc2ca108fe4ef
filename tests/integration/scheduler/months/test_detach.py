"""Old months leave the tables whole, once nothing in them is open, and the bill stays."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from headrace.domain.queues import Ticket
from headrace.errors import LockHeld, StoreUnavailable
from headrace.store import Store, months
from headrace.store.jobs import texts
from scheduler.deps import ControlDeps
from scheduler.sweep import detach_months, make_months

KEEP_MONTHS = 2
ENDED = "UPDATE jobs SET state = 'succeeded', worker_id = NULL, ended_at = now()"
OTHERS = ("attempts", "deliveries")


@pytest.fixture
def migrated_url(fresh_url: str) -> str:
    return fresh_url


@pytest.fixture
def deps(deps: ControlDeps) -> ControlDeps:
    """With a system that keeps jobs for two months."""
    return replace(deps, settings=deps.settings.model_copy(update={"keep_jobs_months": KEEP_MONTHS}))


@pytest.fixture
def later(deps: ControlDeps, first_until: datetime, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], datetime]:
    """Makes it some months after the end of the oldest month, for the sweeps; returns the time."""

    def turn(by: int) -> datetime:
        months_on = first_until.year * 12 + first_until.month - 1 + by
        at = datetime(months_on // 12, months_on % 12 + 1, 15, tzinfo=first_until.tzinfo)
        monkeypatch.setattr("headrace.store.clock.now", lambda _db: at)
        make_months(deps)
        return at

    return turn


@pytest.fixture
def full(queued_in: Callable[..., Ticket], first_until: datetime, later: Any, query: Any) -> list[Ticket]:
    """One ended job of each of three months, with all that hangs on it but its texts, which are erased."""
    later(3)
    tickets = [queued_in(first_until + timedelta(days=days)) for days in (-1, 1, 40)]
    query(ENDED)
    query("INSERT INTO attempts (job_id, number, worker_id, engine, started_at) SELECT id, 1, id, '', now() FROM jobs")
    query("INSERT INTO ledger (kind, job_id, usd) SELECT 'compute', id, 1 FROM jobs")
    query("DELETE FROM job_texts")
    query(
        "INSERT INTO deliveries (id, job_id, event, url, state)"
        " SELECT id, id, 'e', 'https://r.example', 'delivered' FROM jobs"
    )
    return tickets


def counts(query: Any) -> dict[str, int]:
    return {table: query(f"SELECT count(*) FROM {table}")[0][0] for table in ("jobs", *OTHERS, "ledger")}


def test_without_the_setting_every_month_stays(deps: ControlDeps, full: list[Ticket], query: Any) -> None:
    settings = deps.settings.model_copy(update={"keep_jobs_months": None})

    assert detach_months(replace(deps, settings=settings)) == 0

    assert counts(query)["jobs"] == len(full)


@pytest.mark.parametrize(("by", "detached"), [(1, 0), (2, 1), (3, 2)])
def test_whole_months_are_kept_beside_the_present_one(
    deps: ControlDeps, full: list[Ticket], later: Any, query: Any, by: int, detached: int
) -> None:
    later(by)

    assert [detach_months(deps) for _ in range(3)] == [1] * detached + [0] * (3 - detached)

    assert counts(query)["jobs"] == len(full) - detached
    assert counts(query)["ledger"] == len(full)


def test_a_detached_month_is_whole_and_can_be_archived_and_dropped(
    deps: ControlDeps, full: list[Ticket], first_until: datetime, store: Store, query: Any
) -> None:
    assert [detach_months(deps) for _ in range(2)] == [1, 1]

    name = f"{first_until:%Y_%m}"
    for table in ("jobs", *OTHERS):
        assert query(f"SELECT count(*) FROM {table}_{name}") == [(1,)]
    with pytest.raises(sa.exc.DatabaseError, match="violates foreign key"), store.begin() as db:
        db.execute(sa.text(f"UPDATE attempts_{name} SET job_id = gen_random_uuid()"))
    query(f"DROP TABLE jobs_{name}, job_texts_{name}, attempts_{name}, deliveries_{name}")
    oldest = f"{first_until - timedelta(days=1):%Y_%m}"
    query(f"DROP TABLE jobs_{oldest}, job_texts_{oldest}, attempts_{oldest}, deliveries_{oldest}")
    assert counts(query)["jobs"] == 1


def test_two_control_processes_detach_a_month_once(deps: ControlDeps, full: list[Ticket], holding: Any) -> None:
    with holding("months"), pytest.raises(LockHeld):
        detach_months(deps)


@pytest.mark.parametrize("state", ["waiting", "queued", "running"])
def test_a_month_stays_while_a_job_of_it_is_open(
    deps: ControlDeps, full: list[Ticket], query: Any, state: str, caplog: pytest.LogCaptureFixture
) -> None:
    query(
        "UPDATE jobs SET state = :state, ended_at = NULL, worker_id = CASE WHEN :state = 'running' THEN id END"
        " WHERE id = :id",
        state=state,
        id=full[0].job_id,
    )

    assert detach_months(deps) == 0
    assert "month_kept" in caplog.text

    query(ENDED)
    assert detach_months(deps) == 1


def test_a_month_stays_while_a_webhook_of_it_is_pending(deps: ControlDeps, full: list[Ticket], query: Any) -> None:
    query("UPDATE deliveries SET state = 'pending' WHERE job_id = :id", id=full[0].job_id)
    assert detach_months(deps) == 0
    query("UPDATE deliveries SET state = 'failed'")
    assert detach_months(deps) == 1


@pytest.mark.parametrize("keep_days", [10, 10_000, None])
def test_no_detached_month_has_a_text_that_its_app_cannot_erase_any_more(
    deps: ControlDeps, full: list[Ticket], keep_days: int | None, caplog: pytest.LogCaptureFixture, query: Any
) -> None:
    [job_id, app_id] = query("SELECT id, app_id FROM jobs ORDER BY id")[0]
    query("INSERT INTO job_texts (job_id, messages, sampling) VALUES (:job, '[]', '{}')", job=job_id)
    keeping = replace(deps, settings=deps.settings.model_copy(update={"keep_texts_days": keep_days}))

    assert detach_months(keeping) == 0
    assert "month_kept" in caplog.text

    with deps.store.begin() as db:
        texts.erase(db, app_id, job_id)
    assert detach_months(keeping) == 1


def test_what_is_about_no_job_stays(deps: ControlDeps, full: list[Ticket], query: Any) -> None:
    query("INSERT INTO ledger (kind, usd) VALUES ('adjustment', 1)")
    query("INSERT INTO deliveries (id, event, url, data) VALUES (gen_random_uuid(), 'e', 'https://r.example', '{}')")

    assert [detach_months(deps) for _ in range(3)] == [1, 1, 0]

    assert query("SELECT count(*) FROM ledger WHERE job_id IS NULL") == [(1,)]
    assert query("SELECT state FROM deliveries WHERE job_id IS NULL") == [("pending",)]


def test_a_reader_that_stays_in_the_tables_makes_the_sweep_give_way(
    deps: ControlDeps, full: list[Ticket], store: Store, query: Any
) -> None:
    with store.begin() as db:
        db.execute(sa.text("SELECT count(*) FROM attempts"))
        with pytest.raises(StoreUnavailable, match="lock timeout"):
            detach_months(deps)
    assert detach_months(deps) == 1


def test_the_retries_of_a_detached_month_go_with_it(
    deps: ControlDeps, full: list[Ticket], query: Any, store: Store
) -> None:
    query("INSERT INTO job_retries SELECT id, id FROM jobs")
    with store.begin() as db:
        kept = {ticket.job_id for ticket in full if ticket.job_id >= months.found(db)[0].until}
    assert detach_months(deps) == 1
    assert {job_id for (job_id,) in query("SELECT job_id FROM job_retries")} == kept
