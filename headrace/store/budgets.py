"""Accounts of what is spent at the paid API, by each app and by all together, in each day and month of UTC.

What changes them is in `store.reservations`.
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

from headrace.budgets import PERIODS, Budget, Limits, Period
from headrace.tables import apps, budgets

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
        .where(periods_at(sa.func.now()))
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
    limit_usd = budget_of(row).limit_usd(row, together)
    amounts = (row.reserved_usd, row.spent_usd, limit_usd)
    return Account(
        row.id, row.name, row.period, row.starts_at, *amounts, row.told_percent, is_short=row.short_at is not None
    )


def budget_of(row: Row[Any]) -> Budget:
    """Which of a call's budgets an account is, by its row."""
    return Budget(row.app_id is not None, row.period)


def start_of(period: Period, at: Any) -> sa.ColumnElement[datetime]:
    """When the period began that a moment lies in."""
    return sa.func.date_trunc(period, at, "UTC", type_=sa.TIMESTAMP(timezone=True))


def periods_at(moment: Any) -> sa.ColumnElement[bool]:
    """The accounts of the periods that a moment lies in."""
    periods = (sa.and_(budgets.c.period == each, budgets.c.starts_at == start_of(each, moment)) for each in PERIODS)
    return sa.or_(*periods)


# Built once: to build a statement takes longer than Postgres takes to carry it out.
_NOTE_SHORT = (
    sa.update(budgets)
    .where(budgets.c.id == sa.bindparam("of_account"), budgets.c.short_at.is_(None))
    .values(short_at=sa.func.now())
)
