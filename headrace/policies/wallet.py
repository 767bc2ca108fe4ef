"""What the budgets have left once the money is counted that jobs on their way to the paid API were promised. Pure.

A worker reserves a job's money when it claims it. Until then no account has it: without this count, the last money of a
budget would be promised to many.
"""

import math
from collections import deque
from collections.abc import Callable
from decimal import Decimal
from time import monotonic

from headrace.domain.budgets import BUDGETS, Balances, Budget, Lack, Limits, shortfall


class Wallet:
    """Adds what was promised to what the accounts have used. Not safe for threads."""

    def __init__(self, keeps_s: float = math.inf, clock: Callable[[], float] = monotonic) -> None:
        """Promise nothing yet. Args: keeps_s: how long a promise counts, in seconds."""
        self._keeps_s, self._clock = keeps_s, clock
        #: Of each promise: when it was made, to whose job, and the most that the job can cost.
        self._promises: deque[tuple[float, str, Decimal]] = deque()

    def promise(self, app: str, usd: Decimal) -> None:
        """Count a job of this app that costs so much at most."""
        self._promises.append((self._clock(), app, usd))

    def lacking(self, usd: Decimal, app: str, own: Limits, balances: Balances, waiting: int = 0) -> Lack | None:
        """Why no budget pays for a job of this app that may cost so much; None when one does.

        Args:
            own: the app's limits.
            waiting: jobs that wait for the paid API, those that were promised their money among them. Whose they are
                is not known, so that they count for all apps together alone, at the mean of the promises.
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
