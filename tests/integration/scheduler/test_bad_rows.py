"""Jobs that Postgres refuses to end hold up no other job of `expire` and `rescue`."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.exc import ProgrammingError

from headrace.broker.admission import Admission
from headrace.config import BudgetSettings
from headrace.domain.ids import show_id
from headrace.domain.queues import Ticket
from headrace.store.bad_rows import RETRY_S, BadRows
from headrace.store.money import budgets
from headrace.store.money.budgets import PaidCall
from headrace.sweeper import Sweep
from scheduler import sweep
from scheduler.app import make_sweeper
from scheduler.deps import ControlDeps
from scheduler.rescue import Patience, rescue

HOOK = "https://receiver.example/hook"
PAST_START_BY = timedelta(seconds=31)
NOT_ENDED = "state IN ('queued', 'running')"

Queued = Callable[..., Ticket]
Refuse = Callable[..., None]
Errors = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def allow(query: Any) -> Iterator[Callable[[], None]]:
    """Lets every job end again."""

    def repair() -> None:
        query("ALTER TABLE jobs DROP CONSTRAINT IF EXISTS refused")
        query("DROP TRIGGER IF EXISTS at_commit ON jobs")
        query("DROP FUNCTION IF EXISTS refuse")

    repair()
    yield repair
    repair()


@pytest.fixture
def refuse(query: Any, allow: Callable[[], None]) -> Refuse:
    """Lets Postgres refuse to end these jobs: by a constraint, at the commit, or for a webhook that is too large."""

    def spoil(tickets: list[Ticket], way: str = "constraint") -> None:
        these = ", ".join(f"'{ticket.job_id}'" for ticket in tickets)
        if way == "constraint":
            query(f"ALTER TABLE jobs ADD CONSTRAINT refused CHECK (id NOT IN ({these}) OR {NOT_ENDED}) NOT VALID")
        elif way == "commit":
            query("CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''No end.''; END'")
            query(
                "CREATE CONSTRAINT TRIGGER at_commit AFTER UPDATE OF state ON jobs DEFERRABLE INITIALLY DEFERRED"
                f" FOR EACH ROW WHEN (NEW.id IN ({these})) EXECUTE FUNCTION refuse()"
            )
        else:
            host = "(SELECT string_agg(md5(i::text), '') FROM generate_series(1, 300) i)"
            query(f"UPDATE jobs SET webhook_url = 'https://' || {host} WHERE id IN ({these})")

    return spoil


@pytest.fixture
def errors(caplog: pytest.LogCaptureFixture) -> Errors:
    """The lines of level ERROR so far."""
    return lambda: [vars(record) for record in caplog.records if record.levelname == "ERROR"]


@pytest.fixture
def late(queued: Queued, age: Callable[[UUID, timedelta], None]) -> Callable[[int], list[Ticket]]:
    """Inserts this number of jobs whose `start_by` has passed, the first late first."""

    def insert(number: int) -> list[Ticket]:
        tickets = [queued(webhook_url=HOOK) for _ in range(number)]
        for no, ticket in enumerate(tickets):
            age(ticket.job_id, PAST_START_BY + timedelta(seconds=number - no))
        return tickets

    return insert


@pytest.fixture
def lost(
    queued: Queued,
    running_under: Callable[..., UUID],
    end_lease: Callable[[UUID], None],
    query: Any,
    deps: ControlDeps,
) -> Callable[[int], list[Ticket]]:
    """Inserts jobs that a dead worker ran with a call to the paid API, and that their callers cancelled."""

    def insert(number: int) -> list[Ticket]:
        tickets = [queued(webhook_url=HOOK) for _ in range(number)]
        query("UPDATE jobs SET route = 'overflow', queue = 'overflow.normal'")
        worker_id = running_under(*tickets)
        with deps.store.begin() as db:
            calls = [PaidCall(ticket.job_id, 1, ticket.app_id, Decimal(1)) for ticket in tickets]
            assert not budgets.reserve(db, calls, BudgetSettings(day_usd=Decimal(1000)))
        query("UPDATE jobs SET cancel_requested_at = now()")
        end_lease(worker_id)
        return tickets

    return insert


@pytest.mark.parametrize("way", ["constraint", "commit", "webhook"])
def test_a_job_that_postgres_refuses_to_expire_holds_up_no_other(
    deps: ControlDeps, late: Any, refuse: Refuse, errors: Errors, query: Any, admission: Admission, way: str
) -> None:
    tickets = late(5)
    admission.commit(tickets)
    refuse([tickets[2]], way)

    assert sweep.expire(deps, BadRows("expire")) == 5

    assert query("SELECT id FROM jobs WHERE state <> 'expired'") == [(tickets[2].job_id,)]
    assert query("SELECT count(*) FROM deliveries") == [(4,)]
    assert admission.loads([tickets[2].queue])[tickets[2].queue].jobs == 1, "the others' places are free"
    [line] = errors()
    assert (line["message"], line["sweep"], line["job_id"]) == ("row_refused", "expire", show_id(tickets[2].job_id))
    assert HOOK not in line["error"]


@pytest.mark.parametrize("way", ["constraint", "commit", "webhook"])
def test_a_job_that_postgres_refuses_to_rescue_holds_up_no_other(
    deps: ControlDeps, lost: Any, refuse: Refuse, errors: Errors, query: Any, way: str
) -> None:
    tickets = lost(5)
    refuse([tickets[2]], way)

    assert rescue(deps, Patience(0), BadRows("rescue")) == 5

    assert query("SELECT id FROM jobs WHERE state <> 'cancelled'") == [(tickets[2].job_id,)]
    assert query("SELECT count(*) FROM deliveries") == [(4,)]
    assert query("SELECT job_id FROM attempts WHERE ended_at IS NULL") == [(tickets[2].job_id,)]
    assert query("SELECT count(*), sum(usd) FROM ledger") == [(4, 4)]
    assert query("SELECT DISTINCT reserved_usd, spent_usd FROM budgets") == [(1, 4)]
    [line] = errors()
    assert (line["message"], line["sweep"], line["job_id"]) == ("row_refused", "rescue", show_id(tickets[2].job_id))


@pytest.fixture
def sweeps(deps: ControlDeps, monkeypatch: pytest.MonkeyPatch) -> dict[str, Sweep]:
    """As the control process has them, of two jobs a batch and with no patience."""
    monkeypatch.setattr("headrace.store.jobs.SWEEP_ROWS", 2)
    monkeypatch.setattr("headrace.store.jobs.RESCUE_ROWS", 2)
    made: list[Sweep] = []
    monkeypatch.setattr("scheduler.app.Sweeper", lambda sweeps, _: made.extend(sweeps))
    make_sweeper(replace(deps, settings=deps.settings.model_copy(update={"lease_s": 0.0})))
    return {each.name: each for each in made}


@pytest.mark.parametrize(("name", "jobs"), [("expire", "late"), ("rescue", "lost")])
def test_batches_full_of_refused_jobs_hide_none_behind_them_and_each_is_tried_once(
    sweeps: dict[str, Sweep], request: Any, refuse: Refuse, errors: Errors, query: Any, name: str, jobs: str
) -> None:
    tickets = request.getfixturevalue(jobs)(7)
    refuse(tickets[:4])

    done = [sweeps[name].run() for _ in range(4)]

    assert (done, sweeps[name].batch) == ([2, 2, 2, 1], 2), "the next batch follows a full one at once"
    kept = query(f"SELECT id FROM jobs WHERE {NOT_ENDED} ORDER BY id")
    assert kept == sorted((ticket.job_id,) for ticket in tickets[:4])
    assert sorted(line["job_id"] for line in errors()) == sorted(show_id(ticket.job_id) for ticket in tickets[:4])


def test_a_refused_job_is_tried_again_after_a_while_and_ends_once_it_is_repaired(
    deps: ControlDeps, late: Any, refuse: Refuse, allow: Callable[[], None], errors: Errors, query: Any
) -> None:
    now_s = 0.0
    bad = BadRows("expire", lambda: now_s)
    refuse(late(2)[:1])
    assert sweep.expire(deps, bad) == 2
    now_s = RETRY_S - 1
    assert sweep.expire(deps, bad) == 0, "it costs the next sweeps nothing"
    now_s = RETRY_S
    assert [sweep.expire(deps, bad) for _ in range(2)] == [0, 1]
    assert len(errors()) == 2

    allow()
    now_s = 2 * RETRY_S
    assert [sweep.expire(deps, bad) for _ in range(2)] == [0, 1]
    assert query("SELECT DISTINCT state FROM jobs") == [("expired",)]


def test_a_statement_that_is_wrong_for_every_row_is_no_rows_fault(
    deps: ControlDeps, late: Any, errors: Errors, query: Any
) -> None:
    late(3)
    query("ALTER TABLE deliveries RENAME COLUMN event TO named_otherwise")
    try:
        with pytest.raises(ProgrammingError):
            sweep.expire(deps, BadRows("expire"))
    finally:
        query("ALTER TABLE deliveries RENAME COLUMN named_otherwise TO event")
    assert errors() == []
    assert sweep.expire(deps) == 3
