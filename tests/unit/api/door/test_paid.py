"""The paid API at the door: its prices are cached, and no budget is promised twice."""

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

import pytest

from api.door import paid
from api.door.paid import ASKING_S, COMING_S, CurrentTariff, SharedWallet
from headrace.config import Settings
from headrace.domain.apps import App, AppLimits
from headrace.domain.ids import new_id
from headrace.domain.limits import Account, Balances, Budget, Kind, NoBudget, Shortfall, SpendingLimits
from headrace.errors import StoreUnavailable
from headrace.policies.pricing import Tariff


def test_it_is_read_again_and_the_last_one_counts_during_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paid, "TARIFF_TTL_S", -1.0)  # each call reads
    settings_alone = Tariff.of(Settings())
    new = replace(settings_alone, api_default="gpt-9")
    answers: list[Tariff | None] = [None, new, None]

    def read() -> Tariff:
        answer = answers.pop(0)
        if answer is None:
            raise StoreUnavailable("down")
        return answer

    tariff = CurrentTariff(read, settings_alone)

    assert [tariff() for _ in range(3)] == [settings_alone, new, new]


ONE = Decimal(1)
SHOP = App(new_id(), "shop", "whsec", AppLimits(day_usd=Decimal(5)))
OTHER = App(new_id(), "other", "whsec")


@dataclass
class Bench:
    """The budgets as a test sets them: what is spent of them, and what waits."""

    accounts: list[Account] = field(default_factory=list)
    waiting: int = 0
    now_s: float = 0.0
    reads: list[set[UUID]] = field(default_factory=list)
    noted: list[tuple[UUID, Kind]] = field(default_factory=list)
    together: SpendingLimits = field(default_factory=lambda: SpendingLimits(None, None))
    is_away: bool = False

    def wallet(self, **together: Decimal) -> SharedWallet:
        self.together = SpendingLimits(together.get("day_usd"), together.get("month_usd"))
        return SharedWallet(self.read, lambda: self.waiting, self.note_short, lambda: self.now_s)

    def read(self, apps: Collection[UUID]) -> Balances:
        self.reads.append(set(apps))
        names = {None, *(app.name for app in (SHOP, OTHER) if app.id in apps)}
        return Balances(self.together, [account for account in self.accounts if account.app in names])

    def note_short(self, account_id: UUID, kind: Kind) -> None:
        if self.is_away:
            raise StoreUnavailable("Postgres does not answer.")
        self.noted.append((account_id, kind))

    def spent(self, app: str | None, usd: str, reserved: str = "0") -> None:
        self.accounts.append(Account(new_id(), app, "day", datetime.now(UTC), Decimal(reserved), Decimal(usd), None))


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_without_a_budget_no_job_is_paid_for(bench: Bench) -> None:
    wallet = bench.wallet()
    assert wallet.lacking(OTHER, ONE) == NoBudget()
    assert wallet.lacking(SHOP, ONE) is None


def test_a_stored_budget_opens_the_paid_api(bench: Bench) -> None:
    wallet = bench.wallet()
    assert wallet.lacking(OTHER, ONE) == NoBudget()
    bench.together = SpendingLimits(Decimal(5), None, is_stored=True)
    assert SharedWallet(bench.read, lambda: 0, bench.note_short).lacking(OTHER, ONE) is None


def test_what_was_let_in_a_moment_ago_is_as_good_as_spent(bench: Bench) -> None:
    bench.spent("shop", "3")
    wallet = bench.wallet()
    assert wallet.lacking(SHOP, ONE) is None
    wallet.let_in(SHOP, ONE)
    assert wallet.lacking(SHOP, ONE) is None
    wallet.let_in(SHOP, ONE)
    found = wallet.lacking(SHOP, ONE)
    assert isinstance(found, Shortfall)
    assert found.budget == Budget(is_own=True, period="day")

    bench.now_s += COMING_S + 1
    assert wallet.lacking(SHOP, ONE) is None, "by now the accounts have it"


def test_another_app_s_jobs_count_for_all_together_alone(bench: Bench) -> None:
    wallet = bench.wallet(day_usd=Decimal(7))
    for _ in range(6):
        wallet.let_in(OTHER, ONE)
    assert wallet.lacking(SHOP, ONE) is None
    wallet.let_in(OTHER, ONE)
    found = wallet.lacking(SHOP, ONE)
    assert isinstance(found, Shortfall)
    assert found.budget == Budget(is_own=False, period="day")


def test_jobs_that_wait_for_the_paid_api_have_their_money_coming(bench: Bench) -> None:
    wallet, bench.waiting = bench.wallet(month_usd=Decimal(10)), 9
    assert wallet.lacking(OTHER, ONE) is None
    bench.waiting = 10
    assert wallet.lacking(OTHER, ONE) is not None


def test_a_job_that_was_let_in_and_waits_counts_once_and_at_its_own_price(bench: Bench) -> None:
    wallet = bench.wallet(month_usd=Decimal(10))
    for _ in range(8):
        wallet.let_in(OTHER, ONE)
    bench.waiting = 8
    assert wallet.lacking(OTHER, Decimal(2)) is None
    assert wallet.lacking(OTHER, Decimal(3)) is not None


def test_a_shortfall_of_a_budget_that_is_nearly_used_up_is_noted_once(bench: Bench) -> None:
    bench.spent("other", "4.9")
    bench.spent("shop", "4.9")
    wallet = bench.wallet()
    for _ in range(3):
        assert wallet.lacking(SHOP, ONE) is not None
    assert bench.noted == [(bench.accounts[1].id, "spent")]


def test_a_budget_that_is_short_by_what_is_reserved_alone_is_noted_as_that(bench: Bench) -> None:
    bench.spent("shop", "0.5", reserved="4.3")
    assert bench.wallet().lacking(SHOP, ONE) is not None
    assert bench.noted == [(bench.accounts[0].id, "reserved")]


def test_a_job_that_is_too_large_for_a_budget_says_nothing_of_the_budget(bench: Bench) -> None:
    bench.spent("shop", "3.9")
    assert bench.wallet().lacking(SHOP, Decimal(2)) is not None
    assert bench.noted == []


def test_a_shortfall_that_could_not_be_noted_is_noted_the_next_time(bench: Bench) -> None:
    bench.spent("shop", "4.9")
    wallet, bench.is_away = bench.wallet(), True
    assert wallet.lacking(SHOP, ONE) is not None
    bench.is_away = False
    assert wallet.lacking(SHOP, ONE) is not None
    assert len(bench.noted) == 1


def test_the_accounts_of_apps_that_ask_are_read_and_no_others(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.spent("shop", "4.9")
    bench.spent("other", "4.9")
    wallet = bench.wallet(day_usd=Decimal(100))
    assert wallet.lacking(SHOP, ONE) is not None
    assert wallet.lacking(SHOP, ONE) is not None
    assert bench.reads == [{SHOP.id}], "once for all of its jobs"
    # The other app's accounts were not read before.
    limited = replace(OTHER, limits=SHOP.limits)
    assert wallet.lacking(limited, ONE) is not None
    assert bench.reads == [{SHOP.id}, {OTHER.id}]

    monkeypatch.setattr(wallet._known, "_ttl_s", -1)
    wallet._known._entry = None
    assert wallet.lacking(limited, ONE) is not None
    assert bench.reads[-1] == {SHOP.id, OTHER.id}
    bench.now_s += ASKING_S + 1
    assert wallet.lacking(limited, ONE) is not None
    assert bench.reads[-1] == {OTHER.id}, "the other has not asked for a while"
