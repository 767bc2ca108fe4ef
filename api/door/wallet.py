"""Checks that the budgets pay for one more job at the paid API, after those that are on their way there.

`headrace.policies.wallet` does the counting. This module reads the balances and records shortfalls.
"""

import threading
import time
from collections.abc import Callable, Collection
from decimal import Decimal
from uuid import UUID

from headrace.cached_value import CachedValue
from headrace.domain.apps import App
from headrace.domain.limits.budgets import Account, Balances, Kind, Lack, Shortfall, short_of
from headrace.errors import StoreUnavailable
from headrace.policies.wallet import Wallet

#: How old the accounts may be, in seconds. The worker checks again before it spends.
ACCOUNTS_TTL_S = 0.5
#: Seconds after its last job for which an app's accounts are read with those of the others.
ASKING_S = 10.0
#: Seconds for which an accepted job is counted here. By then the accounts have its reservation, unless the job waits.
#: It is longer than a reservation takes: the last of a budget is then spent a little later, but never promised twice.
COMING_S = 2.0


class SharedWallet:
    """The wallet of a web process, over cached balances. Safe for many threads."""

    def __init__(
        self,
        read: Callable[[Collection[UUID]], Balances],
        waiting: Callable[[], int],
        note_short: Callable[[UUID, Kind], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read nothing yet.

        Args:
            read: the limits of all apps together, and the accounts of this day and month: those of all apps together,
                and those of the given apps. There may be many thousand apps, but few of them ask at one time.
            waiting: counts the jobs in all queues of the paid API.
            note_short: records that a job found too little left in a nearly used account, with the kind of use.
        """
        self._read, self._clock = read, clock
        self._known = CachedValue(self._read_known, ACCOUNTS_TTL_S)
        #: By app, when it last asked.
        self._asked_at: dict[UUID, float] = {}
        self._waiting = waiting
        self._note_short, self._noted = note_short, set[tuple[UUID, Kind]]()
        self._lock = threading.Lock()
        self._wallet = Wallet(COMING_S, clock)

    def lacking(self, app: App, usd: Decimal) -> Lack | None:
        """Why the budgets do not pay for a job that may cost so much; None when they do.

        Raises: StoreUnavailable. BrokerUnavailable.
        """
        balances, waiting = self._balances(app.id), self._waiting()
        with self._lock:
            lack = self._wallet.lacking(usd, app.name, app.limits, balances, waiting)
        if isinstance(lack, Shortfall):
            whose = (app.name if lack.budget.is_own else None, lack.budget.period)
            account = next((each for each in balances.accounts if (each.app, each.period) == whose), None)
            if account is not None:
                self._note(account, usd, lack.limit_usd)
        return lack

    def _balances(self, app_id: UUID) -> Balances:
        """Balances with this app's accounts."""
        with self._lock:
            self._asked_at[app_id] = self._clock()
        apps, balances = self._known.get()
        # The first job of an app comes between two readings.
        return balances if app_id in apps else self._read([app_id])

    def _read_known(self) -> tuple[Collection[UUID], Balances]:
        with self._lock:
            since = self._clock() - ASKING_S
            self._asked_at = {app_id: at for app_id, at in self._asked_at.items() if at >= since}
            apps = frozenset(self._asked_at)
        return apps, self._read(apps)

    def _note(self, account: Account, usd: Decimal, limit_usd: Decimal) -> None:
        """Record a shortfall once, and only of an account that is nearly used: promises may come to nothing."""
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
            # The request must not fail for this: the next one records it.
            with self._lock:
                self._noted.discard((account.id, kind))

    def let_in(self, app: App, usd: Decimal) -> None:
        """Count a job of this app that was accepted for the paid API."""
        with self._lock:
            self._wallet.promise(app.name, usd)
