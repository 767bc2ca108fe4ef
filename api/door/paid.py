"""The paid API at the door: its prices, when a queue spills to it, and whether the budgets pay for one more job."""

import logging
import threading
import time
from collections.abc import Callable, Collection
from decimal import Decimal
from uuid import UUID

from headrace.broker.forecast import Forecast
from headrace.cached_value import CachedValue
from headrace.config import OverflowSettings
from headrace.domain.apps import App
from headrace.domain.limits import Account, Balances, Kind, Lack, Shortfall, short_of
from headrace.errors import StoreUnavailable, Unavailable
from headrace.policies.overflow import Wallet
from headrace.policies.pricing import Tariff
from headrace.policies.routing import spill_reason

log = logging.getLogger(__name__)

#: How old the prices may be, in seconds. The worker prices again before it calls.
TARIFF_TTL_S = 5.0


class CurrentTariff:
    """The tariff in force, cached. Safe for many threads."""

    def __init__(self, read: Callable[[], Tariff], settings_alone: Tariff) -> None:
        """Read nothing yet. Args: settings_alone: what counts until Postgres has answered once."""
        self._cached = CachedValue(read, TARIFF_TTL_S)
        self._last = settings_alone

    def __call__(self) -> Tariff:
        """The tariff; during an outage of Postgres, the last one."""
        try:
            self._last = self._cached.get()
        except StoreUnavailable as error:
            log.warning("prices_not_read", extra={"error": str(error)})
        return self._last


class SpillSwitch:
    """Applies `routing.spill_reason` to each queue as it stood a moment ago. Safe for many threads.

    A queue has two switches: one for jobs that cost less at the paid API than on another host, one for all others.
    """

    def __init__(self, forecast: Forecast, overflow: OverflowSettings) -> None:
        """Begin with every queue switched off."""
        self._forecast, self._overflow = forecast, overflow
        self._on: set[tuple[str, bool]] = set()

    def spill_reason(self, queue: str, *, is_cheaper: bool) -> str | None:
        """Why the queue's new jobs should go to the paid API first; None while they need not, or on an outage.

        Args: is_cheaper: of jobs that cost less there than on another host.
        """
        try:
            pressure = self._forecast.pressure(queue)
        except Unavailable:
            return None
        switch = queue, is_cheaper
        was_on = switch in self._on
        reason = spill_reason(pressure, self._overflow, is_on=was_on, is_cheaper=is_cheaper)
        if was_on != (reason is not None):
            about = {"queue": queue, "is_cheaper": is_cheaper, "is_on": not was_on, "jobs": pressure.jobs}
            log.info("overflow_relief", extra=about)
        if reason is None:
            self._on.discard(switch)
        else:
            self._on.add(switch)
        return reason


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
