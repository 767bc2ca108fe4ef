"""`/ops/bills`: providers' bills beside the ledger."""

from flask import Blueprint, render_template, request

from headrace.store import clock
from ops.deps import deps
from ops.forms import MonthForm, checked
from ops.hooks import PagesPart
from ops.money import FIRST_MONTH, after, before, month_of
from plugins.bills import store
from plugins.bills.checks import HARMLESS

blueprint = Blueprint("bills", __name__, template_folder="templates")
PART = PagesPart(blueprint=blueprint, link=("bills.show_bills", "Bills"))
#: The most differences on the page.
DIFFERENCES = 200


@blueprint.get("/bills")
def show_bills() -> str:
    """The bills of one month beside the ledger; by default those of the month before."""
    form = checked(MonthForm(request.args))
    with deps().store.read() as db:
        present = month_of(None, clock.now(db))
        month = month_of(form.month.data, present) if form.month.data else before(present)
        until = after(month)
        found = {
            "month": month,
            "before": before(month) if month > FIRST_MONTH else None,
            "after": until if until <= clock.now(db) else None,
            "sums": store.sums(db, month, until),
            "differences": store.differences(db, month, until, DIFFERENCES),
            "most": DIFFERENCES,
            "harmless": HARMLESS,
        }
    return render_template("bills.html", **found)
