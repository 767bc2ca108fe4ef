"""`/ops/cost`: what a month cost: the bill of the hosts, the apps' charges, savings and the split point."""

from datetime import UTC, datetime

from flask import Blueprint, render_template, request

from headrace.store import clock
from headrace.store.money import costs, trends
from ops.deps import deps
from ops.forms import MonthForm, checked

blueprint = Blueprint("cost", __name__)

#: The first month that `MonthForm` accepts.
FIRST_MONTH = datetime(2000, 1, 1, tzinfo=UTC)


@blueprint.get("/cost")
def show() -> str:
    """One month; by default the present one."""
    form = checked(MonthForm(request.args))
    with deps().store.read() as db:
        month = month_of(form.month.data, clock.now(db))
        until = after(month)
        found = {
            "month": month,
            "before": before(month) if month > FIRST_MONTH else None,
            "after": until if until <= clock.now(db) else None,
            "cost": costs.month(db, month, until),
            "splits": trends.split_points(db, month, until),
        }
    return render_template("cost.html", **found)


def month_of(text: str | None, now: datetime) -> datetime:
    """The start of a checked month such as `2026-03`; without one, of the present month."""
    if text:
        return datetime(int(text[:4]), int(text[5:]), 1, tzinfo=UTC)
    return datetime(now.year, now.month, 1, tzinfo=UTC)


def after(month: datetime) -> datetime:
    """The start of the next month."""
    return month.replace(year=month.year + month.month // 12, month=month.month % 12 + 1)


def before(month: datetime) -> datetime:
    """The start of the month before."""
    return month.replace(year=month.year - (month.month == 1), month=(month.month - 2) % 12 + 1)
