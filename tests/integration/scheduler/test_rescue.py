"""Jobs whose worker died: counted, booked, and started elsewhere, or ended."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from headrace import connections
from headrace.config import BudgetSettings, Price
from headrace.domain.queues import Ticket
from headrace.errors import BrokerUnavailable, StoreUnavailable
from headrace.store import Store
from headrace.store.money import budgets
from headrace.store.money.budgets import PaidCall
from scheduler import sweep
from scheduler.deps import ControlDeps
from scheduler.rescue import Patience, rescue

QUEUE = "chat.normal"
HOOK = "https://receiver.example/hook"

Queued = Callable[..., Ticket]
RunningUnder = Callable[..., UUID]
EndLease = Callable[[UUID], None]


@pytest.fixture
def patience() -> Patience:
    """One that has run out."""
    return Patience(0)


@pytest.fixture
def deps(deps: ControlDeps) -> ControlDeps:
    """With a price of 0.50 USD per million prompt tokens."""
    price = Price(input_usd_per_mtok=Decimal("0.5"), output_usd_per_mtok=Decimal(2), source="test", version="v7")
    pools = {"chat": deps.settings.pools["chat"].model_copy(update={"price": price})}
    settings = deps.settings.model_copy(update={"pools": pools, "max_attempts": 3})
    return replace(deps, settings=settings)


def test_a_job_under_a_live_lease_is_left_alone(
    deps: ControlDeps, patience: Patience, queued: Queued, running_under: RunningUnder, row_of: Any
) -> None:
    ticket = queued()
    running_under(ticket)
    assert rescue(deps, patience) == 0
    assert row_of(ticket.job_id).state == "running"


def test_a_dead_workers_job_waits_for_another_start_and_its_attempt_is_counted_and_booked(
    deps: ControlDeps, patience: Patience, queued: Queued, running_under: RunningUnder, end_lease: EndLease, query: Any
) -> None:
    ticket = queued(prompt_tokens=1000)
    end_lease(running_under(ticket))
    assert rescue(deps, patience) == 1
    assert query("SELECT state, attempt, worker_id, error_code, usd FROM jobs") == [("waiting", 1, None, None, 0)]
    assert query("SELECT number, outcome, ended_at IS NOT NULL FROM attempts") == [(1, "lost", True)]
    charge = query("SELECT kind, attempt, prompt_tokens, output_tokens, usd, price_version, estimated FROM ledger")
    assert charge == [("waste", 1, 1000, 0, Decimal("0.0005"), "v7", True)]
    assert rescue(deps, patience) == 0, "it is safe to repeat"


def test_a_rescued_job_is_queued_under_a_new_number_and_the_old_message_finds_nothing(
    deps: ControlDeps,
    patience: Patience,
    queued: Queued,
    running_under: RunningUnder,
    end_lease: EndLease,
    in_list: Any,
    claim: Any,
) -> None:
    ticket = queued()
    end_lease(running_under(ticket))
    rescue(deps, patience)
    sweep.publish_due(deps)
    assert in_list(QUEUE) == [(ticket.job_id, 2)]
    assert claim(ticket.job_id, 1) is None
    assert claim(ticket.job_id, 2).attempt == 2


def test_a_rescued_job_starts_again_even_after_start_by(
    deps: ControlDeps,
    patience: Patience,
    queued: Queued,
    running_under: RunningUnder,
    end_lease: EndLease,
    age: Any,
    claim: Any,
) -> None:
    ticket = queued()
    end_lease(running_under(ticket))
    age(ticket.job_id, timedelta(minutes=5))
    rescue(deps, patience)
    sweep.publish_due(deps)
    assert sweep.expire(deps) == 0
    assert claim(ticket.job_id, 2) is not None


@pytest.mark.parametrize(
    ("change", "state", "code"),
    [
        pytest.param("attempt = 2", "waiting", None, id="one attempt left"),
        pytest.param("attempt = 3", "failed", "worker_lost", id="no attempt left"),
        pytest.param("cancel_requested_at = now()", "cancelled", None, id="cancel requested"),
        pytest.param("finish_by = now()", "failed", "deadline_exceeded", id="past its deadline"),
    ],
)
def test_what_becomes_of_a_dead_workers_job(
    deps: ControlDeps,
    patience: Patience,
    queued: Queued,
    running_under: RunningUnder,
    end_lease: EndLease,
    query: Any,
    change: str,
    state: str,
    code: str | None,
) -> None:
    worker_id = running_under(queued(webhook_url=HOOK))
    query(
        "INSERT INTO attempts (job_id, number, worker_id, engine, started_at)"
        " SELECT job_id, n, worker_id, engine, now() FROM attempts, generate_series(2, 3) n"
    )
    query(f"UPDATE jobs SET {change}")
    end_lease(worker_id)
    assert rescue(deps, patience) == 1
    assert query("SELECT state, error_code FROM jobs") == [(state, code)]
    assert query("SELECT kind, attempt FROM ledger") == query("SELECT 'waste', attempt FROM jobs")
    assert query("SELECT number FROM attempts WHERE outcome = 'lost'") == query("SELECT attempt FROM jobs")
    assert query("SELECT state FROM deliveries") == ([] if state == "waiting" else [("pending",)])


def test_a_job_whose_pool_has_lost_its_price_is_rescued_at_no_charge(
    deps: ControlDeps, patience: Patience, queued: Queued, running_under: RunningUnder, end_lease: EndLease, query: Any
) -> None:
    end_lease(running_under(queued(pool="gone")))
    assert rescue(deps, patience) == 1
    assert query("SELECT usd, price_version FROM ledger") == [(0, "unpriced")]


def test_a_dead_workers_job_is_taken_while_redis_is_down(
    deps_without_redis: ControlDeps,
    patience: Patience,
    queued: Queued,
    running_under: RunningUnder,
    end_lease: EndLease,
    query: Any,
) -> None:
    worker_id = running_under(queued(), queued(webhook_url=HOOK))
    query("UPDATE jobs SET cancel_requested_at = now() WHERE webhook_url IS NOT NULL")
    end_lease(worker_id)
    with pytest.raises(BrokerUnavailable):
        rescue(deps_without_redis, patience)
    assert query("SELECT state FROM jobs ORDER BY id") == [("waiting",), ("cancelled",)]


def test_after_an_outage_no_job_is_taken_before_a_full_lease_has_passed(
    deps: ControlDeps, queued: Queued, running_under: RunningUnder, end_lease: EndLease, engine: sa.Engine, row_of: Any
) -> None:
    now_s = 0.0
    patience = Patience(10, lambda: now_s)
    rescue(deps, patience)
    now_s = 10.0
    ticket = queued()
    end_lease(running_under(ticket))

    down = sa.create_engine("postgresql+psycopg://nobody@127.0.0.1:1/none")
    with pytest.raises(StoreUnavailable):
        rescue(replace(deps, store=Store(down)), patience)
    down.dispose()

    assert rescue(deps, patience) == 0
    now_s = 19.9
    assert rescue(deps, patience) == 0
    assert row_of(ticket.job_id).state == "running"
    now_s = 20.0
    assert rescue(deps, patience) == 1


def test_after_postgres_was_read_only_no_job_is_taken_before_a_full_lease_has_passed(
    deps: ControlDeps, queued: Queued, running_under: RunningUnder, end_lease: EndLease, read_only: Any, row_of: Any
) -> None:
    now_s = 0.0
    patience = Patience(10, lambda: now_s)
    rescue(deps, patience)
    now_s = 10.0
    ticket = queued()
    end_lease(running_under(ticket))

    with read_only(), pytest.raises(StoreUnavailable):
        rescue(deps, patience)

    assert rescue(deps, patience) == 0
    now_s = 20.0
    assert rescue(deps, patience) == 1
    assert row_of(ticket.job_id).state == "waiting"


def test_rescue_takes_jobs_in_batches(
    deps: ControlDeps,
    patience: Patience,
    queued: Queued,
    running_under: RunningUnder,
    end_lease: EndLease,
    query: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("headrace.store.jobs.RESCUE_ROWS", 10)
    end_lease(running_under(*(queued() for _ in range(25))))
    assert [rescue(deps, patience) for _ in range(4)] == [10, 10, 5, 0]
    assert query("SELECT count(*) FROM ledger") == [(25,)]


@pytest.mark.parametrize("number", [2, 20])
def test_rescue_holds_the_budgets_for_one_statement_however_many_calls_are_lost(
    deps: ControlDeps,
    patience: Patience,
    queued: Queued,
    running_under: RunningUnder,
    end_lease: EndLease,
    query: Any,
    engine: sa.Engine,
    number: int,
) -> None:
    tickets = [queued(webhook_url=HOOK) for _ in range(number)]
    query("UPDATE jobs SET route = 'overflow', queue = 'overflow.normal'")
    worker_id = running_under(*tickets)
    with deps.store.begin() as db:
        calls = [PaidCall(ticket.job_id, 1, ticket.app_id, Decimal(1)) for ticket in tickets]
        assert not budgets.reserve(db, calls, BudgetSettings(day_usd=Decimal(1000)))
    query("UPDATE jobs SET cancel_requested_at = now() WHERE id = :id", id=tickets[0].job_id)
    end_lease(worker_id)
    seen: list[str] = []

    def note(_db: Any, _cursor: Any, sql: str, *_: Any) -> None:
        seen.append(sql)

    sa.event.listen(engine, "before_cursor_execute", note)
    assert rescue(deps, patience) == number
    sa.event.remove(engine, "before_cursor_execute", note)

    [locked] = [no for no, sql in enumerate(seen) if "FROM budgets" in sql and "FOR UPDATE" in sql]
    assert [sql.split()[:2] for sql in seen[locked + 1 :]] == [["UPDATE", "budgets"]], "then the commit"
    assert len(seen) < 20
    assert query("SELECT DISTINCT reserved_usd, spent_usd FROM budgets") == [(0, number)]
    assert query("SELECT count(*), sum(usd) FROM ledger WHERE kind = 'waste'") == [(number, number)]


def test_budgets_that_stay_locked_keep_no_job_from_its_rescue(
    deps: ControlDeps,
    patience: Patience,
    queued: Callable[..., Ticket],
    running_under: Callable[..., UUID],
    end_lease: EndLease,
    query: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("headrace.connections.LOCK_TIMEOUT_MS", 200)
    impatient = connections.postgres(deps.settings)
    paid, own = queued(), queued()
    query("UPDATE jobs SET route = 'overflow', queue = 'overflow.normal' WHERE id = :id", id=paid.job_id)
    worker_id = running_under(paid, own)
    with deps.store.begin() as db:
        assert not budgets.reserve(
            db, [PaidCall(paid.job_id, 1, paid.app_id, Decimal(1))], BudgetSettings(day_usd=Decimal(9))
        )
    end_lease(worker_id)
    with deps.store.begin() as operator:
        operator.execute(sa.text("SELECT id FROM budgets FOR UPDATE"))
        assert rescue(replace(deps, store=Store(impatient)), patience) == 2
    impatient.dispose()

    assert query("SELECT DISTINCT state FROM jobs") == [("waiting",)]
    assert query("SELECT DISTINCT reserved_usd, spent_usd FROM budgets") == [(1, 0)]
    assert sweep.settle_calls(deps) == 1
    assert query("SELECT DISTINCT reserved_usd, spent_usd FROM budgets") == [(0, 1)]
    assert query("SELECT sum(usd) FROM ledger WHERE kind = 'waste' AND job_id = :id", id=paid.job_id) == [(1,)]
