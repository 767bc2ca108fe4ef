"""Whether there is money for one more job at the paid API, also for those that are on their way there.

The counting is `headrace.policies.wallet`. Here the balances are read, and shortfalls are noted.
"""

import threading
import time
from collections.abc import Callable
from decimal import Decimal
from uuid import UUID

from api.door.cached_value import CachedValue
from headrace.domain.apps import App
from headrace.domain.budgets import Account, Balances, Kind, Lack, Shortfall, short_of
from headrace.errors import StoreUnavailable
from headrace.policies.wallet import Wallet

#: How old the accounts may be, in seconds. The worker looks again before it spends.
ACCOUNTS_TTL_S = 0.5
#: How long a job counts that was let in here: by then the accounts have it, unless it waits. Longer than that takes: a
#: budget that is nearly used up is spent a little later, and nobody is let in for whom nothing is left.
COMING_S = 2.0


class SharedWallet:
    """The wallet of a web process, over balances of a moment ago. Safe for many threads."""

    def __init__(
        self,
        read: Callable[[], Balances],
        waiting: Callable[[], int],
        note_short: Callable[[UUID, Kind], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read nothing yet.

        Args:
            read: the limits of all apps together, and the accounts of this day and month.
            waiting: jobs in the queues of the paid API, in all.
            note_short: notes, of an account that is nearly used up, that a job found too little left, and by which
                kind of use.
        """
        self._balances = CachedValue(read, ACCOUNTS_TTL_S)
        self._waiting = waiting
        self._note_short, self._noted = note_short, set[tuple[UUID, Kind]]()
        self._lock = threading.Lock()
        self._wallet = Wallet(COMING_S, clock)

    def lacking(self, app: App, usd: Decimal) -> Lack | None:
        """Why no budget pays for a job that may cost so much; None when one does.

        Raises: StoreUnavailable. BrokerUnavailable.
        """
        balances, waiting = self._balances.get(), self._waiting()
        with self._lock:
            lack = self._wallet.lacking(usd, app.name, app.limits, balances, waiting)
        if isinstance(lack, Shortfall):
            whose = (app.name if lack.budget.is_own else None, lack.budget.period)
            account = next((each for each in balances.accounts if (each.app, each.period) == whose), None)
            if account is not None:
                self._note(account, usd, lack.limit_usd)
        return lack

    def _note(self, account: Account, usd: Decimal, limit_usd: Decimal) -> None:
        """Note a shortfall once, where more is used than what may yet come to nothing."""
        kind = short_of(usd, account.spent_usd, account.used_usd, limit_usd)
        if kind is None or kind in account.short:
            return
        with self._lock:
            is_first = (account.id, kind) not in self._noted
            self._noted.add((account.id, kind))
        if not is_first:
            return
        try:
            self._note_short(account.id, kind)
        except StoreUnavailable:
            # No request fails for it: the next one notes it.
            with self._lock:
                self._noted.discard((account.id, kind))

    def let_in(self, app: App, usd: Decimal) -> None:
        """A job of this app was accepted for the paid API."""
        with self._lock:
            self._wallet.promise(app.name, usd)
