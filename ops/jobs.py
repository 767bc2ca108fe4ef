"""`/ops/jobs` and `/ops/deliveries`: search, one job's life and bill, and its webhooks; retry and cancel."""

from dataclasses import replace
from typing import Any
from uuid import UUID

from flask import Blueprint, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from sqlalchemy import Connection
from werkzeug.wrappers import Response

from headrace.broker import ending
from headrace.domain.ids import parse_id, show_id
from headrace.domain.operators import Right
from headrace.domain.queues import OVERFLOW
from headrace.domain.states import JobState
from headrace.errors import InvalidRequest, NotFound, Unavailable
from headrace.policies.webhooks import origin
from headrace.store import actions, apps, clock
from headrace.store import deliveries as store
from headrace.store.jobs import overview, queued
from headrace.store.jobs.overview import Event, History, Wanted, history, is_poison, suspicion_in_words, timeline
from ops import waiting
from ops.deps import deps
from ops.forms import DeliveryFilter, JobFilter, checked
from ops.gate import acting, may, needs
from ops.waiting import Surroundings

jobs = Blueprint("jobs", __name__)

#: Jobs on one page.
PAGE_ROWS = 50
#: What is shown of a job apart from its timeline.
FACTS = (
    *("lane", "pool", "queue", "route", "route_reason", "overflow", "model_requested", "model_served", "adapter"),
    *(
        "end_user",
        "prompt_tokens",
        "max_tokens",
        "n",
        "output_tokens",
        "cached_tokens",
        "reasoning_tokens",
    ),
    *("finish_reason", "error_code", "usd", "max_cost_usd", "attempt", "suspicion", "background", "stream"),
    *("created_at", "queued_at", "started_at", "ended_at", "start_by", "finish_by", "not_before"),
)


@jobs.get("/jobs")
def list_newest() -> ResponseReturnValue:
    """The newest jobs that fit the filter; with `?id=`, one job's page."""
    if job_id := request.args.get("id", "").strip():
        return redirect(url_for("jobs.show", job_id=show_id(parse_id(job_id))))
    form = JobFilter(request.args)
    try:
        with deps().store.read() as db:
            wanted = _wanted(db, checked(form))
            found, of_all_pages = overview.newest(db, wanted, PAGE_ROWS), replace(wanted, before=None)
            totals, is_cut = overview.totals(db, of_all_pages), overview.looked_back_to(db, of_all_pages) is not None
            looked_back_to = overview.looked_back_to(db, wanted) if len(found) < PAGE_ROWS else None
    except (InvalidRequest, NotFound) as error:
        # With the form as it was filled in: one field is wrong, the others need not be typed again.
        return render_template("jobs.html", form=form, jobs=[], older=None, is_filtered=True, problem=str(error)), 400
    given = {name: value for name, value in form.data.items() if value and name != "before"}
    older = {**given, "before": show_id(found[-1].id)} if len(found) == PAGE_ROWS else None
    if looked_back_to is not None:
        older = {**given, "until": f"{looked_back_to:%Y-%m-%dT%H:%M:%S}"}
    shown = {"jobs": found, "totals": totals, "is_cut": is_cut, "older": older}
    return render_template("jobs.html", form=form, is_filtered=bool(given), problem=None, **shown)


def _wanted(db: Connection, form: JobFilter) -> Wanted:
    is_dead = form.state.data == "dead"
    app_id = apps.find_app(db, form.app.data).id if form.app.data else None
    return Wanted(
        app_id=app_id,
        is_dead=is_dead,
        state=JobState(form.state.data) if form.state.data and not is_dead else None,
        lane=form.lane.data or None,
        since=form.moment("since"),
        until=form.moment("until"),
        before=form.last_seen(),
        error_code=form.error_code.data,
        end_user=form.end_user.data,
        model=form.model.data,
        note=form.noted(),
        queue=form.queue.data or None,
        metadata=form.pair(),
    )


@jobs.get("/jobs/<job_id>")
def show(job_id: str) -> str:
    with deps().store.read() as db:
        found = history(db, parse_id(job_id))
        around = _around(db, found.job)
    events = sorted(timeline(found), key=lambda event: event.at)
    return render_template(
        "job.html",
        job=found.job,
        job_id=show_id(found.job.id),
        facts={name: getattr(found.job, name) for name in FACTS},
        reasons=waiting.reasons(found.job, around),
        suspicion=suspicion_in_words(found.job),
        is_poison=is_poison(found.job),
        attempts=found.attempts,
        charges=found.charges,
        events=events if may(Right.TEXTS) else [_reduced(event) for event in events],
        can_retry=found.job.state == JobState.FAILED and found.job.retried_as is None,
        can_cancel=not JobState(found.job.state).is_terminal and found.job.cancel_requested_at is None,
    )


@jobs.get("/jobs/<job_id>/texts")
def texts(job_id: str) -> str:
    """One job's prompt and answer. The audit log has each look."""
    needs(Right.TEXTS)
    with acting() as audit:
        found = actions.read_texts(audit, parse_id(job_id))
    return render_template("texts.html", job_id=show_id(found.job.id), **_texts(found))


@jobs.post("/jobs/retry")
def retry_chosen() -> Response:
    """Run the chosen failed jobs again: all of them or, with an error, none."""
    needs(Right.ACT)
    ids = _chosen()
    with acting() as audit:
        actions.retry_jobs(audit, ids)
    flash(f"{_count(len(ids))} retried, as new jobs.")
    return redirect(url_for("jobs.list_newest"), 303)


@jobs.post("/jobs/cancel")
def cancel_chosen() -> Response:
    """Cancel the chosen jobs; those that have ended stay as they are."""
    needs(Right.ACT)
    ids = _chosen()
    for job_id in ids:
        with acting() as audit:
            job = actions.cancel_job(audit, job_id)
        ending.give_back_cancelled(deps().admission, job)
    flash(f"{_count(len(ids))} cancelled, or asked to stop, unless they had ended.")
    return redirect(url_for("jobs.list_newest"), 303)


def _chosen() -> list[UUID]:
    """The jobs that the form names. Raises: InvalidRequest. NotFound."""
    chosen = request.form.getlist("id")
    if not 0 < len(chosen) <= PAGE_ROWS:
        raise InvalidRequest(f"Choose 1 to {PAGE_ROWS} jobs.", param="id")
    # An id that is named twice is one job.
    return list(dict.fromkeys(parse_id(each) for each in chosen))


def _count(number: int) -> str:
    return "1 job is" if number == 1 else f"{number} jobs are"


@jobs.post("/jobs/<job_id>/retry")
def retry(job_id: str) -> Response:
    """Run a failed job again, as a new job. The form of a poison prompt says so, and sends `force`."""
    needs(Right.ACT)
    with acting() as audit:
        [new] = actions.retry_jobs(audit, [parse_id(job_id)], with_poison="force" in request.form).values()
    flash(f"{job_id} is retried as this job.")
    return redirect(url_for("jobs.show", job_id=show_id(new)), 303)


@jobs.post("/jobs/<job_id>/cancel")
def cancel(job_id: str) -> Response:
    """Cancel a job; its worker stops a running one soon."""
    needs(Right.ACT)
    with acting() as audit:
        job = actions.cancel_job(audit, parse_id(job_id))
    ending.give_back_cancelled(deps().admission, job)
    flash("It is cancelled." if job.state is JobState.CANCELLED else f"It is asked to stop; it is {job.state}.")
    return redirect(url_for("jobs.show", job_id=show_id(job.id)), 303)


def _reduced(event: Event) -> Event:
    """The event without what may quote a prompt or contain a secret."""
    facts = {name: fact for name, fact in event.facts.items() if name != "error_message"}
    if "url" in facts:
        facts["url"] = origin(facts["url"])
    return replace(event, facts=facts)


def _texts(found: History) -> dict[str, Any]:
    text = found.texts
    messages = text.messages if text is not None else None
    return {"is_erased": text is None, "text": text, "messages": messages, "error": found.job.error_message}


def _around(db: Connection, job: Any) -> Surroundings:
    """What is around a job that waits. Where Redis does not answer, the expected wait is unknown."""
    ahead = queued.ahead_of(db, job.queue, job.queued_at, job.id) if job.state == JobState.QUEUED else None
    now = clock.now(db)
    if JobState(job.state).is_terminal or job.state == JobState.RUNNING:
        return Surroundings(now, None, 0, 0, 0, None)
    pool, _, _ = job.queue.rpartition(".")
    if pool not in (*deps().settings.own_pools, OVERFLOW):
        return Surroundings(now, ahead, 0, 0, 0, None)
    try:
        fleet, wait_s = deps().forecast.pool(pool).fleet, deps().forecast.wait_if_submitted_s(job.queue)
    except Unavailable:
        return Surroundings(now, ahead, 0, 0, 0, None)
    return Surroundings(now, ahead, fleet.workers, fleet.running, fleet.slots, wait_s)


deliveries = Blueprint("deliveries", __name__)

DELIVERY_ROWS = 100


@deliveries.get("/deliveries")
def list_deliveries() -> str:
    """The newest deliveries that fit the filter."""
    form = checked(DeliveryFilter(request.args))
    with deps().store.read() as db:
        app_id = apps.find_app(db, form.app.data).id if form.app.data else None
        found = store.newest(db, state=form.state.data or None, app_id=app_id, limit=DELIVERY_ROWS)
        paused = store.paused(db)
    about = {"is_cut": len(found) == DELIVERY_ROWS, "look_rows": store.LOOK_ROWS}
    return render_template("deliveries.html", form=form, deliveries=found, paused=paused, **about)


@deliveries.post("/deliveries/pause")
def pause() -> Response:
    """Send no webhooks of an app to a receiver until it is resumed."""
    needs(Right.ACT)
    with acting() as audit:
        receiver, waiting = actions.pause_receiver(audit, *_receiver())
    flash(f"{receiver} is paused: {waiting:,} deliveries wait.")
    return redirect(url_for("deliveries.list_deliveries"), 303)


@deliveries.post("/deliveries/resume")
def resume() -> Response:
    """Send webhooks to a paused receiver again."""
    needs(Right.ACT)
    with acting() as audit:
        receiver, waiting = actions.resume_receiver(audit, *_receiver())
    flash(f"{receiver} is sent to again: {waiting:,} deliveries wait.")
    return redirect(url_for("deliveries.list_deliveries"), 303)


def _receiver() -> tuple[str, str]:
    """The app and the receiver that the form names. Raises: InvalidRequest."""
    app, receiver = request.form.get("app", ""), request.form.get("receiver", "")
    if not app.isprintable():
        raise InvalidRequest("App: it has characters that cannot be printed.", param="app")
    return app, receiver


@deliveries.post("/deliveries/retry")
def retry_deliveries() -> Response:
    """Send the chosen deliveries again: all of them or, with an error, none."""
    needs(Right.ACT)
    chosen = request.form.getlist("id")
    if not 0 < len(chosen) <= DELIVERY_ROWS:
        raise InvalidRequest(f"Choose 1 to {DELIVERY_ROWS} deliveries.", param="id")
    with acting() as audit:
        retried = actions.retry_deliveries(audit, chosen)
    flash(f"{len(retried)} {'is' if len(retried) == 1 else 'are'} tried again.")
    return redirect(url_for("deliveries.list_deliveries"), 303)
