"""Jobs that would expire in a queue of their pool go to the paid API if it is open to them and has room for a call."""

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from headrace.broker.admission import Admission
from headrace.config import BudgetSettings, Price, Settings
from headrace.domain.apps import App
from headrace.domain.fleet import WorkerInfo, WorkerReport
from headrace.domain.ids import new_id
from headrace.domain.limits import ProviderRate, ProviderRates
from headrace.domain.places import Ask, Place
from headrace.domain.prompts import Message, Sampling
from headrace.domain.queues import Candidate, Overflow, Ticket
from headrace.errors import BrokerUnavailable
from headrace.policies.pricing import ceiling
from headrace.store import Store, apps
from headrace.store.fleet import workers
from headrace.store.jobs.queued import TURNED_AWAY
from headrace.tables import jobs
from scheduler import sweep
from scheduler.deps import ControlDeps
from scheduler.spill import spill
from tests import one_attempt

OWN, PAID = "chat.normal", "overflow.normal"
PRICE = Price(input_usd_per_mtok=Decimal(10), output_usd_per_mtok=Decimal(100), source="test", version="v1")
MOST = ceiling(PRICE, (Message("user", "What is a headrace?"),), Sampling(16)).usd
#: Of its prompt and its answer, as providers count a call.
TOKENS = 8 + 16
#: Of its 30 s, 2 are left.
LATE = timedelta(seconds=28)

InList = Callable[[str], list[tuple[UUID, int]]]


@pytest.fixture
def deps(deps: ControlDeps) -> ControlDeps:
    """With a paid API that has a price, and a budget."""
    budget = BudgetSettings(month_usd=Decimal(1_000_000))
    return with_settings(deps, openai_api_key=SecretStr("sk-test"), prices={"gpt-4o-mini": PRICE}, budgets=budget)


def with_settings(deps: ControlDeps, **changes: Any) -> ControlDeps:
    return replace(deps, settings=deps.settings.model_copy(update=changes))


@pytest.fixture
def calls(store: Store, settings: Settings) -> Callable[[int], UUID]:
    """An overflow worker that makes this number of calls at once."""

    def make(number: int, *, ready: bool = True) -> UUID:
        info = WorkerInfo(new_id(), "overflow@test", "host", "overflow", "openai", "gpt-4o-mini", number)
        with store.begin() as db:
            workers.register(db, info, settings.lease_s)
            workers.renew(db, info.id, settings.lease_s, WorkerReport(0, ready=ready))
        return info.id

    return make


@pytest.fixture
def inserted(
    queued: Callable[..., Ticket], age: Callable[[UUID, timedelta], None], admission: Admission, row_of: Any
) -> Callable[..., Ticket]:
    """A job that has little time left to start, and whose message its door is about to push."""

    def make(by: timedelta = LATE, **changes: Any) -> Ticket:
        ticket = queued(**changes)
        candidates = (Candidate(OWN, 500, 1_000_000, None, "own pool"),)
        [place] = admission.reserve([Ask(ticket.job_id, ticket.app_id, ticket.kv_tokens, candidates)])
        assert isinstance(place, Place)
        age(ticket.job_id, by)
        return Ticket.of(row_of(ticket.job_id))

    return make


@pytest.fixture
def late(inserted: Callable[..., Ticket], admission: Admission) -> Callable[..., Ticket]:
    """A job in its queue that has little time left to start."""

    def make(by: timedelta = LATE, **changes: Any) -> Ticket:
        ticket = inserted(by, **changes)
        admission.commit([ticket])
        return ticket

    return make


def test_a_job_that_would_expire_goes_to_the_paid_api_and_its_old_message_is_void(
    deps: ControlDeps, calls: Any, late: Any, row_of: Any, in_list: InList, admission: Admission, store: Store
) -> None:
    worker_id = calls(4)
    ticket = late()
    before = row_of(ticket.job_id)
    assert spill(deps) == 1

    row = row_of(ticket.job_id)
    assert (row.state, row.queue, row.route, row.enqueue_no) == ("queued", PAID, "overflow", 2)
    assert row.route_reason == "own queue late: 5 s before its start_by"
    assert (row.start_by, row.attempt, row.started_at) == (before.start_by, 0, None)
    assert (in_list(OWN), in_list(PAID)) == ([], [(ticket.job_id, 2)])
    loads = admission.loads([OWN, PAID])
    assert (loads[OWN].jobs, loads[OWN].tokens, loads[PAID].jobs) == (0, 0, 1)
    with store.autocommit() as db:
        assert one_attempt.claim(db, ticket.job_id, 1, worker_id, "vllm") is None, "a worker that had it in its hands"
        assert one_attempt.claim(db, ticket.job_id, 2, worker_id, "openai") is not None
    assert spill(deps) == 0, "safe to repeat"


def test_a_door_that_comes_later_pushes_no_message_of_a_job_that_was_moved(
    deps: ControlDeps, calls: Any, inserted: Any, in_list: InList, admission: Admission
) -> None:
    calls(4)
    ticket = inserted()
    assert spill(deps) == 1
    admission.commit([ticket])

    assert (in_list(OWN), in_list(PAID)) == ([], [(ticket.job_id, 2)])
    admission.leave([(ticket.job_id, 2)])
    assert [load.jobs for load in admission.loads([OWN, PAID]).values()] == [0, 0]


@pytest.mark.parametrize(
    "changes",
    [
        {"overflow": Overflow.NEVER},
        {"max_cost_usd": MOST / 2},
        {"max_wait_s": 60.0},
        {"max_wait_s": 20.0},
    ],
    ids=["never", "too dear", "has time", "is over"],
)
def test_others_stay_where_they_are(
    deps: ControlDeps, calls: Any, late: Any, in_list: InList, changes: dict[str, Any]
) -> None:
    calls(4)
    ticket = late(**changes)

    assert spill(deps) == 0
    assert in_list(OWN) == [(ticket.job_id, 1)]


@pytest.mark.parametrize(("waited_s", "spilled"), [(1, 0), (3, 1)])
def test_one_that_may_wait_for_a_short_time_only_waits_for_half_of_it(
    deps: ControlDeps, calls: Any, late: Any, waited_s: int, spilled: int
) -> None:
    calls(4)
    late(timedelta(seconds=waited_s), max_wait_s=4.0)

    assert spill(deps) == spilled


def test_one_that_was_started_before_is_bound_by_no_start(deps: ControlDeps, calls: Any, late: Any, query: Any) -> None:
    calls(4)
    late()
    query("UPDATE jobs SET started_at = now(), attempt = 1")

    assert spill(deps) == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"openai_api_key": None},
        {"prices": {}},
        {"budgets": BudgetSettings(day_usd=MOST / 2)},
        {"budgets": BudgetSettings()},
    ],
    ids=["no key", "no price", "no money", "no budget"],
)
def test_nothing_goes_where_the_paid_api_is_closed(
    deps: ControlDeps, calls: Any, late: Any, changes: dict[str, Any]
) -> None:
    calls(4)
    late()

    assert spill(with_settings(deps, **changes)) == 0


def test_one_that_was_turned_away_there_a_moment_ago_stays_where_a_slot_of_ours_may_come_free(
    deps: ControlDeps, calls: Any, late: Any, store: Store
) -> None:
    calls(4)
    lately, before = late(), late()
    turned_away = sa.update(jobs).values(route_reason=f"{TURNED_AWAY}The paid API answered 403.")
    with store.begin() as db:
        db.execute(turned_away.where(jobs.c.id == lately.job_id).values(queued_at=sa.func.now()))
        db.execute(turned_away.where(jobs.c.id == before.job_id))
    assert spill(deps) == 1
    with store.begin() as db:
        moved = db.scalars(sa.select(jobs.c.id).where(jobs.c.queue == PAID)).all()
    assert moved == [before.job_id]


def test_nothing_goes_while_no_worker_calls_it(deps: ControlDeps, calls: Any, late: Any) -> None:
    late()
    assert spill(deps) == 0
    calls(4, ready=False)
    assert spill(deps) == 0


def test_as_many_go_as_calls_are_free_those_that_are_late_first(
    deps: ControlDeps, calls: Any, late: Any, in_list: InList
) -> None:
    calls(2)
    third, first, second = (late(timedelta(seconds=seconds)) for seconds in (26, 28, 27))
    assert spill(deps) == 2
    assert spill(deps) == 0, "those who wait there will take the free calls"

    assert in_list(PAID) == [(first.job_id, 2), (second.job_id, 2)]
    assert in_list(OWN) == [(third.job_id, 1)]


def said(calls: tuple[int, int] | None = None, tokens: tuple[int, int] | None = None) -> ProviderRates:
    """Of each, the limit and what is left, which takes hours to fill up."""
    calls_left, tokens_left = (each and ProviderRate(*each, full_in_s=36_000) for each in (calls, tokens))
    return ProviderRates(time.monotonic(), calls_left, tokens_left)


@pytest.mark.parametrize(
    ("rates", "hold_s", "spilled"),
    [
        ({"calls": (60, 2)}, 0, 2),
        ({"tokens": (1000, 2 * TOKENS + 1)}, 0, 2),
        ({"calls": (60, 60), "tokens": (1000, 1000)}, 0, 3),
        ({}, 30, 0),
    ],
    ids=["calls", "tokens", "plenty", "told to wait"],
)
def test_no_more_go_than_the_provider_lets_begin(
    deps: ControlDeps, calls: Any, late: Any, in_list: InList, rates: dict[str, Any], hold_s: float, spilled: int
) -> None:
    calls(8)
    tickets = [late() for _ in range(3)]
    deps.pace.hear("gpt-4o-mini", said(**rates), hold_s)
    assert spill(deps) == spilled

    assert in_list(PAID) == [(ticket.job_id, 2) for ticket in tickets[:spilled]]
    assert in_list(OWN) == [(ticket.job_id, 1) for ticket in tickets[spilled:]]
    assert spill(deps) == 0, "those who wait there will make the calls"


def test_a_model_whose_rates_are_used_up_holds_up_no_other(
    deps: ControlDeps, calls: Any, late: Any, in_list: InList
) -> None:
    overflow = deps.settings.overflow.model_copy(update={"models": {"big": "gpt-4o"}})
    both = with_settings(deps, overflow=overflow, prices={"gpt-4o-mini": PRICE, "gpt-4o": PRICE})
    calls(8)
    ours, big = late(), late(model="big")
    deps.pace.hear("gpt-4o-mini", said(calls=(60, 0)))
    assert spill(both) == 1

    assert (in_list(PAID), in_list(OWN)) == ([(big.job_id, 2)], [(ours.job_id, 1)])


def test_those_of_one_sweep_share_what_a_budget_has_left(
    deps: ControlDeps, calls: Any, late: Any, store: Store, app: App
) -> None:
    calls(8)
    with store.begin() as db:
        apps.set_limits(db, app.name, {"day_usd": MOST * 2})
    for _ in range(3):
        late()

    assert spill(deps) == 2


def test_what_redis_did_not_hear_of_is_made_good(
    deps: ControlDeps, calls: Any, late: Any, in_list: InList, query: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls(4)
    ticket = late()

    def away(*_: object) -> None:
        raise BrokerUnavailable("gone")

    with monkeypatch.context() as patch:
        patch.setattr(Admission, "remove", away)
        with pytest.raises(BrokerUnavailable):
            spill(deps)
    query("UPDATE jobs SET queued_at = now() - interval '10 s'")
    sweep.publish_due(deps)
    sweep.reconcile_admission(deps)

    assert (in_list(OWN), in_list(PAID)) == ([], [(ticket.job_id, 3)])
    assert deps.admission.loads([OWN])[OWN].jobs == 0


def test_a_held_job_of_a_confined_app_goes_to_the_paid_api_before_it_expires(
    deps: ControlDeps, late: Callable[..., Ticket], calls: Any, in_list: InList, row_of: Any, query: Any
) -> None:
    calls(4)
    held, retry = late(), late()
    waits = "UPDATE jobs SET state = 'waiting', not_before = now() + interval '1 h', route_reason = :why WHERE id = :id"
    query(waits, why="confined: test", id=held.job_id)
    query(waits, why="test", id=retry.job_id)
    assert spill(deps) == 1
    spilled = row_of(held.job_id)
    assert (spilled.state, spilled.queue, spilled.not_before) == ("queued", PAID, None)
    assert in_list(PAID) == [(held.job_id, spilled.enqueue_no)]
    assert row_of(retry.job_id).state == "waiting"
