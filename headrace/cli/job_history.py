"""`headrace jobs show`, for operators: one job's timeline, from its acceptance to its end."""

import json
from typing import Any

import click
from rich.markup import escape
from rich.table import Table

from headrace.cli.client import notes, out
from headrace.cli.database import database
from headrace.cli.table import table
from headrace.domain.ids import parse_id, show_id
from headrace.store.jobs.history import History, history
from headrace.store.jobs.timeline import Event, message, plain, timeline

#: The job's fields that are shown beside its events.
_FACTS = (
    *("lane", "pool", "queue", "route", "route_reason", "overflow", "model_requested", "model_served"),
    *("adapter", "stream", "background", "suspicion", "attempt", "prompt_tokens", "max_tokens", "output_tokens"),
    *("cached_tokens", "reasoning_tokens", "finish_reason", "error_code", "usd", "max_cost_usd", "cache"),
    *("created_at", "queued_at", "started_at", "ended_at", "start_by", "finish_by"),
)
_TEXTS = ("messages", "sampling", "reasoning", "answer", "tool_calls", "choices")


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


def _json(found: History, events: list[Event]) -> dict[str, Any]:
    job = found.job
    told = {
        "id": show_id(job.id),
        "app": job.app,
        "status": job.state,
        **{name: plain(getattr(job, name)) for name in _FACTS},
        **message(found),
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
