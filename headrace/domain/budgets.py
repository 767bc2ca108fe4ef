"""Whether there is money for a call to the paid API. Pure: the accounts are `store.budgets`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Literal, Protocol
from uuid import UUID

Period = Literal["day", "month"]
PERIODS: tuple[Period, ...] = ("day", "month")


class Limits(Protocol):
    """What may be spent in a day and in a month of UTC, in USD; None for any amount."""

    @property
    def day_usd(self) -> Decimal | None: ...

    @property
    def month_usd(self) -> Decimal | None: ...


@dataclass(frozen=True, slots=True)
class SpendingLimits:
    """The limits of all apps together, as they hold.

    Attributes:
        is_stored: they were set with `headrace budgets set`, which wins over `[budgets]` in the settings.
    """

    day_usd: Decimal | None
    month_usd: Decimal | None
    is_stored: bool = False

    @property
    def are_set(self) -> bool:
        """False where neither a day nor a month is limited: then the paid API is shut for most apps."""
        return self.day_usd is not None or self.month_usd is not None


@dataclass(frozen=True, slots=True, order=True)
class Budget:
    """One of the four that a call is paid from: of the job's app, or of all apps together."""

    is_own: bool
    period: Period

    def limit_usd(self, own: Limits, together: Limits) -> Decimal | None:
        """What it may hold; None for any amount."""
        limits = own if self.is_own else together
        return limits.day_usd if self.period == "day" else limits.month_usd


BUDGETS = tuple(Budget(is_own, period) for is_own in (False, True) for period in PERIODS)


#: What an operator reads where no budget of all apps together is set.
SHUT = (
    "The paid API is shut for every app without a budget of its own: no budget is set for all apps together. "
    "'headrace budgets set --day-usd 5' opens it."
)

#: Percents of a budget that the operator is told about, once in its period for each kind.
THRESHOLDS = (80, 100)
#: What an alarm goes by: what was spent; or that and what calls under way may cost at most, which is mostly far more
#: than they will.
Kind = Literal["spent", "reserved"]


def share(used_usd: Decimal, limit_usd: Decimal) -> Decimal:
    """The part of a limit that is used: 1 for all of it, and for a limit of zero."""
    return used_usd / limit_usd if limit_usd else Decimal(1)


def _is_nearly_used(used_usd: Decimal, limit_usd: Decimal) -> bool:
    """True from the first threshold on."""
    return share(used_usd, limit_usd) * 100 >= THRESHOLDS[0]


def reached(used_usd: Decimal, limit_usd: Decimal, *, is_short: bool) -> tuple[int, ...]:
    """The thresholds that an amount has reached.

    Args:
        is_short: a call has found too little left. The budget is used up then: its last cents seldom fit a call.
    """
    percent = share(used_usd, limit_usd) * 100
    return tuple(each for each in THRESHOLDS if is_short or percent >= each)


def short_of(call_usd: Decimal, spent_usd: Decimal, used_usd: Decimal, limit_usd: Decimal) -> Kind | None:
    """What a call that does not fit tells about a budget: it is used up by what was spent, or by what is reserved.

    Returns: None where the budget is not nearly used: the call alone is too large.
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
    """No budget pays for a call, neither its app's own nor that of all apps together. Then none is made."""

    def __str__(self) -> str:
        return "no budget is set; 'headrace budgets set --day-usd 5' sets one for all apps together"


#: Why no budget pays for a call.
Lack = Shortfall | NoBudget


def shortfall(usd: Decimal, used: Mapping[Budget, Decimal], own: Limits, together: Limits) -> Lack | None:
    """The first budget that a call does not fit, or that there is none; None where a budget pays for it.

    Args:
        usd: the most it can cost.
        used: what is spent and reserved; nothing in a budget that is not named.
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
    """USD, exact, and the version of the price it was made with."""

    usd: Decimal
    price_version: str


@dataclass(frozen=True, slots=True)
class Account:
    """What one owner has spent in one period.

    Attributes:
        app: its name; None for all apps together.
        reserved_usd: what calls under way may yet cost.
        limit_usd: None for any amount.
        told_percent: by kind, the highest threshold that the operator was told about.
        short: the kinds by which a call has found too little left.
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


@dataclass(frozen=True, slots=True)
class Balances:
    """What may be spent and what was: the limits of all apps together, and the accounts of this day and month.

    Attributes:
        accounts: first those of all apps together, then by name.
    """

    together: SpendingLimits
    accounts: Sequence[Account]

    def used_usd(self, app: str) -> Mapping[Budget, Decimal]:
        """What is spent and reserved in the budgets that a call for this app is paid from."""
        return {
            Budget(account.app is not None, account.period): account.used_usd
            for account in self.accounts
            if account.app in (None, app)
        }
