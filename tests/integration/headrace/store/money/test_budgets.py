"""The accounts on a real Postgres: what is reserved, spent and freed, and that no limit is ever passed."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa

from headrace.config import BudgetSettings
from headrace.domain.attempts import AttemptEnd, Claim, HandBack, Reroute
from headrace.domain.ids import new_id
from headrace.domain.limits import Budget, Cost, NoBudget, Shortfall, SpendingLimits
from headrace.domain.queues import Route, Ticket
from headrace.domain.states import JobState
from headrace.store import Store, apps, attempts, jobs
from headrace.store.attempts import Loss
from headrace.store.money import budgets
from headrace.store.money.budgets import PaidCall
from headrace.tables import attempts as attempts_table
from headrace.tables import budgets as budgets_table
from headrace.tables import jobs as jobs_table
from headrace.tables import ledger
from tests import one_attempt

#: More than any test spends.
UNLIMITED = BudgetSettings(month_usd=Decimal(1_000_000))
ONE = Decimal(1)


def end(usd: str, kind: Any = "api", *, estimated: bool = False) -> AttemptEnd:
    return AttemptEnd("succeeded", 0.1, Cost(Decimal(usd), "v1"), kind, text="An answer.", estimated=estimated)


@pytest.fixture
def claimed(store: Store, queued: Callable[..., Ticket]) -> Callable[..., Claim]:
    """Claims a new job, as an overflow worker."""
    with store.begin() as db:
        worker = one_attempt.add_worker(db, "overflow", "openai")

    def make(**changes: Any) -> Claim:
        ticket = queued(**changes)
        with store.begin() as db:
            db.execute(sa.update(jobs_table).where(jobs_table.c.id == ticket.job_id).values(route=Route.OVERFLOW))
            found = one_attempt.claim(db, ticket.job_id, ticket.enqueue_no, worker, "openai")
        assert found is not None
        return found

    return make


def reserve(store: Store, claim: Claim, usd: Decimal = ONE, together: BudgetSettings = UNLIMITED) -> Claim:
    with store.begin() as db:
        outcome = one_attempt.reserve(db, claim, usd, together)
    assert isinstance(outcome, Claim), outcome
    return outcome


def limit(store: Store, claim: Claim, **limits: Decimal | None) -> None:
    with store.begin() as db:
        apps.set_limits(db, name_of(store, claim), limits)  # type: ignore[arg-type]


def name_of(store: Store, claim: Claim) -> str:
    with store.begin() as db:
        return next(app.name for app in apps.list_apps(db) if app.id == claim.app_id)


def accounts(store: Store) -> set[tuple[bool, str, Decimal, Decimal]]:
    """Of each account: whether it is an app's own, its period, what is reserved and what is spent."""
    with store.begin() as db:
        found = budgets.balances(db, UNLIMITED).accounts
    return {(each.app is not None, each.period, each.reserved_usd, each.spent_usd) for each in found}


def every(reserved: str, spent: str) -> set[tuple[bool, str, Decimal, Decimal]]:
    return {
        (is_own, period, Decimal(reserved), Decimal(spent)) for is_own in (True, False) for period in ("day", "month")
    }


def test_the_accounts_of_some_apps_come_without_those_of_others(store: Store, claimed: Callable[..., Claim]) -> None:
    paid = reserve(store, claimed())
    with store.begin() as db:
        everything, own, none = (budgets.balances(db, UNLIMITED, of) for of in (None, [paid.app_id], [new_id()]))
    assert everything == own
    assert {(each.app, each.period) for each in none.accounts} == {(None, "day"), (None, "month")}


def test_what_is_reserved_is_spent_at_the_end_and_the_rest_is_free_again(
    store: Store, claimed: Callable[..., Claim]
) -> None:
    paid = reserve(store, claimed())
    assert accounts(store) == every("1", "0")

    with store.begin() as db:
        assert one_attempt.finish(db, paid, JobState.SUCCEEDED, end("0.25"))

    assert accounts(store) == every("0", "0.25")
    with store.begin() as db:
        call = PaidCall(paid.job_id, paid.attempt, paid.app_id, ONE)
        assert budgets.settle(db, [call]) == {}, "it is settled once"
    assert accounts(store) == every("0", "0.25")


@pytest.mark.parametrize("way", ["retry", "hand_back"])
def test_a_call_that_failed_frees_what_it_did_not_cost(store: Store, claimed: Callable[..., Claim], way: str) -> None:
    paid = reserve(store, claimed())
    with store.begin() as db:
        if way == "retry":
            assert attempts.retry(db, paid, end("0", "waste"), 0)
        else:
            assert attempts.hand_back(db, paid, end("0", "waste"))

    assert accounts(store) == every("0", "0")


def test_a_call_that_may_be_on_the_bill_stays_spent(store: Store, claimed: Callable[..., Claim]) -> None:
    paid = reserve(store, claimed())
    with store.begin() as db:
        assert attempts.retry(db, paid, end("1", "waste", estimated=True), 0)

    assert accounts(store) == every("0", "1")
    with store.begin() as db:
        entry = db.execute(sa.select(ledger.c.kind, ledger.c.usd, ledger.c.estimated)).one()
    assert tuple(entry) == ("waste", ONE, True)


def test_the_call_of_a_worker_that_died_counts_as_the_most_it_can_have_cost(
    store: Store, claimed: Callable[..., Claim]
) -> None:
    paid = reserve(store, claimed())
    with store.begin() as db:
        row = db.execute(sa.select(jobs_table)).one()
        assert budgets.settle(db, attempts.lose(db, [Loss(row, JobState.WAITING, Cost(Decimal(0), "v1"))]))

    assert accounts(store) == every("0", "1")
    with store.begin() as db:
        assert not one_attempt.finish(db, paid, JobState.SUCCEEDED, end("0.25")), "it comes too late"
    assert accounts(store) == every("0", "1")
    with store.begin() as db:
        charges = db.execute(sa.select(ledger.c.kind, ledger.c.usd, ledger.c.estimated)).all()
    assert [tuple(charge) for charge in charges] == [("waste", ONE, True)]


def test_a_worker_that_died_before_its_call_has_spent_nothing(store: Store, claimed: Callable[..., Claim]) -> None:
    claimed()
    with store.begin() as db:
        row = db.execute(sa.select(jobs_table)).one()
        budgets.settle(db, attempts.lose(db, [Loss(row, JobState.WAITING, Cost(ONE, "v1"))]))
        assert db.scalar(sa.select(ledger.c.usd)) == 0


@pytest.mark.parametrize(
    ("own", "together", "budget"),
    [
        ({"day_usd": Decimal("1.5")}, UNLIMITED, Budget(is_own=True, period="day")),
        ({"month_usd": Decimal("1.5")}, UNLIMITED, Budget(is_own=True, period="month")),
        ({}, BudgetSettings(day_usd=Decimal("1.5")), Budget(is_own=False, period="day")),
        ({}, BudgetSettings(month_usd=Decimal("1.5")), Budget(is_own=False, period="month")),
    ],
)
def test_what_does_not_fit_one_budget_is_reserved_in_none(
    store: Store, claimed: Callable[..., Claim], own: dict[str, Decimal], together: BudgetSettings, budget: Budget
) -> None:
    first, second = claimed(), claimed()
    if own:
        limit(store, second, **own)
    reserve(store, first, together=together)
    before = accounts(store)

    with store.begin() as db:
        lacking = one_attempt.reserve(db, second, ONE, together)

    assert lacking == Shortfall(budget, Decimal("1.5"), Decimal("0.5"))
    assert accounts(store) == before
    with store.begin() as db:
        this = attempts_table.c.job_id == second.job_id
        assert db.scalar(sa.select(attempts_table.c.reserved_usd).where(this)) == 0


def test_a_claim_that_holds_no_more_gets_no_money(store: Store, claimed: Callable[..., Claim]) -> None:
    claim = claimed()
    with store.begin() as db:
        assert one_attempt.reserve(db, replace(claim, worker_id=new_id()), ONE, UNLIMITED) is None
    assert accounts(store) == set()


def test_an_account_is_of_the_day_and_month_in_which_the_attempt_began(
    store: Store, claimed: Callable[..., Claim]
) -> None:
    claim = claimed()
    began = datetime(2026, 1, 31, 23, 59, 59, tzinfo=UTC)
    with store.begin() as db:
        db.execute(sa.update(attempts_table).values(started_at=began))
    paid = reserve(store, claim)
    with store.begin() as db:
        assert one_attempt.finish(db, paid, JobState.SUCCEEDED, end("0.25"))
        found = db.execute(
            sa.select(budgets_table.c.period, budgets_table.c.starts_at, budgets_table.c.spent_usd)
        ).all()

    day, month = datetime(2026, 1, 31, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)
    assert {tuple(each) for each in found} == {("day", day, Decimal("0.25")), ("month", month, Decimal("0.25"))}
    assert accounts(store) == set(), "which is over"


def test_no_budget_is_overspent_however_many_ask_at_once(store: Store, claimed: Callable[..., Claim]) -> None:
    claims = [claimed() for _ in range(48)]
    together = BudgetSettings(day_usd=Decimal(10))

    def one(claim: Claim) -> bool:
        with store.begin() as db:
            outcome = one_attempt.reserve(db, claim, ONE, together)
        if not isinstance(outcome, Claim):
            return False
        with store.begin() as db:
            return one_attempt.finish(db, outcome, JobState.SUCCEEDED, end("1"))

    with ThreadPoolExecutor(16) as pool:
        paid = list(pool.map(one, claims))

    assert sum(paid) == 10
    with store.begin() as db:
        spent = {each.period: each.spent_usd for each in budgets.balances(db, together).accounts if each.app is None}
    assert spent == {"day": Decimal(10), "month": Decimal(10)}


def test_those_who_ask_together_get_what_is_left_and_no_more(store: Store, claimed: Callable[..., Claim]) -> None:
    claims = [claimed() for _ in range(5)]
    with store.begin() as db:
        outcomes = attempts.reserve_all(db, [(claim, ONE) for claim in claims], BudgetSettings(day_usd=Decimal(3)))

    paid = [outcomes[claim.job_id] for claim in claims[:3]]
    assert [each.reserved_usd for each in paid if isinstance(each, Claim)] == [ONE] * 3
    assert all(isinstance(outcomes[claim.job_id], Shortfall) for claim in claims[3:])
    assert accounts(store) == every("3", "0")
    with store.begin() as db:
        ends = [(claim, end(usd)) for claim, usd in zip(claims[:3], ("0.25", "0.5", "1"), strict=True)]
        assert len(attempts.finish_all(db, JobState.SUCCEEDED, ends)) == 3
    assert accounts(store) == every("0", "1.75")


def test_of_those_who_ask_together_each_app_has_its_own_limit_and_each_day_its_own_account(
    store: Store, claimed: Callable[..., Claim]
) -> None:
    with store.begin() as db:
        poor = apps.create(db, "poor", {"month_usd": Decimal("0.5")})
    rich, late, short = claimed(), claimed(), claimed(app_id=poor.id)
    yesterday = datetime(2026, 1, 31, tzinfo=UTC)
    with store.begin() as db:
        db.execute(sa.update(attempts_table).where(attempts_table.c.job_id == late.job_id).values(started_at=yesterday))
        outcomes = attempts.reserve_all(db, [(claim, ONE) for claim in (rich, late, short)], UNLIMITED)

    assert [type(outcomes[claim.job_id]) for claim in (rich, late, short)] == [Claim, Claim, Shortfall]
    with store.begin() as db:
        found = db.execute(
            sa.select(
                budgets_table.c.app_id,
                budgets_table.c.starts_at < datetime(2026, 2, 1, tzinfo=UTC),
                sa.func.sum(budgets_table.c.reserved_usd),
            ).group_by(sa.text("1, 2"))
        ).all()
    assert {tuple(each) for each in found} == {
        (None, True, 2),
        (rich.app_id, True, 2),
        (None, False, 2),
        (rich.app_id, False, 2),
        (poor.id, False, 0),
    }


def test_a_claim_that_holds_no_more_gets_nothing_and_the_others_their_money(
    store: Store, claimed: Callable[..., Claim]
) -> None:
    held, lost = claimed(), claimed()
    with store.begin() as db:
        outcomes = attempts.reserve_all(db, [(held, ONE), (replace(lost, enqueue_no=7), ONE)], UNLIMITED)

    assert set(outcomes) == {held.job_id}
    assert accounts(store) == every("1", "0")


def test_the_first_calls_of_a_day_do_not_wait_for_each_other_for_ever(
    store: Store, claimed: Callable[..., Claim]
) -> None:
    claims = [claimed() for _ in range(36)]
    days = {claim.job_id: datetime(2026, 3, 1 + no // 12, tzinfo=UTC) for no, claim in enumerate(claims)}
    with store.begin() as db:
        for job_id, day in days.items():
            db.execute(sa.update(attempts_table).where(attempts_table.c.job_id == job_id).values(started_at=day))
    reserve(store, claims[0])

    def one(claim: Claim) -> None:
        paid = reserve(store, claim)
        with store.begin() as db:
            assert one_attempt.finish(db, paid, JobState.SUCCEEDED, end("0.25"))

    def both(claims: tuple[Claim, ...]) -> None:
        with store.begin() as db:
            outcomes = attempts.reserve_all(db, [(claim, ONE) for claim in claims], UNLIMITED)
        assert len(outcomes) == len(claims)
        with store.begin() as db:
            ended = [(claim, end("0.25")) for claim in claims]
            assert len(attempts.finish_all(db, JobState.SUCCEEDED, ended)) == len(claims)

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(one, claims[1:13]))
        # Of two days each.
        list(pool.map(both, zip(claims[13:24], claims[24:35], strict=True)))
        one(claims[35])

    with store.begin() as db:
        months = sa.select(budgets_table.c.spent_usd).where(budgets_table.c.period == "month")
        assert set(db.scalars(months)) == {35 * Decimal("0.25")}


def test_giving_a_job_back_twice_leaves_its_next_call_alone(store: Store, claimed: Callable[..., Claim]) -> None:
    first = reserve(store, claimed())
    nothing = AttemptEnd("failed", 0, Cost(Decimal(0), "v1"), "waste")
    with store.begin() as db:
        assert attempts.hand_back(db, first, nothing)
    with store.begin() as db:
        [ticket] = jobs.enqueue_due(db)
        again = one_attempt.claim(db, ticket.job_id, ticket.enqueue_no, first.worker_id, "openai")
    assert again is not None
    assert again.attempt == first.attempt
    second = reserve(store, again)

    with store.begin() as db:
        assert not attempts.hand_back(db, first, nothing), "its reply was lost the first time"
    assert accounts(store) == every("1", "0")
    with store.begin() as db:
        assert one_attempt.finish(db, second, JobState.SUCCEEDED, end("0.25"))
    assert accounts(store) == every("0", "0.25")


def test_a_reservation_whose_reply_was_lost_is_settled_all_the_same(
    store: Store, claimed: Callable[..., Claim]
) -> None:
    claim = claimed()
    reserve(store, claim)
    with store.begin() as db:
        assert attempts.hand_back(db, claim, AttemptEnd("failed", 0, Cost(Decimal(0), "v1"), "waste"))
    assert accounts(store) == every("0", "0")


def test_a_job_that_is_sent_away_waits_elsewhere_as_if_it_had_never_started(
    store: Store, claimed: Callable[..., Claim]
) -> None:
    claim = claimed()
    with store.begin() as db:
        reroute = Reroute("chat.normal", Route.POOL, "no money")
        assert attempts.hand_back(
            db, claim, AttemptEnd("failed", 0, Cost(Decimal(0), "v1"), "waste"), HandBack(reroute=reroute)
        )
        found = jobs.find(db, claim.app_id, claim.job_id)

    assert (found.state, found.queue, found.route) == (JobState.WAITING, "chat.normal", Route.POOL)
    assert (found.route_reason, found.attempt, found.started_at) == ("no money", 0, None)


@pytest.mark.parametrize(("limit_usd", "short"), [("5.5", {"day"}), ("100", set())], ids=["nearly used up", "too dear"])
def test_a_call_that_finds_too_little_says_so_of_a_budget_that_is_nearly_used_up(
    store: Store, claimed: Callable[..., Claim], limit_usd: str, short: set[str]
) -> None:
    reserve(store, claimed(), Decimal(5))
    late = claimed()
    limit(store, late, day_usd=Decimal(limit_usd), month_usd=Decimal(1000))
    for _ in range(2):
        with store.begin() as db:
            assert isinstance(one_attempt.reserve(db, late, Decimal(99), UNLIMITED), Shortfall)

    with store.begin() as db:
        assert {each.period for each in budgets.balances(db, UNLIMITED).accounts if each.short} == short


def test_without_a_budget_no_call_gets_money_and_a_stored_one_opens_it(
    store: Store, claimed: Callable[..., Claim]
) -> None:
    claim, none = claimed(), BudgetSettings()
    with store.begin() as db:
        assert one_attempt.reserve(db, claim, ONE, none) == NoBudget()
    with store.begin() as db:
        budgets.set_limits(db, {"day_usd": Decimal(5)}, none)
        paid = one_attempt.reserve(db, claim, ONE, none)
    assert isinstance(paid, Claim)


def test_stored_limits_win_over_the_settings_until_they_are_cleared(
    store: Store, claimed: Callable[..., Claim]
) -> None:
    configured = BudgetSettings(day_usd=Decimal(100))
    with store.begin() as db:
        budgets.set_limits(db, {"day_usd": None, "month_usd": Decimal("0.5")}, configured)
        assert budgets.limits(db, configured) == SpendingLimits(None, Decimal("0.5"), is_stored=True)
        lack = one_attempt.reserve(db, claimed(), ONE, configured)
        assert isinstance(lack, Shortfall)
        assert (lack.budget, lack.limit_usd) == (Budget(is_own=False, period="month"), Decimal("0.5"))
        budgets.set_limits(db, {"day_usd": Decimal(3)}, configured)
        assert budgets.limits(db, configured).month_usd == Decimal("0.5"), "what is not named stays"
        assert budgets.clear_limits(db)
        assert not budgets.clear_limits(db)
        assert budgets.limits(db, configured) == SpendingLimits(Decimal(100), None)
