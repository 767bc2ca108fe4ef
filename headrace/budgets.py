"""Whether there is money for a call to the paid API. Pure: the accounts are `store.budgets`."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, Protocol

Period = Literal["day", "month"]
PERIODS: tuple[Period, ...] = ("day", "month")


class Limits(Protocol):
    """What may be spent in a day and in a month of UTC, in USD; None for any amount."""

    @property
    def day_usd(self) -> Decimal | None: ...

    @property
    def month_usd(self) -> Decimal | None: ...


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


#: Percents of a budget that are told of, once in its period each.
THRESHOLDS = (80, 100)


def share(used_usd: Decimal, limit_usd: Decimal) -> Decimal:
    """How much of a limit is spent and reserved: 1 for all of it, and where there is nothing to spend."""
    return used_usd / limit_usd if limit_usd else Decimal(1)


def is_nearly_used(used_usd: Decimal, limit_usd: Decimal) -> bool:
    """True from the first threshold on."""
    return share(used_usd, limit_usd) * 100 >= THRESHOLDS[0]


def reached(used_usd: Decimal, limit_usd: Decimal, *, is_short: bool) -> tuple[int, ...]:
    """The thresholds that a budget has come to.

    Args:
        is_short: a call has found too little left. It is used up then: its last cents seldom fit a call.
    """
    percent = share(used_usd, limit_usd) * 100
    return tuple(each for each in THRESHOLDS if is_short or percent >= each)


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


def shortfall(usd: Decimal, used: Mapping[Budget, Decimal], own: Limits, together: Limits) -> Shortfall | None:
    """The first budget that a call does not fit; None where there is money for it.

    Args:
        usd: the most it can cost.
        used: what is spent and reserved; nothing in a budget that is not named.
    """
    for budget in BUDGETS:
        limit_usd = budget.limit_usd(own, together)
        if limit_usd is None:
            continue
        left_usd = limit_usd - used.get(budget, Decimal(0))
        if usd > left_usd:
            return Shortfall(budget, limit_usd, left_usd)
    return None
