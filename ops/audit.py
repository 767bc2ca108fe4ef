"""`/ops/audit`: what operators did, at the pages, in a terminal and by Flower."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from flask import Blueprint, render_template, request

from headrace.store import apps
from headrace.store import audit as store
from headrace.store.audit import Entry, WantedEntries
from ops.deps import deps
from ops.forms import AuditFilter, checked

blueprint = Blueprint("audit", __name__)

#: Rows on one page.
PAGE_ROWS = 100


@blueprint.get("/audit")
def list_newest() -> str:
    """The newest rows that fit the filter."""
    form: AuditFilter = checked(AuditFilter(request.args))
    since, until = form.days()
    with deps().store.read() as db:
        wanted = WantedEntries(
            actor=form.actor.data,
            action=form.action.data or None,
            app_id=apps.find_app(db, form.app.data).id if form.app.data else None,
            since=since,
            until=until,
            before=int(form.before.data) if form.before.data else None,
        )
        found = store.newest(db, wanted, PAGE_ROWS)
    given = {name: value for name, value in form.data.items() if value and name != "before"}
    older = {**given, "before": found[-1].id} if len(found) == PAGE_ROWS else None
    rows = [(entry, list(_details(entry))) for entry in found]
    return render_template("audit.html", form=form, rows=rows, older=older, is_filtered=bool(given))


def _details(entry: Entry) -> Iterator[tuple[str, str]]:
    """What the row says beside its subject: a name and a value, or what a value was and is."""
    before, after = (_table(entry.details.get(name)) for name in ("before", "after"))
    for name in dict.fromkeys((*before, *after)):
        if before.get(name) != after.get(name):
            yield name, f"{_text(before.get(name))} → {_text(after.get(name))}"
    for name, value in entry.details.items():
        if not (name in ("before", "after") and isinstance(value, Mapping)):
            yield name, _text(value)


def _table(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(value: Any) -> str:
    match value:
        case None | []:
            return "none"
        case bool():
            return "yes" if value else "no"
        case list():
            return ", ".join(map(_text, value))
        case Mapping():
            return json.dumps(value)
    return str(value)
