"""`/ops/batches`: all apps' batches, one batch's times, files and lines, and its cancel."""

from datetime import datetime
from typing import Any
from uuid import UUID

from flask import Blueprint, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from markupsafe import Markup
from werkzeug.wrappers import Response
from wtforms import Field, Form

from headrace.domain.ids import show_id
from headrace.domain.operators import Right
from headrace.errors import InvalidRequest, NotFound
from headrace.policies.webhooks import origin
from headrace.store import apps, clock
from ops.deps import deps
from ops.forms import checked, choice, text_field
from ops.gate import acting, may, needs
from ops.hooks import PagesPart
from plugins.batches import store
from plugins.batches.domain import BATCH_PREFIX, FILE_PREFIX, Batch, BatchState, LineState, parse_batch_id
from plugins.batches.store import provider_batches

blueprint = Blueprint("batches", __name__, template_folder="templates")

#: Batches on one page.
PAGE_ROWS = 50


class BatchFilter(Form):
    """Which batches are listed."""

    state = choice("State", [state.value for state in BatchState])
    app = text_field("App")
    before = text_field("Before", chars=60)

    def last_seen(self) -> UUID | None:
        """The id of the last batch of the page before. Raises: InvalidRequest."""
        return _batch_id(self.before)


def _batch_id(field: Field) -> UUID | None:
    try:
        return parse_batch_id(field.data) if field.data else None
    except NotFound as error:
        raise InvalidRequest(f"{field.label.text}: it is not the id of a batch.", param=field.name) from error


@blueprint.get("/batches")
def list_newest() -> ResponseReturnValue:
    """The newest batches that fit the filter; with `?id=`, one batch's page."""
    if batch_id := request.args.get("id", "").strip():
        return redirect(url_for("batches.show", batch_id=show_id(parse_batch_id(batch_id), BATCH_PREFIX)))
    form = checked(BatchFilter(request.args))
    with deps().store.read() as db:
        app_id = apps.find_app(db, form.app.data).id if form.app.data else None
        state = BatchState(form.state.data) if form.state.data else None
        found = store.newest(db, app_id, limit=PAGE_ROWS, after=form.last_seen(), state=state)
        owners, now = apps.by_id(db, {batch.app_id for batch in found}), clock.now(db)
    given = {name: value for name, value in form.data.items() if value and name != "before"}
    older = {**given, "before": show_id(found[-1].id, BATCH_PREFIX)} if len(found) == PAGE_ROWS else None
    rows = [(owners[batch.app_id].name, batch, _share(batch)) for batch in found]
    return render_template("batches.html", form=form, rows=rows, now=now, older=older, is_filtered=bool(given))


@blueprint.get("/batches/<batch_id>")
def show(batch_id: str) -> str:
    with deps().store.read() as db:
        batch = store.find(db, None, parse_batch_id(batch_id))
        app, lines = apps.by_id(db, [batch.app_id])[batch.app_id], store.line_states(db, batch.id)
        at_provider = provider_batches.of_batch(db, batch.id)
    return render_template(
        "batch.html",
        app=app.name,
        batch=batch,
        batch_id=show_id(batch.id, BATCH_PREFIX),
        share=_share(batch),
        times=_times(batch),
        lines={state: lines.get(state, 0) for state in LineState} if lines else {},
        facts=_facts(batch),
        at_provider=at_provider,
        errors=[(error.line, error.code, error.message if may(Right.TEXTS) else "") for error in batch.errors],
        can_cancel=batch.state in store.CANCELLABLE,
    )


@blueprint.post("/batches/<batch_id>/cancel")
def cancel(batch_id: str) -> Response:
    """Cancel a batch. The process `plugins` ends its lines."""
    needs(Right.ACT)
    with acting() as audit:
        batch = store.cancel_by_operator(audit, parse_batch_id(batch_id))
    if batch.state is BatchState.CANCELLING:
        flash("No line starts any more; those that run are asked to stop.")
    else:
        flash(f"It is {batch.state}.")
    return redirect(url_for("batches.show", batch_id=show_id(batch.id, BATCH_PREFIX)), 303)


def batch_link(batch_id: UUID) -> Markup:
    """A batch's id as a link to its page."""
    shown = show_id(batch_id, BATCH_PREFIX)
    return Markup('<a class="id" href="{}">{}</a>').format(_url(shown), shown)


blueprint.add_app_template_filter(batch_link)


def _share(batch: Batch) -> float | None:
    """The share of the lines that have ended; None before the file is read."""
    return (batch.completed + batch.failed) / batch.total if batch.total else None


def _times(batch: Batch) -> dict[str, datetime]:
    """When it reached each state, and what is set, in the order of time."""
    times: dict[str, datetime | None] = {
        "created": batch.created_at,
        "not before": batch.not_before,
        **{str(state).replace("_", " "): at for state, at in batch.times.items()},
        "end of its window": batch.expires_at,
    }
    return dict(sorted(((name, at) for name, at in times.items() if at is not None), key=lambda each: each[1]))


def _facts(batch: Batch) -> dict[str, Any]:
    """What is shown beside its times and lines. Its metadata may be about people, and is not."""
    url, usage = batch.webhook_url, batch.usage
    files = {name: getattr(batch, name) for name in ("input_file_id", "output_file_id", "error_file_id")}
    return {
        **{name: file_id and show_id(file_id, FILE_PREFIX) for name, file_id in files.items()},
        "completion_window": batch.completion_window,
        "overflow": batch.overflow,
        "prompt_tokens": usage.prompt,
        "cached_tokens": usage.cached,
        "output_tokens": usage.output,
        "reasoning_tokens": usage.reasoning,
        "usd": usage.usd,
        "webhook": url and (url if may(Right.TEXTS) else origin(url)),
        "output_keep_s": batch.output_keep_s,
    }


def _url(noted: str) -> str:
    return url_for("batches.show", batch_id=noted)


PART = PagesPart(blueprint=blueprint, link=("batches.list_newest", "Batches"), note_url=_url)
