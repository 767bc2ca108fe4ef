"""`/ops/budgets`: what was spent at the paid API, and its limits; change those of all apps together."""

from flask import Blueprint, flash, redirect, render_template, url_for
from werkzeug.wrappers import Response

from headrace.domain.limits.budgets import SpendingLimits, share
from headrace.domain.operators.accounts import Right
from headrace.store import actions
from headrace.store.money import budgets as store
from ops.deps import deps
from ops.forms import BudgetForm, checked
from ops.gate import acting, needs

blueprint = Blueprint("budgets", __name__)


@blueprint.get("/budgets")
def show() -> str:
    """The budgets."""
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


@blueprint.post("/budgets")
def change() -> Response:
    """Replace the limits of all apps together. They override those of the settings."""
    needs(Right.MANAGE)
    form = checked(BudgetForm())
    changes = {"day_usd": form.usd("day_usd"), "month_usd": form.usd("month_usd")}
    with acting() as audit:
        actions.set_budgets(audit, changes, deps().settings.budgets)
    flash("The limits hold at once.")
    return redirect(url_for("budgets.show"), 303)


@blueprint.post("/budgets/unset")
def unset() -> Response:
    """Delete the stored limits, so that those of the settings hold again."""
    needs(Right.MANAGE)
    with acting() as audit:
        actions.unset_budgets(audit, deps().settings.budgets)
    flash("The limits of the settings hold again.")
    return redirect(url_for("budgets.show"), 303)
