"""Limits: whether the budgets can pay for a call to the paid API, and what is left of a rate. Pure.

`store.money.budgets` keeps the accounts. A rate is an app's in Headrace, or the operator's at a provider; each is a
tuple, so that an error can carry it as plain numbers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Literal, NamedTuple, Protocol, Self
from uuid import UUID

Period = Literal["day", "month"]
PERIODS: tuple[Period, ...] = ("day", "month")


class Limits(Protocol):
    """The most that may be spent in a UTC day and in a UTC month, in USD; None for no limit."""

    @property
    def day_usd(self) -> Decimal | None: ...

    @property
    def month_usd(self) -> Decimal | None: ...


@dataclass(frozen=True, slots=True)
class SpendingLimits:
    """The limits of all apps together that are in force.

    Attributes:
        is_stored: True when `headrace budgets set` set them, which overrides `[budgets]` in the settings.
    """

    day_usd: Decimal | None
    month_usd: Decimal | None
    is_stored: bool = False

    @property
    def are_set(self) -> bool:
        """False without a day or month limit: the paid API is then closed to every app without its own budget."""
        return self.day_usd is not None or self.month_usd is not None


@dataclass(frozen=True, slots=True, order=True)
class Budget:
    """One of the four budgets that pay for a call: by day and by month, of the job's app and of all apps together."""

    is_own: bool
    period: Period

    def limit_usd(self, own: Limits, together: Limits) -> Decimal | None:
        """The limit of this budget; None for no limit."""
        limits = own if self.is_own else together
        return limits.day_usd if self.period == "day" else limits.month_usd


BUDGETS = tuple(Budget(is_own, period) for is_own in (False, True) for period in PERIODS)


#: What an operator reads while no budget for all apps together is set.
SHUT = (
    "The paid API is shut for every app without a budget of its own: no budget is set for all apps together. "
    "'headrace budgets set --day-usd 5' opens it."
)

#: Percentages of a budget that alert the operator, once per period and kind.
THRESHOLDS = (80, 100)
#: What an alert measures: `spent` is money spent; `reserved` adds the maximum cost of the calls in flight, which is
#: usually far more than they will cost.
Kind = Literal["spent", "reserved"]


def share(used_usd: Decimal, limit_usd: Decimal) -> Decimal:
    """The used share of a limit: 1 when all of it is used, or when the limit is zero."""
    return used_usd / limit_usd if limit_usd else Decimal(1)


def _is_nearly_used(used_usd: Decimal, limit_usd: Decimal) -> bool:
    """True at or above the first threshold."""
    return share(used_usd, limit_usd) * 100 >= THRESHOLDS[0]


def reached(used_usd: Decimal, limit_usd: Decimal, *, is_short: bool) -> tuple[int, ...]:
    """The thresholds that an amount has reached.

    Args:
        is_short: a call did not fit. The budget then counts as used up: its last cents seldom pay for a call.
    """
    percent = share(used_usd, limit_usd) * 100
    return tuple(each for each in THRESHOLDS if is_short or percent >= each)


def short_of(call_usd: Decimal, spent_usd: Decimal, used_usd: Decimal, limit_usd: Decimal) -> Kind | None:
    """Why a budget has no room for a call: money spent has used it up, or reservations have.

    Returns: None if the budget is not nearly used up: then this one call is too large.
    """
    if spent_usd + call_usd > limit_usd and _is_nearly_used(spent_usd, limit_usd):
        return "spent"
    return "reserved" if _is_nearly_used(used_usd, limit_usd) else None


@dataclass(frozen=True, slots=True)
class Shortfall:
    """A budget that has too little left for a call."""

    budget: Budget
    limit_usd: Decimal
    left_usd: Decimal

    def __str__(self) -> str:
        owner = "this app's budget" if self.budget.is_own else "the budget of all apps together"
        left_usd = max(self.left_usd, Decimal(0)).normalize()
        return f"{owner}, {self.limit_usd.normalize():f} USD a {self.budget.period}, has {left_usd:f} USD left"


@dataclass(frozen=True, slots=True)
class NoBudget:
    """Neither the app nor all apps together have a budget. The call is then not made."""

    def __str__(self) -> str:
        return "no budget is set; 'headrace budgets set --day-usd 5' sets one for all apps together"


#: Why the budgets do not pay for a call.
Lack = Shortfall | NoBudget


def shortfall(usd: Decimal, used: Mapping[Budget, Decimal], own: Limits, together: Limits) -> Lack | None:
    """Why the budgets do not pay for a call: the first budget without room for it, or `NoBudget`; None if they pay.

    Args:
        usd: the maximum cost of the call.
        used: spent plus reserved, by budget; a missing budget counts as zero.
    """
    limits = {budget: budget.limit_usd(own, together) for budget in BUDGETS}
    if all(limit_usd is None for limit_usd in limits.values()):
        return NoBudget()
    for budget, limit_usd in limits.items():
        if limit_usd is None:
            continue
        left_usd = limit_usd - used.get(budget, Decimal(0))
        if usd > left_usd:
            return Shortfall(budget, limit_usd, left_usd)
    return None


@dataclass(frozen=True, slots=True)
class Cost:
    """Exact USD, and the version of the price that gave it."""

    usd: Decimal
    price_version: str


@dataclass(frozen=True, slots=True)
class Account:
    """What one owner has spent in one period.

    Attributes:
        app: its name; None for all apps together.
        reserved_usd: the maximum cost of the calls in flight.
        limit_usd: None for no limit.
        told_percent: by kind, the highest threshold for which the operator was alerted.
        short: the kinds for which a call did not fit.
    """

    id: UUID
    app: str | None
    period: Period
    starts_at: datetime
    reserved_usd: Decimal
    spent_usd: Decimal
    limit_usd: Decimal | None
    told_percent: Mapping[Kind, int] = field(default_factory=dict)
    short: frozenset[Kind] = frozenset()

    @property
    def used_usd(self) -> Decimal:
        """What counts against the limit."""
        return self.reserved_usd + self.spent_usd

    @property
    def is_used_up(self) -> bool:
        """True if nothing is left, or money spent leaves too little for a call that was refused in this period."""
        if self.limit_usd is None:
            return False
        is_short = "spent" in self.short and _is_nearly_used(self.spent_usd, self.limit_usd)
        return THRESHOLDS[-1] in reached(self.used_usd, self.limit_usd, is_short=is_short)


@dataclass(frozen=True, slots=True)
class Balances:
    """The limits of all apps together, and the accounts of the current day and month.

    Attributes:
        accounts: those of all apps together first, then one app after the other by name.
    """

    together: SpendingLimits
    accounts: Sequence[Account]

    def used_usd(self, app: str) -> Mapping[Budget, Decimal]:
        """Spent plus reserved, in each budget that pays for this app's calls."""
        return {
            Budget(account.app is not None, account.period): account.used_usd
            for account in self.accounts
            if account.app in (None, app)
        }


MINUTE_S = 60.0


class RateLeft(NamedTuple):
    """One rate of an app right after a request: a token bucket.

    Attributes:
        limit: per minute.
        holds_s: the bucket's capacity: the rate fills it in this many seconds.
    """

    limit: int
    left: int
    holds_s: float = MINUTE_S

    @property
    def full_in_s(self) -> float:
        """Seconds until the bucket is full again."""
        return self.holds_s - self.left / self.limit * MINUTE_S


class RatesLeft(NamedTuple):
    """The rates of an app; None where it has no limit of its own, or the answer is not about it."""

    requests: RateLeft | None = None
    tokens: RateLeft | None = None
    calls: RateLeft | None = None

    @classmethod
    def of(cls, numbers: tuple[tuple[int, int, float] | None, ...]) -> Self:
        """Read the rates from an error's plain numbers."""
        return cls(*(each and RateLeft._make(each) for each in numbers))


NO_RATES = RatesLeft()


class ProviderRate(NamedTuple):
    """One rate limit of the operator's account, as a provider's answer reported it.

    Attributes:
        limit: the capacity of the provider's bucket.
        full_in_s: seconds until the bucket is full again if no more is used.
    """

    limit: int
    left: int
    full_in_s: float


class ProviderRates(NamedTuple):
    """Both rates at a provider; None where the provider does not report one.

    Attributes:
        said_at: when the provider reported them, by `time.monotonic`.
    """

    said_at: float
    requests: ProviderRate | None = None
    tokens: ProviderRate | None = None

    @classmethod
    def of(cls, numbers: tuple[float, tuple[int, int, float] | None, tuple[int, int, float] | None]) -> Self:
        """Read the rates from an error's plain numbers."""
        said_at, *rates = numbers
        return cls(said_at, *(each and ProviderRate._make(each) for each in rates))
