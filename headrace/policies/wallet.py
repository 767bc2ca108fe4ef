"""What the budgets have left after the money promised to jobs on their way to the paid API. Pure.

A worker reserves a job's money only when it claims the job. Without counting promises, many jobs would be admitted for
the last money of a budget.
"""

import math
from collections import deque
from collections.abc import Callable
from decimal import Decimal
from time import monotonic

from headrace.domain.limits.budgets import BUDGETS, Balances, Budget, Lack, Limits, shortfall


class Wallet:
    """Adds promised money to what the accounts have used. Not safe for threads."""

    def __init__(self, keeps_s: float = math.inf, clock: Callable[[], float] = monotonic) -> None:
        """Start without promises. Args: keeps_s: how long a promise counts, in seconds."""
        self._keeps_s, self._clock = keeps_s, clock
        #: Each promise: when it was made, the job's app, and the job's maximum cost in USD.
        self._promises: deque[tuple[float, str, Decimal]] = deque()

    def promise(self, app: str, usd: Decimal) -> None:
        """Count a job of this app that costs at most `usd`."""
        self._promises.append((self._clock(), app, usd))

    def lacking(self, usd: Decimal, app: str, own: Limits, balances: Balances, waiting: int = 0) -> Lack | None:
        """Why the budgets do not pay for a job of this app that may cost `usd`; None if they do.

        Args:
            own: the app's limits.
            waiting: jobs that wait for the paid API, promised ones included. Their apps are unknown: they count only
                against the budget of all apps together, each at the mean of the promises.
        """
        while self._promises and self._promises[0][0] < self._clock() - self._keeps_s:
            self._promises.popleft()
        own_usd = sum((each for _, name, each in self._promises if name == app), Decimal(0))
        together_usd = sum((each for _, _, each in self._promises), Decimal(0))
        mean_usd = together_usd / len(self._promises) if self._promises else usd
        together_usd = max(together_usd, waiting * mean_usd)
        used = balances.used_usd(app)
        both: dict[Budget, Decimal] = {
            budget: used.get(budget, Decimal(0)) + (own_usd if budget.is_own else together_usd) for budget in BUDGETS
        }
        return shortfall(usd, both, own, balances.together)
