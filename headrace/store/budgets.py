"""Accounts of what is spent at the paid API, by each app and by all together, in each day and month of UTC.

The most that a call can cost is reserved in all of its accounts before the call, and what it did cost is spent after
it: reserved and spent never exceed a limit, however many call at once.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection, Row
from sqlalchemy.dialects.postgresql import ARRAY, insert

from headrace.budgets import PERIODS, Budget, Limits, Period, Shortfall, is_nearly_used, shortfall
from headrace.jobs import new_id
from headrace.tables import USD, apps, attempts, budgets

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Account:
    """What one owner has spent in one period.

    Attributes:
        app: its name; None for all apps together.
        reserved_usd: what calls under way may yet cost.
        limit_usd: None for any amount.
        told_percent: the highest threshold that was told of.
        is_short: when it was nearly used up, a call found too little left.
    """

    id: UUID
    app: str | None
    period: Period
    starts_at: datetime
    reserved_usd: Decimal
    spent_usd: Decimal
    limit_usd: Decimal | None
    told_percent: int = 0
    is_short: bool = False

    @property
    def used_usd(self) -> Decimal:
        """What counts against the limit."""
        return self.reserved_usd + self.spent_usd


def reserve(
    db: Connection, job_id: UUID, number: int, app_id: UUID, usd: Decimal, together: Limits
) -> Shortfall | None:
    """Set aside the most that an attempt's call can cost, in every budget or in none.

    Whoever calls holds the job's row. Returns: the budget that has too little left; None when the money is there.
    """
    payer = db.execute(_PAYER, {"of_job": job_id, "of_number": number, "of_app": app_id}).one()
    of_this = {"of_app": app_id, "moment": payer.started_at}
    # Before any is locked: whoever held the month's while it waits for the day's to be made would meet another that
    # waits the other way round.
    if len(db.execute(_FIND, of_this).all()) < 2 * len(PERIODS):
        _open(db, app_id, payer.started_at)
    accounts = db.execute(_LOCK, of_this).all()
    used = {_budget(account): account.reserved_usd + account.spent_usd for account in accounts}
    if lacking := shortfall(usd, used, payer, together):
        if is_nearly_used(used[lacking.budget], lacking.limit_usd):
            note_short(db, next(account.id for account in accounts if _budget(account) == lacking.budget))
        return lacking
    _change(db, accounts, reserved_usd=usd)
    db.execute(_SET_ASIDE, {"of_job": job_id, "of_number": number, "usd": usd})
    return None


def settle(db: Connection, job_id: UUID, number: int, app_id: UUID, usd: Decimal | None) -> Decimal:
    """Spend what an attempt's call has cost, and free what else was reserved for it.

    Safe to repeat: what is settled stays as it is. Whoever calls has moved the job in the same transaction.

    Args:
        usd: what it has cost; None when nobody knows, which counts as all that was reserved.
    Returns: what was spent now.
    """
    this = {"of_job": job_id, "of_number": number}
    held = db.execute(_HELD, this).first()
    if held is None:
        return Decimal(0)
    spent_usd: Decimal = held.reserved_usd if usd is None else usd
    if spent_usd > held.reserved_usd:
        facts = {"job_id": str(job_id), "usd": str(spent_usd), "reserved_usd": str(held.reserved_usd)}
        log.error("call_dearer_than_its_ceiling", extra=facts)
    db.execute(_SET_ASIDE, {**this, "usd": Decimal(0)})
    accounts = db.execute(_LOCK, {"of_app": app_id, "moment": held.started_at}).all()
    _change(db, accounts, reserved_usd=-held.reserved_usd, spent_usd=spent_usd)
    return spent_usd


def note_short(db: Connection, account_id: UUID) -> None:
    """A call has found too little left in this account. Safe to repeat."""
    db.execute(_NOTE_SHORT, {"of_account": account_id})


def tell(db: Connection, account_id: UUID, percent: int) -> bool:
    """Note that this threshold is told of. Returns: False when it was before, or a higher one: tell nobody then."""
    this = (budgets.c.id == account_id, budgets.c.told_percent < percent)
    told = sa.update(budgets).where(*this).values(told_percent=percent).returning(budgets.c.id)
    return db.execute(told).first() is not None


def current(db: Connection, together: Limits) -> list[Account]:
    """The accounts of this day and this month, first those of all apps together, then by name."""
    statement = (
        sa.select(budgets, apps.c.name, apps.c.day_usd, apps.c.month_usd)
        .outerjoin(apps, apps.c.id == budgets.c.app_id)
        .where(_at(sa.func.now()))
        .order_by(apps.c.name.nulls_first(), budgets.c.period)
    )
    return [_account(row, together) for row in db.execute(statement)]


def used(accounts: Sequence[Account], app: str) -> Mapping[Budget, Decimal]:
    """What is spent and reserved in the budgets that a call for this app is paid from."""
    return {
        Budget(account.app is not None, account.period): account.used_usd
        for account in accounts
        if account.app in (None, app)
    }


def _account(row: Row[Any], together: Limits) -> Account:
    limit_usd = _budget(row).limit_usd(row, together)
    amounts = (row.reserved_usd, row.spent_usd, limit_usd)
    return Account(
        row.id, row.name, row.period, row.starts_at, *amounts, row.told_percent, is_short=row.short_at is not None
    )


def _budget(row: Row[Any]) -> Budget:
    return Budget(row.app_id is not None, row.period)


def _start(period: Period, at: Any) -> sa.ColumnElement[datetime]:
    return sa.func.date_trunc(period, at, "UTC", type_=sa.TIMESTAMP(timezone=True))


def _at(moment: Any) -> sa.ColumnElement[bool]:
    """The accounts of the periods that a moment lies in."""
    periods = (sa.and_(budgets.c.period == each, budgets.c.starts_at == _start(each, moment)) for each in PERIODS)
    return sa.or_(*periods)


def _open(db: Connection, app_id: UUID, moment: datetime) -> None:
    rows = [
        {"id": new_id(), "app_id": owner, "period": period, "starts_at": _start(period, moment)}
        for owner in (None, app_id)
        for period in PERIODS
    ]
    db.execute(insert(budgets).values(rows).on_conflict_do_nothing())


def _change(
    db: Connection, accounts: Sequence[Row[Any]], *, reserved_usd: Decimal, spent_usd: Decimal = Decimal(0)
) -> None:
    more = {"more_reserved": reserved_usd, "more_spent": spent_usd}
    db.execute(_CHANGE, {"ids": [account.id for account in accounts], **more})


# Built once: to build a statement takes longer than Postgres takes to carry it out.
_ATTEMPT = (attempts.c.job_id == sa.bindparam("of_job"), attempts.c.number == sa.bindparam("of_number"))
_PAYER = (
    sa.select(attempts.c.started_at, apps.c.day_usd, apps.c.month_usd)
    .join(apps, apps.c.id == sa.bindparam("of_app"))
    .where(*_ATTEMPT)
)
_HELD = (
    sa.select(attempts.c.reserved_usd, attempts.c.started_at)
    .where(*_ATTEMPT, attempts.c.reserved_usd > 0)
    .with_for_update()
)
_SET_ASIDE = sa.update(attempts).where(*_ATTEMPT).values(reserved_usd=sa.bindparam("usd"))
_NOTE_SHORT = (
    sa.update(budgets)
    .where(budgets.c.id == sa.bindparam("of_account"), budgets.c.short_at.is_(None))
    .values(short_at=sa.func.now())
)
_FIND = sa.select(budgets).where(
    sa.or_(budgets.c.app_id == sa.bindparam("of_app"), budgets.c.app_id.is_(None)),
    _at(sa.bindparam("moment", type_=sa.TIMESTAMP(timezone=True))),
)
#: The month's of all apps together first: whoever has it has no other's way to cross, also with calls of several days.
_LOCK = _FIND.order_by(budgets.c.app_id.nulls_first(), budgets.c.period.desc()).with_for_update()
_CHANGE = (
    sa.update(budgets)
    .where(budgets.c.id == sa.any_(sa.bindparam("ids", type_=ARRAY(sa.Uuid))))
    .values(
        reserved_usd=budgets.c.reserved_usd + sa.bindparam("more_reserved", type_=USD),
        spent_usd=budgets.c.spent_usd + sa.bindparam("more_spent", type_=USD),
    )
)
