"""Whether there is money for one more job at the paid API, also for those that are on their way there.

A worker reserves a job's money when it claims it. Until then nobody holds it: what was let in a moment ago, and what
waits, is counted here, or the last money of a budget would be promised to many.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from decimal import Decimal
from uuid import UUID

from api.cached import Cached
from headrace.budgets import BUDGETS, Limits, Shortfall, is_nearly_used, shortfall
from headrace.errors import StoreUnavailable
from headrace.store import budgets
from headrace.store.apps import App
from headrace.store.budgets import Account

#: How old the accounts may be, in seconds. The worker looks again before it spends.
ACCOUNTS_TTL_S = 0.5
#: How long a job counts that was let in here: by then the accounts have it, unless it waits. Longer than that takes: a
#: budget that is nearly used up is spent a little later, and nobody is let in for whom nothing is left.
COMING_S = 2.0


class Money:
    """Knows the budgets. Safe for many threads."""

    def __init__(
        self,
        read: Callable[[], Sequence[Account]],
        waiting: Callable[[], int],
        together: Limits,
        note_short: Callable[[UUID], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read nothing yet.

        Args:
            read: the accounts of this day and month.
            waiting: jobs in the queues of the paid API, in all.
            together: the limits of all apps together.
            note_short: notes, of an account that is nearly used up, that a job found too little left.
        """
        self._accounts = Cached(read, ACCOUNTS_TTL_S)
        self._waiting, self._together, self._clock = waiting, together, clock
        self._note_short, self._noted = note_short, set[UUID]()
        self._lock = threading.Lock()
        #: Of each job that was let in lately: when, its app, and the most it can cost.
        self._coming: deque[tuple[float, str, Decimal]] = deque()

    def lacking(self, app: App, usd: Decimal) -> Shortfall | None:
        """The budget that has no room for a job that may cost so much; None when there is money.

        Raises: StoreUnavailable. BrokerUnavailable.
        """
        limited = [each for each in BUDGETS if each.limit_usd(app.limits, self._together) is not None]
        if not limited:
            return None
        accounts = self._accounts.get()
        used = budgets.used(accounts, app.name)
        together_usd, jobs = self._coming_usd()
        # Whose jobs wait there is not known here, so that they count for all together alone, at the mean of those that
        # were let in lately, which are among them.
        mean_usd = together_usd / jobs if jobs else usd
        together_usd = max(together_usd, self._waiting() * mean_usd)
        own_usd, _ = self._coming_usd(app.name)
        coming = {budget: own_usd if budget.is_own else together_usd for budget in limited}
        both = {budget: used.get(budget, Decimal(0)) + coming[budget] for budget in limited}
        lacking = shortfall(usd, both, app.limits, self._together)
        if lacking:
            self._note(lacking, app if lacking.budget.is_own else None, accounts)
        return lacking

    def _note(self, lacking: Shortfall, owner: App | None, accounts: Sequence[Account]) -> None:
        """Note a shortfall once, where more is used than what may yet come to nothing."""
        whose = (owner and owner.name, lacking.budget.period)
        account = next((each for each in accounts if (each.app, each.period) == whose), None)
        if account is None or account.is_short or not is_nearly_used(account.used_usd, lacking.limit_usd):
            return
        with self._lock:
            is_first = account.id not in self._noted
            self._noted.add(account.id)
        if not is_first:
            return
        try:
            self._note_short(account.id)
        except StoreUnavailable:
            # Nobody's request fails for it: the next one notes it.
            with self._lock:
                self._noted.discard(account.id)

    def let_in(self, app: App, usd: Decimal) -> None:
        """A job of this app was accepted for the paid API."""
        with self._lock:
            self._coming.append((self._clock(), app.name, usd))

    def _coming_usd(self, app: str | None = None) -> tuple[Decimal, int]:
        """The most that those who were let in lately can cost, an app's or all; and how many they are."""
        with self._lock:
            while self._coming and self._coming[0][0] < self._clock() - COMING_S:
                self._coming.popleft()
            found = [usd for _, name, usd in self._coming if app in (None, name)]
        return sum(found, Decimal(0)), len(found)
