"""`/ops/budgets`, `/ops/cost`, `/ops/caches`: limits, costs, and what caches saved."""

from datetime import UTC, datetime, timedelta

from flask import Blueprint, flash, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from headrace.domain.limits import SpendingLimits, share
from headrace.domain.operators import Right
from headrace.store import actions, clock
from headrace.store.cache import cache_figures, semantic_cache
from headrace.store.money import budgets as store
from headrace.store.money import costs
from headrace.store.money.host_hours import HostTerms
from ops.deps import deps
from ops.forms import BudgetForm, MonthForm, Periods, checked
from ops.gate import acting, needs

budgets = Blueprint("budgets", __name__)


@budgets.get("/budgets")
def show_budgets() -> str:
    with deps().store.read() as db:
        balances = store.balances(db, deps().settings.budgets)
    rows = [
        (account, None if account.limit_usd is None else share(account.used_usd, account.limit_usd))
        for account in balances.accounts
    ]
    return render_template("budgets.html", together=balances.together, rows=rows, form=_form(balances.together))


def _form(together: SpendingLimits) -> BudgetForm:
    amounts = {"day_usd": together.day_usd, "month_usd": together.month_usd}
    shown = {name: None if usd is None else f"{usd.normalize():f}" for name, usd in amounts.items()}
    return BudgetForm(formdata=None, data=shown)


@budgets.post("/budgets")
def change_budgets() -> Response:
    """Replace the limits of all apps together. They override those of the settings."""
    needs(Right.MANAGE)
    form = checked(BudgetForm())
    changes = {"day_usd": form.usd("day_usd"), "month_usd": form.usd("month_usd")}
    with acting() as audit:
        actions.set_budgets(audit, changes, deps().settings.budgets)
    flash("The limits hold at once.")
    return redirect(url_for("budgets.show_budgets"), 303)


@budgets.post("/budgets/unset")
def unset_budgets() -> Response:
    """Delete the stored limits, so that those of the settings hold again."""
    needs(Right.MANAGE)
    with acting() as audit:
        actions.unset_budgets(audit, deps().settings.budgets)
    flash("The limits of the settings hold again.")
    return redirect(url_for("budgets.show_budgets"), 303)


cost = Blueprint("cost", __name__)

#: The first month that `MonthForm` accepts.
FIRST_MONTH = datetime(2000, 1, 1, tzinfo=UTC)


@cost.get("/cost")
def show_cost() -> str:
    """One month; by default the present one."""
    form = checked(MonthForm(request.args))
    with deps().store.read() as db:
        month = month_of(form.month.data, clock.now(db))
        until = after(month)
        found = {
            "month": month,
            "before": before(month) if month > FIRST_MONTH else None,
            "after": until if until <= clock.now(db) else None,
            "cost": costs.month(db, month, until, HostTerms.of(deps().settings)),
            "splits": costs.split_points(db, month, until),
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


caches = Blueprint("caches", __name__)


@caches.get("/caches")
def show_caches() -> str:
    """The pools' settings, and the figures of some hours."""
    form: Periods = checked(Periods(request.args))
    pools = {name: pool for name, pool in deps().settings.pools.items() if not pool.is_embedding}
    with deps().store.read() as db:
        since = clock.now(db) - timedelta(hours=int(form.hours.data))
        found = {
            "form": form,
            "pools": pools,
            "saved": cache_figures.saved(db, since),
            "learned": cache_figures.learned(db, since),
            "most_entries": semantic_cache.MOST_ENTRIES,
            "has_vectors": semantic_cache.has_vectors(db),
        }
    return render_template("caches.html", **found)
