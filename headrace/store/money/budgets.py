"""Limits of all apps together, and accounts of what each app and all apps spend at the paid API.

An account covers a UTC day or a UTC month. `store.reservations` changes the accounts.
"""

import logging
from collections.abc import Collection, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection, Row
from sqlalchemy.dialects.postgresql import insert

from headrace.domain.limits.budgets import PERIODS, Account, Balances, Budget, Kind, Limits, Period, SpendingLimits
from headrace.tables import apps, budget_limits, budgets

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
    told = _TOLD[kind]
    statement = sa.update(budgets).where(budgets.c.id == account_id, told < percent).values({told: percent})
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
