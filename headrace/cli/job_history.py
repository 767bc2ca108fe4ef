"""`headrace jobs show`, for operators: one job's timeline, from its acceptance to its end."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import click
from rich.markup import escape
from rich.table import Table
from sqlalchemy import Row

from headrace.cli.client import notes, out
from headrace.cli.database import database
from headrace.cli.table import table
from headrace.domain.ids import parse_id, show_id
from headrace.domain.queues import Route
from headrace.store.jobs.history import History, history

#: The job's fields that are shown beside its events.
_FACTS = (
    *("lane", "pool", "queue", "route", "route_reason", "overflow", "model_requested", "model_served"),
    *("adapter", "stream", "background", "suspicion", "attempt", "prompt_tokens", "max_tokens", "output_tokens"),
    *("cached_tokens", "reasoning_tokens", "finish_reason", "error_code", "usd", "max_cost_usd"),
    *("created_at", "queued_at", "started_at", "ended_at", "start_by", "finish_by"),
)
_TOKENS = ("prompt_tokens", "cached_tokens", "output_tokens")
_ENDED = ("outcome", "error_code", "model_served", *_TOKENS, "engine_s", "first_token_s", "preemptions", "reserved_usd")
_CHARGED = ("kind", "attempt", "model", "host_id", *_TOKENS, "engine_s", "usd", "idle_usd", "api_usd", "price_version")
_DELIVERY = ("url", "state", "tries", "last_status", "last_error", "delivered_at")
_TEXTS = ("messages", "sampling", "reasoning", "answer")


@dataclass(frozen=True, slots=True)
class Event:
    """A past or future event of the job. `facts` holds its known details."""

    at: datetime
    name: str
    facts: Mapping[str, Any]


@click.command()
@click.argument("job_id", metavar="JOB")
@click.option("--text", "with_texts", is_flag=True, help="Show its prompt and its answer too.")
@click.option("--json", "as_json", is_flag=True, help="Print every field of it as JSON.")
def show(job_id: str, with_texts: bool, as_json: bool) -> None:
    """Show one job's timeline, for a job of any app. JOB is its id: job_..., resp_... or chatcmpl-...

    \b
    headrace jobs show job_019b2f64a3c17d20b6f1c2d3e4f50617
    headrace jobs show resp_019b2f64a3c17d20b6f1c2d3e4f50617 --json | jq .timeline

    The timeline has its acceptance, its last place in a queue, each attempt, each charge and its webhook. Times are in
    UTC. The processes' logs show the id printed here as `job_id`.
    """
    with database() as db:
        found = history(db, parse_id(job_id), with_texts=with_texts)
    events = sorted(timeline(found), key=lambda event: event.at)
    if as_json:
        click.echo(json.dumps(_json(found, events), indent=2, ensure_ascii=False))
        return
    out.print(_table(found, events))
    if found.texts is not None:
        for name in _TEXTS:
            click.echo(f"\n{name}:\n{_text(getattr(found.texts, name))}")
    elif with_texts:
        notes.print("Its prompt and answer are erased.")


def timeline(found: History) -> Iterator[Event]:
    """Yield the events. If two events have the same time, the first one causes the other."""
    job = found.job
    yield Event(job.created_at, "accepted", _some(job, "lane", "overflow", "model_requested", "start_by", "finish_by"))
    if job.queued_at is not None:
        stay = _some(job, "queue", "route", "route_reason", "enqueue_no")
        yield Event(job.queued_at, "queued" if job.enqueue_no == 1 else "queued_again", stay)
    for each in found.attempts:
        began = {"attempt": each.number, **_some(each, "worker", "worker_id", "host_id", "engine")}
        yield Event(each.started_at, "attempt_started", began)
        if each.ended_at is not None:
            yield Event(each.ended_at, "attempt_ended", {"attempt": each.number, **_some(each, *_ENDED)})
    if job.cancel_requested_at is not None:
        yield Event(job.cancel_requested_at, "cancel_requested", {})
    for each in found.charges:
        yield Event(each.at, "charged", _some(each, *_CHARGED, "estimated"))
    if job.state == "waiting" and job.not_before is not None:
        yield Event(job.not_before, "due_again", {})
    if job.ended_at is not None:
        ended = _some(job, "state", "finish_reason", "error_code", "usd")
        yield Event(job.ended_at, "ended", ended | _message(found))
    for each in found.deliveries:
        due = {"next_at": _plain(each.next_at)} if each.state == "pending" else {}
        about = {"id": f"evt_{each.id.hex}", "about": each.event}
        yield Event(each.created_at, "webhook", {**about, **_some(each, *_DELIVERY), **due})
    if job.erased_at is not None:
        yield Event(job.erased_at, "text_erased", {})


def _message(found: History) -> dict[str, Any]:
    """The job's error message. The paid API's may quote the prompt, so it is shown only with the texts."""
    is_text = found.job.route == Route.OVERFLOW and found.texts is None
    return {} if is_text else _some(found.job, "error_message")


def _some(row: Row[Any], *names: str) -> dict[str, Any]:
    """The named columns that hold a value."""
    held = {name: _plain(getattr(row, name)) for name in names}
    return {name: value for name, value in held.items() if value is not None and value is not False}


def _plain(value: Any) -> Any:
    """A column's value for JSON."""
    match value:
        case datetime():
            return value.isoformat()
        case Decimal():
            return f"{value:f}"
        case UUID():
            return str(value)
        case float():
            return round(value, 3)
        case _:
            return value


def _json(found: History, events: list[Event]) -> dict[str, Any]:
    job = found.job
    told = {
        "id": show_id(job.id),
        "app": job.app,
        "status": job.state,
        **{name: _plain(getattr(job, name)) for name in _FACTS},
        **_message(found),
        "retry_of": job.retry_of and show_id(job.retry_of),
        "retried_as": job.retried_as and show_id(job.retried_as),
        "timeline": [{"at": event.at.isoformat(), "event": event.name, **event.facts} for event in events],
    }
    if found.texts is not None:
        told["text"] = {name: getattr(found.texts, name) for name in _TEXTS}
    return told


def _table(found: History, events: list[Event]) -> Table:
    job = found.job
    rows = table("at (UTC)", "event", "what is known of it")
    rows.title, rows.title_justify = escape(f"{show_id(job.id)} of {job.app}: {job.state}"), "left"
    if job.retry_of is not None:
        rows.title = f"{rows.title}, retry of {show_id(job.retry_of)}"
    if job.retried_as is not None:
        rows.title = f"{rows.title}, retried as {show_id(job.retried_as)}"
    rows.columns[0].no_wrap = rows.columns[1].no_wrap = True
    rows.columns[2].overflow = "fold"
    for event in events:
        facts = " ".join(f"{name}={value}" for name, value in event.facts.items())
        rows.add_row(f"{event.at:%m-%d %H:%M:%S.%f}"[:-3], event.name, escape(facts))
    return rows


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)
