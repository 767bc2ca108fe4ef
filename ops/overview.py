"""`/ops/`: what runs, what is wrong and what to do, and what it costs, at one glance. It refreshes itself."""

from flask import Blueprint, render_template, request, url_for

from headrace.broker import overview
from headrace.policies.health import problems, processes_of
from ops.deps import deps

blueprint = Blueprint("overview", __name__)

#: Seconds until the page is asked for again.
REFRESH_S = 3
#: Processes on the page: first those that do not live, then those that lost a life lately.
PROCESS_ROWS = 60
#: Where each kind of problem is seen in full.
_PAGES = {
    "batches": "batches.list_newest",
    "budgets": "budgets.show_budgets",
    "deliveries": "deliveries.list_deliveries",
    "hosts": "hosts.list_hosts",
    "queues": "queues.list_queues",
}


@blueprint.get("/")
def show() -> str:
    """The first page."""
    parts = deps()
    found = overview.read(parts.store, parts.admission, parts.settings, parts.forecast.wait_if_submitted_s)
    facts = found.facts
    processes = sorted(processes_of(facts.lives), key=lambda each: (each.state == "live", -len(each.lost_s)))
    return render_template(
        "overview.html",
        now=found.now,
        problems=[(each, _link(each.page)) for each in problems(facts)],
        processes=processes[:PROCESS_ROWS],
        more_processes=max(0, len(processes) - PROCESS_ROWS),
        facts=facts,
        hosts_usd=found.hosts_usd,
        paid_usd=found.paid_usd,
        refresh_s=None if "still" in request.args else REFRESH_S,
    )


def _link(page: str | None) -> str | None:
    if page == "processes":
        return "#processes"
    if page == "failed":
        return url_for("jobs.list_newest", state="dead")
    # A plugin's problem names its page itself.
    return url_for(_PAGES.get(page, page)) if page else None
