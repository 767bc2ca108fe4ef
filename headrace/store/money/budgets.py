"""Budgets: what each app and all apps may spend at the paid API, have spent, and have reserved for calls.

An account covers a UTC day or a UTC month. The maximum cost is reserved before a call, and the real cost is spent after
it. Reserved plus spent never exceeds a limit, however many calls run at once. Calls at one time share statements. Where
the accounts' rows stay locked, the end of a call does not wait for them: `settle_late` spends its cost later.
"""

import logging
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from itertools import groupby
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection, Row
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.exc import OperationalError

from headrace.domain.ids import new_id, show_id
from headrace.domain.limits import (
    PERIODS,
    Account,
    Balances,
    Budget,
    Kind,
    Lack,
    Limits,
    Period,
    Shortfall,
    SpendingLimits,
    short_of,
    shortfall,
)
from headrace.logging import named
from headrace.store import LOCK_NOT_AVAILABLE, sqlstate
from headrace.store.sql import delete_chosen, rows_sent
from headrace.tables import USD, apps, attempts, budget_limits, budgets, jobs, unsettled_calls

log = logging.getLogger(__name__)


def limits(db: Connection, configured: Limits) -> SpendingLimits:
    """The limits of all apps together: the stored ones, or else those of the settings."""
    return together(db.execute(_LIMITS).first(), configured)


def together(stored: Any, configured: Limits) -> SpendingLimits:
    """Like `limits`, from a row with the columns `STORED`, or from None."""
    if stored is None or stored.together_set_at is None:
        return SpendingLimits(configured.day_usd, configured.month_usd)
    return SpendingLimits(stored.together_day_usd, stored.together_month_usd, is_stored=True)


def set_limits(db: Connection, changes: Mapping[str, Decimal | None], configured: Limits) -> None:
    """Store limits of all apps together (`day_usd`, `month_usd`); a limit that is not named keeps its present value.

    Args: configured: the settings' limits, which apply until limits are stored.
    """
    row = {"day_usd": configured.day_usd, "month_usd": configured.month_usd, **changes}
    statement = insert(budget_limits).values(row)
    db.execute(statement.on_conflict_do_update(index_elements=["id"], set_={**changes, "set_at": sa.func.now()}))


def clear_limits(db: Connection) -> bool:
    """Delete the stored limits, so that the settings' apply. Returns: False if none were stored."""
    return db.execute(sa.delete(budget_limits).returning(budget_limits.c.id)).first() is not None


def note_short(db: Connection, account_id: UUID, kind: Kind) -> None:
    """Record that a call did not fit this account. Safe to repeat."""
    db.execute(_NOTE_SHORT[kind], {"of_account": account_id})


def tell(db: Connection, account_id: UUID, kind: Kind, percent: int) -> bool:
    """Record the operator's alert for a threshold. Returns: False if this or a higher one was alerted before."""
    alerted = _TOLD[kind]
    statement = sa.update(budgets).where(budgets.c.id == account_id, alerted < percent).values({alerted: percent})
    return db.execute(statement.returning(budgets.c.id)).first() is not None


def note_limit(db: Connection, account: Account) -> None:
    """Keep the limit in force beside what is spent: of all apps together, only the settings may have it."""
    is_new = budgets.c.limit_usd.is_distinct_from(account.limit_usd)
    db.execute(sa.update(budgets).where(budgets.c.id == account.id, is_new).values(limit_usd=account.limit_usd))


def balances(db: Connection, configured: Limits, of: Collection[UUID] | None = None) -> Balances:
    """The current limits and accounts.

    Args:
        configured: the settings' limits.
        of: apps; the accounts of others are left out. None: of all.
    """
    holding = limits(db, configured)
    is_wanted = sa.true() if of is None else sa.or_(budgets.c.app_id.is_(None), budgets.c.app_id.in_(of))
    statement = (
        sa.select(budgets, apps.c.name, apps.c.day_usd, apps.c.month_usd)
        .outerjoin(apps, apps.c.id == budgets.c.app_id)
        .where(periods_at(sa.func.now()), is_wanted)
        .order_by(apps.c.name.nulls_first(), budgets.c.period)
    )
    return Balances(holding, [_account(row, holding) for row in db.execute(statement)])


def _account(row: Row[Any], holding: SpendingLimits) -> Account:
    limit_usd = budget_of(row).limit_usd(row, holding)
    told: dict[Kind, int] = {kind: getattr(row, column.name) for kind, column in _TOLD.items()}
    short = frozenset(kind for kind, column in _SHORT.items() if getattr(row, column.name) is not None)
    return Account(row.id, row.name, row.period, row.starts_at, row.reserved_usd, row.spent_usd, limit_usd, told, short)


def budget_of(row: Row[Any]) -> Budget:
    """The budget that an account's row belongs to."""
    return Budget(row.app_id is not None, row.period)


def start_of(period: Period, at: Any) -> sa.ColumnElement[datetime]:
    """The start of the period that contains a moment."""
    return sa.func.date_trunc(period, at, "UTC", type_=sa.TIMESTAMP(timezone=True))


def periods_at(moment: Any) -> sa.ColumnElement[bool]:
    """A condition: the account's period contains a moment."""
    periods = (sa.and_(budgets.c.period == each, budgets.c.starts_at == start_of(each, moment)) for each in PERIODS)
    return sa.or_(*periods)


_TOLD: Mapping[Kind, sa.Column[int]] = {"spent": budgets.c.told_percent, "reserved": budgets.c.told_reserved_percent}
_SHORT: Mapping[Kind, sa.Column[datetime]] = {"spent": budgets.c.short_at, "reserved": budgets.c.reserved_short_at}

#: The columns that `together` reads: the stored limits of all apps together; all NULL if none are stored.
STORED = (
    budget_limits.c.day_usd.label("together_day_usd"),
    budget_limits.c.month_usd.label("together_month_usd"),
    budget_limits.c.set_at.label("together_set_at"),
)

# Built once: building a statement takes longer than running it.
_LIMITS = sa.select(*STORED)
_NOTE_SHORT = {
    kind: sa.update(budgets)
    .where(budgets.c.id == sa.bindparam("of_account"), column.is_(None))
    .values({column: sa.func.now()})
    for kind, column in _SHORT.items()
}


NOTHING = Decimal(0)
#: Calls that one `settle_late` settles.
LATE_ROWS = 500
_SAVEPOINT = "before_accounts"


@dataclass(frozen=True, slots=True)
class PaidCall:
    """An attempt's call to the paid API.

    Attributes:
        number: of the attempt.
        usd: its maximum cost, or its real cost; None if the real cost is unknown, which counts as all that was
            reserved.
    """

    job_id: UUID
    number: int
    app_id: UUID
    usd: Decimal | None


#: Calls whose attempts began on the same day of UTC, each with its attempt's row.
Day = list[tuple[PaidCall, Row[Any]]]


class _Book:
    """The locked accounts for the calls of one day, and the changes to write to them."""

    def __init__(self, accounts: Sequence[Row[Any]]) -> None:
        self._accounts = accounts
        self._reserved_usd: dict[UUID, Decimal] = defaultdict(Decimal)
        self._spent_usd: dict[UUID, Decimal] = defaultdict(Decimal)

    def of(self, app_id: UUID) -> dict[Budget, Row[Any]]:
        """The accounts that pay for this app's calls."""
        return {budget_of(account): account for account in self._accounts if account.app_id in (None, app_id)}

    def used_usd(self, account: Row[Any]) -> Decimal:
        """What counts against the account's limit."""
        used: Decimal = account.reserved_usd + account.spent_usd
        return used + self._reserved_usd[account.id] + self._spent_usd[account.id]

    def add(self, app_id: UUID, reserved_usd: Decimal, spent_usd: Decimal = NOTHING) -> None:
        """Change the accounts that pay for this app's calls; `write` stores the changes."""
        for account in self.of(app_id).values():
            self._reserved_usd[account.id] += reserved_usd
            self._spent_usd[account.id] += spent_usd

    def write(self, db: Connection) -> None:
        changes = [
            {"id": str(account.id), "reserved": str(self._reserved_usd[account.id]), "spent": str(spent_usd)}
            for account in self._accounts
            if (spent_usd := self._spent_usd[account.id]) or self._reserved_usd[account.id]
        ]
        if changes:
            db.execute(_CHANGE, {"sent": changes})


def reserve(db: Connection, calls: Sequence[PaidCall], configured: Limits) -> dict[UUID, Lack]:
    """Reserve the maximum cost of each call, in all of its budgets or in none.

    The caller holds locks on the jobs' rows. Args: configured: the settings' limits of all apps together.
    Returns: by job, why the budgets do not pay for its call. The other calls have their reservations.
    """
    lacking: dict[UUID, Lack] = {}
    aside: list[tuple[PaidCall, Decimal]] = []
    days = _by_day(_rows_of(db, _PAYERS, calls))
    # Create all accounts before locking any: a transaction that holds the month's row while it waits for a day's insert
    # could deadlock with another that waits the other way round.
    for day in days:
        _open(db, day)
    for day in days:
        book = _Book(_lock(db, day))
        for call, payer in day:
            accounts, usd = book.of(call.app_id), call.usd or NOTHING
            used = {budget: book.used_usd(account) for budget, account in accounts.items()}
            if lack := shortfall(usd, used, payer, together(payer, configured)):
                lacking[call.job_id] = lack
                if isinstance(lack, Shortfall):
                    _note(db, usd, accounts[lack.budget], used[lack.budget], lack.limit_usd)
            else:
                book.add(call.app_id, usd)
                aside.append((call, usd))
        book.write(db)
    _set_aside(db, aside)
    return lacking


def _note(db: Connection, call_usd: Decimal, account: Row[Any], used_usd: Decimal, limit_usd: Decimal) -> None:
    if kind := short_of(call_usd, account.spent_usd, used_usd, limit_usd):
        note_short(db, account.id, kind)


def settle(db: Connection, calls: Sequence[PaidCall]) -> dict[UUID, Decimal]:
    """Spend the real cost of each call, and release the rest of its reservation.

    Safe to repeat: settled calls stay as they are. The caller has moved the jobs in the same transaction. If the
    accounts stay locked, the calls are left to `settle_late`: an answer that is paid for must not be lost by that.
    Returns: by job, the USD spent by this settlement.
    """
    held = _rows_of(db, _HELD, calls)
    _set_aside(db, [(call, NOTHING) for call, _ in held])
    spent = {call.job_id: row.reserved_usd if call.usd is None else call.usd for call, row in held}
    for call, row in held:
        if spent[call.job_id] > row.reserved_usd:
            facts = {"job_id": show_id(call.job_id), "usd": str(call.usd), "reserved_usd": str(row.reserved_usd)}
            log.error("call_dearer_than_its_ceiling", extra=facts)
    if held:
        changes = [(replace(call, usd=spent[call.job_id]), row) for call, row in held]
        try:
            db.exec_driver_sql(f"SAVEPOINT {_SAVEPOINT}")
            _spend(db, changes)
        except OperationalError as error:
            if sqlstate(error) != LOCK_NOT_AVAILABLE:
                raise
            db.exec_driver_sql(f"ROLLBACK TO SAVEPOINT {_SAVEPOINT}")
            db.execute(sa.insert(unsettled_calls), [_late(call, row) for call, row in changes])
            log.warning("accounts_are_locked", extra=named([call.job_id for call, _ in changes]))
    return spent


def settle_late(db: Connection) -> int:
    """Settle calls whose accounts were locked, at most `LATE_ROWS`; returns how many."""
    rows = db.execute(_TAKE_LATE).all()
    _spend(db, [(PaidCall(row.job_id, 0, row.app_id, row.usd), row) for row in rows])
    return len(rows)


def spend(db: Connection, call: PaidCall) -> None:
    """Spend money that nothing reserved: a provider has billed it all the same. Today's accounts pay.

    Last in its transaction, as `settle`, and not safe to repeat.
    """
    row: Any = db.execute(_UNRESERVED).one()
    _open(db, [(call, row)])
    _spend(db, [(call, row)])


def _late(call: PaidCall, row: Row[Any]) -> dict[str, Any]:
    whose = {"job_id": call.job_id, "app_id": call.app_id, "started_at": row.started_at}
    return {**whose, "reserved_usd": row.reserved_usd, "usd": call.usd}


def _spend(db: Connection, calls: list[tuple[PaidCall, Row[Any]]]) -> None:
    """Replace what is reserved for each call by its real cost.

    Last, with one statement after the lock, to hold it briefly: every call of every app needs these rows.
    """
    for day in _by_day(calls):
        book = _Book(_lock(db, day))
        for call, row in day:
            book.add(call.app_id, -row.reserved_usd, call.usd or NOTHING)
        book.write(db)


def _rows_of(db: Connection, statement: sa.Select[Any], calls: Sequence[PaidCall]) -> list[tuple[PaidCall, Row[Any]]]:
    """The calls whose attempts the statement finds, each with its row."""
    rows = db.execute(statement, {"job_ids": [call.job_id for call in calls]}).all() if calls else []
    found = {(row.job_id, row.number): row for row in rows}
    return [(call, row) for call in calls if (row := found.get((call.job_id, call.number))) is not None]


def _by_day(found: list[tuple[PaidCall, Row[Any]]]) -> list[Day]:
    """The calls by the UTC day on which their attempts began; earlier days first, so that all lock in one order."""
    in_order = sorted(found, key=lambda each: each[1].started_at)
    return [list(day) for _, day in groupby(in_order, key=lambda each: each[1].started_at.date())]


def _open(db: Connection, day: Day) -> None:
    these = _of(day)
    if len(db.execute(_FIND, these).all()) < len(PERIODS) * (1 + len(these["app_ids"])):
        rows = [
            {"id": new_id(), "app_id": owner, "period": period, "starts_at": start_of(period, these["moment"])}
            for owner in (None, *these["app_ids"])
            for period in PERIODS
        ]
        db.execute(insert(budgets).values(rows).on_conflict_do_nothing())


def _lock(db: Connection, day: Day) -> Sequence[Row[Any]]:
    """Lock the accounts of the day and of its month for these calls."""
    return db.execute(_LOCK, _of(day)).all()


def _of(day: Day) -> dict[str, Any]:
    return {"app_ids": sorted({call.app_id for call, _ in day}), "moment": day[0][1].started_at}


def _set_aside(db: Connection, amounts: Sequence[tuple[PaidCall, Decimal]]) -> None:
    """Write to the attempts' rows what is reserved for their calls."""
    sent = [{"job_id": str(call.job_id), "number": call.number, "usd": str(usd)} for call, usd in amounts]
    if sent:
        db.execute(_SET_ASIDE, {"sent": sent, "job_ids": [call.job_id for call, _ in amounts]})


def _sent(columns: Mapping[str, Any]) -> Any:
    """The rows of the JSON parameter `sent`."""
    typed = (sa.column(name, type_) for name, type_ in columns.items())
    return rows_sent("sent", typed)


# Built once: building a statement takes longer than running it.
_THESE = attempts.c.job_id == sa.any_(sa.bindparam("job_ids", type_=ARRAY(sa.Uuid)))
_NAMED = (attempts.c.job_id, attempts.c.number, attempts.c.started_at)
_PAYERS = (
    sa.select(*_NAMED, apps.c.day_usd, apps.c.month_usd, *STORED)
    .join(jobs, jobs.c.id == attempts.c.job_id)
    .join(apps, apps.c.id == jobs.c.app_id)
    .outerjoin(budget_limits, sa.true())
    .where(_THESE)
)
_HELD = sa.select(*_NAMED, attempts.c.reserved_usd).where(_THESE, attempts.c.reserved_usd > 0).with_for_update()
_FIND = sa.select(budgets).where(
    sa.or_(budgets.c.app_id == sa.any_(sa.bindparam("app_ids", type_=ARRAY(sa.Uuid))), budgets.c.app_id.is_(None)),
    periods_at(sa.bindparam("moment", type_=sa.TIMESTAMP(timezone=True))),
)
#: The month's account of all apps together comes first. A transaction that holds it cannot deadlock over the others,
#: also with calls of several days.
_LOCK = _FIND.order_by(budgets.c.app_id.nulls_first(), budgets.c.period.desc()).with_for_update()
_changes = _sent({"id": sa.Uuid, "reserved": USD, "spent": USD})
_CHANGE = (
    sa.update(budgets)
    .where(budgets.c.id == _changes.c.id)
    .values(reserved_usd=budgets.c.reserved_usd + _changes.c.reserved, spent_usd=budgets.c.spent_usd + _changes.c.spent)
)
_amounts = _sent({"job_id": sa.Uuid, "number": attempts.c.number.type, "usd": USD})
_SET_ASIDE = (
    sa.update(attempts)
    .where(attempts.c.job_id == _amounts.c.job_id, attempts.c.number == _amounts.c.number, _THESE)
    .values(reserved_usd=_amounts.c.usd)
)
_UNRESERVED = sa.select(sa.func.now().label("started_at"), sa.literal(NOTHING, USD).label("reserved_usd"))
_LATE = (
    sa.select(unsettled_calls.c.id).order_by(unsettled_calls.c.id).limit(LATE_ROWS).with_for_update(skip_locked=True)
)
_TAKE_LATE = delete_chosen(_LATE, unsettled_calls).returning(unsettled_calls)
